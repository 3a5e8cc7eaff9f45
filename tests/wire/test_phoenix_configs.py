"""Phoenix's annotation configs, and which projects show them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from clearspan.catalog import KeyScope
from clearspan.testing.wire import OWNER_KEY, Wire

VERDICT = {
    "name": "verdict",
    "type": "CATEGORICAL",
    "optimization_direction": "MAXIMIZE",
    "values": [{"label": "good", "score": 1}, {"label": "bad", "score": 0}],
}
SCALE = {"name": "c", "type": "CONTINUOUS", "optimization_direction": "NONE", "lower_bound": 0, "upper_bound": 1}
FREE = {"name": "f", "type": "FREEFORM"}
ROOT = "/v1/annotation_configs"


def make(wire: Wire, body: dict[str, Any], key: str = OWNER_KEY) -> dict[str, Any]:
    answer = wire.post(ROOT, body, key=key)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()["data"]
    return told


def names(wire: Wire, path: str = ROOT, key: str = OWNER_KEY) -> list[str]:
    answer = wire.get(path, key=key)
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["data"]]


def refused(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "text/plain; charset=utf-8", answer.text
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    ("body", "gid", "shown"),
    [
        (VERDICT, "CategoricalAnnotationConfig", {"description": None}),
        (SCALE | {"description": "d"}, "ContinuousAnnotationConfig", {}),
        (
            FREE,
            "FreeformAnnotationConfig",
            dict.fromkeys(("description", "optimization_direction", "threshold", "lower_bound", "upper_bound")),
        ),
        (
            FREE | {"threshold": 0.5, "optimization_direction": "MINIMIZE", "lower_bound": -1},
            "FreeformAnnotationConfig",
            {"description": None, "upper_bound": None},
        ),
    ],
)
def test_a_config_comes_back_by_id_and_by_name(wire: Wire, body: dict[str, Any], gid: str, shown: Any) -> None:
    told = make(wire, body)
    kind, _, number = base64.b64decode(told["id"]).decode().partition(":")
    assert (kind, number.isdigit()) == (gid, True)
    assert told == body | shown | {"id": told["id"]}
    assert wire.get(f"{ROOT}/{told['id']}").json() == wire.get(f"{ROOT}/{told['name']}").json() == {"data": told}


def test_a_fresh_server_holds_one(wire: Wire) -> None:
    [told] = wire.get(ROOT).json()["data"]
    assert (told["name"], told["type"]) == ("user_feedback", "CATEGORICAL")


def test_lists_are_newest_first_and_page(wire: Wire) -> None:
    for number in range(5):
        make(wire, FREE | {"name": f"n{number}"})
    found: list[str] = []
    cursor = ""
    while True:
        answer = wire.get(f"{ROOT}?limit=2{cursor}").json()
        found += [each["name"] for each in answer["data"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert found == ["n4", "n3", "n2", "n1", "n0", "user_feedback"]
    assert refused(wire.get(f"{ROOT}?cursor=garbage")) == (400, "Invalid cursor: garbage")
    assert wire.get(f"{ROOT}?limit=0").status_code == 422


def test_what_cannot_be_is_refused(wire: Wire) -> None:
    make(wire, VERDICT)
    taken = (409, "The name of the annotation configuration is already taken")
    assert refused(wire.post(ROOT, VERDICT)) == taken
    reserved = refused(wire.post(ROOT, FREE | {"name": "note"}))
    assert reserved[0] == 409
    assert reserved[1].startswith("The name 'note' is reserved")
    assert refused(wire.post(ROOT, VERDICT | {"name": "x", "values": []}))[0] == 400
    assert refused(wire.post(ROOT, SCALE | {"lower_bound": 2}))[0] == 400
    assert refused(wire.post(ROOT, SCALE | {"lower_bound": 1}))[0] == 400
    assert refused(wire.post(ROOT, FREE | {"name": ""}))[0] == 400
    wrong = {"name": "x", "type": "WRONG"}
    answer = wire.post(ROOT, wrong)
    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {
            "type": "union_tag_invalid",
            "loc": ["body"],
            "msg": "Input tag 'WRONG' found using 'type' does not match any of the expected tags: "
            "'CATEGORICAL', 'CONTINUOUS', 'FREEFORM'",
            "input": wrong,
            "ctx": {
                "discriminator": "'type'",
                "tag": "WRONG",
                "expected_tags": "'CATEGORICAL', 'CONTINUOUS', 'FREEFORM'",
            },
        }
    ]
    missing = wire.post(ROOT, {"name": "x", "type": "CATEGORICAL"}).json()["detail"]
    assert [each["loc"] for each in missing] == [
        ["body", "CATEGORICAL", "optimization_direction"],
        ["body", "CATEGORICAL", "values"],
    ]


def test_a_config_is_replaced_whole(wire: Wire) -> None:
    told = make(wire, VERDICT)
    make(wire, FREE)
    path = f"{ROOT}/{told['id']}"
    changed = wire.send("PUT", path, VERDICT | {"description": "d", "name": "other"})
    assert changed.status_code == 200, changed.text
    assert changed.json()["data"] == told | {"description": "d", "name": "other"}
    assert refused(wire.send("PUT", path, VERDICT | {"name": "f"}))[0] == 409
    assert refused(wire.send("PUT", f"{ROOT}/other", VERDICT))[0] == 400
    absent = base64.b64encode(b"CategoricalAnnotationConfig:999").decode()
    assert refused(wire.send("PUT", f"{ROOT}/{absent}", VERDICT)) == (404, "Annotation configuration not found")


def test_a_config_is_removed_by_its_id(wire: Wire) -> None:
    told = make(wire, VERDICT)
    path = f"{ROOT}/{told['id']}"
    by_name = refused(wire.send("DELETE", f"{ROOT}/verdict"))
    assert by_name == (422, "Invalid annotation configuration ID format: verdict")
    gone = wire.send("DELETE", path)
    assert (gone.status_code, gone.json()) == (200, {"data": told})
    assert refused(wire.send("DELETE", path)) == (404, "Annotation configuration not found")
    assert refused(wire.get(f"{ROOT}/verdict")) == (404, "Annotation configuration not found")


def test_projects_show_what_they_are_given(wire: Wire) -> None:
    path = "/v1/projects/default/annotation_configs"
    verdict, scale = make(wire, VERDICT), make(wire, SCALE)
    assert names(wire, path) == []
    for _ in range(2):
        assert wire.send("PUT", f"{path}/verdict").json() == {"data": verdict}
    wire.send("PUT", f"{path}/{scale['id']}")
    assert names(wire, path) == ["c", "verdict"]
    page = wire.get(f"{path}?limit=1").json()
    assert names(wire, f"{path}?limit=1&cursor={page['next_cursor']}") == ["verdict"]
    told = wire.send("PUT", path, {"annotation_config_ids": [verdict["id"]]})
    assert told.json() == {"data": [verdict], "next_cursor": None}
    for _ in range(2):
        gone = wire.send("DELETE", f"{path}/verdict")
        assert (gone.status_code, gone.content) == (204, b"")
        assert "content-type" not in gone.headers
    assert names(wire, path) == []
    wire.send("PUT", f"{path}/verdict")
    assert wire.send("PUT", path, {"annotation_config_ids": []}).json() == {"data": [], "next_cursor": None}
    absent = base64.b64encode(b"FreeformAnnotationConfig:999").decode()
    missing = (404, "Annotation configuration not found")
    assert refused(wire.send("PUT", path, {"annotation_config_ids": [absent]})) == missing
    assert refused(wire.send("PUT", f"{path}/nothing")) == refused(wire.send("DELETE", f"{path}/nothing")) == missing
    assert refused(wire.send("PUT", path, {"annotation_config_ids": ["verdict"]}))[0] == 422
    assert wire.send("PUT", path, {}).status_code == 422
    for method in ("GET", "PUT"):
        body = {"annotation_config_ids": []} if method == "PUT" else None
        answer = wire.send(method, "/v1/projects/no-such/annotation_configs", body)
        assert refused(answer) == (404, "Project with name no-such not found")


def test_configs_are_their_organisations(wire: Wire) -> None:
    told = make(wire, VERDICT)
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    assert names(wire, key=theirs) == ["user_feedback"]
    for method, body in (("GET", None), ("PUT", VERDICT), ("DELETE", None)):
        assert wire.send(method, f"{ROOT}/{told['id']}", body, key=theirs).status_code == 404
    path = "/v1/projects/default/annotation_configs"
    assert wire.send("PUT", path, {"annotation_config_ids": [told["id"]]}, key=theirs).status_code == 404
    assert make(wire, VERDICT, key=theirs)["id"] != told["id"]
    viewer = wire.key(KeyScope.READ)
    assert refused(wire.post(ROOT, FREE, key=viewer)) == (403, "Viewers cannot perform this action.")


def test_a_config_of_langsmith_is_shown(wire: Wire) -> None:
    config = {"type": "categorical", "categories": [{"value": 1}, {"value": 0.5, "label": "half"}]}
    assert wire.post("/feedback-configs", {"feedback_key": "tone", "feedback_config": config}).is_success
    told = wire.get(f"{ROOT}/tone").json()["data"]
    assert told["values"] == [{"label": "1", "score": 1.0}, {"label": "half", "score": 0.5}]
    make(wire, SCALE)
    seen = wire.get("/feedback-configs?key=c").json()
    assert (seen[0]["feedback_config"]["min"], seen[0]["feedback_config"]["max"]) == (0.0, 1.0)
