"""What LangSmith's clients ask first, and feedback configs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from clearspan.catalog import KeyScope
from clearspan.catalog.annotation_configs import INITIAL_NAME
from clearspan.testing.wire import OWNER_KEY, Wire

ROOTS = ("", "/api/v1")
SCALE = {"type": "continuous", "min": 0, "max": 1}
LABELS = {"type": "categorical", "categories": [{"value": 1, "label": "good"}, {"value": 0, "label": "bad"}]}


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("key", [None, "wrong", "lsv2_pt_of_somebody_else"])
def test_info_needs_no_key_and_minds_no_wrong_one(wire: Wire, root: str, key: str | None) -> None:
    answer = wire.get(f"{root}/info", key=None, headers={} if key is None else {"x-api-key": key})
    assert answer.status_code == 200
    told = answer.json()
    assert tuple(map(int, told["version"].split("."))) >= (0, 18, 0)
    assert set(told["batch_ingest_config"]) == {
        "use_multipart_endpoint", "scale_up_qsize_trigger", "scale_up_nthreads_limit", "scale_down_nempty_trigger",
        "size_limit", "size_limit_bytes",
    }  # fmt: skip
    assert told["batch_ingest_config"]["size_limit_bytes"] < wire.services.settings.body_bytes_max
    flags = (
        "zstd_compression_enabled", "gzip_body_enabled", "dataset_examples_multipart_enabled",
        "examples_multipart_enabled",
    )  # fmt: skip
    assert told["instance_flags"] == dict.fromkeys(flags, True)


def test_info_counts_no_guess(wire: Wire) -> None:
    limit = wire.services.settings.rate_limit_wrong_keys or 0
    for number in range(limit + 20):
        assert wire.get("/info", key=f"guess-{number}").status_code == 200


@pytest.mark.parametrize("root", ROOTS)
def test_a_key_learns_its_workspace(wire: Wire, root: str) -> None:
    told = wire.get(f"{root}/settings").json()
    assert UUID(told["id"])
    assert (told["display_name"], told["tenant_handle"]) == ("Clearspan", None)
    assert told["created_at"].startswith("2026-01-01T00:00:00")
    [workspace] = wire.get(f"{root}/workspaces").json()
    assert workspace["id"] == told["id"]
    other = wire.catalog.create_organisation("other")
    assert wire.get(f"{root}/settings", key=wire.key(KeyScope.READ, org_id=other.id)).json()["id"] != told["id"]
    session = wire.get(f"{root}/sessions?limit=1").json()[0]
    assert session["tenant_id"] == told["id"]


def put(wire: Wire, key: str = "tone", config: Any = None, method: str = "POST", **more: Any) -> Any:
    body = {"feedback_key": key} | ({} if config is None else {"feedback_config": config}) | more
    return wire.send(method, "/feedback-configs", body)


def configs(wire: Wire, query: str = "", **rest: Any) -> list[dict[str, Any]]:
    """What a list shows besides the config that every organisation begins with."""
    every = wire.get(f"/api/v1/feedback-configs{query}", **rest).json()
    return [each for each in every if each["feedback_key"] != INITIAL_NAME]


def test_every_organisation_begins_with_a_config(wire: Wire) -> None:
    theirs = wire.key(KeyScope.READ, org_id=wire.catalog.create_organisation("other").id)
    for key in (OWNER_KEY, theirs):
        [told] = wire.get("/feedback-configs", key=key).json()
        assert (told["feedback_key"], told["feedback_config"]["type"]) == ("user_feedback", "categorical")
    assert wire.send("DELETE", "/feedback-configs?feedback_key=user_feedback").status_code == 204
    assert wire.get("/feedback-configs").json() == []


def test_a_feedback_config_is_kept(wire: Wire) -> None:
    made = put(wire, config=SCALE, is_lower_score_better=True)
    assert made.status_code == 200, made.text
    told = made.json()
    assert (told["feedback_key"], told["is_lower_score_better"]) == ("tone", True)
    assert told["feedback_config"] == {"type": "continuous", "min": 0.0, "max": 1.0, "categories": None}
    assert {"tenant_id", "modified_at"} <= set(told)
    assert put(wire, config=SCALE, is_lower_score_better=True).json() == told, "the same again is the same"
    for different in ({"config": LABELS}, {"config": SCALE}):
        refused = put(wire, **different)
        assert refused.status_code == 422, refused.text
        assert refused.json()["detail"][0]["loc"] == ["body", "feedback_key"]
    assert configs(wire) == [told]


def test_lists_of_configs_narrow_and_page(wire: Wire) -> None:
    for name in ("tone", "length", "Tone of voice"):
        put(wire, name, LABELS)

    def names(query: str) -> list[str]:
        return [each["feedback_key"] for each in configs(wire, query)]

    assert names("") == ["tone", "length", "Tone of voice"]
    assert names("?key=length&key=tone") == ["tone", "length"]
    assert names("?name_contains=TONE") == ["tone", "Tone of voice"]
    assert names("?offset=2&limit=1") == ["length"]
    assert wire.get("/feedback-configs?limit=0").status_code == 422


def test_a_config_is_changed_by_what_is_given(wire: Wire) -> None:
    put(wire, config=SCALE, is_lower_score_better=True)
    changed = put(wire, config=LABELS, method="PATCH").json()
    assert changed["feedback_config"]["categories"] == [{"label": "good", "value": 1.0}, {"label": "bad", "value": 0.0}]
    assert changed["is_lower_score_better"] is True
    assert put(wire, method="PATCH", is_lower_score_better=False).json() == changed | {"is_lower_score_better": False}
    assert put(wire, "nothing", SCALE, method="PATCH").status_code == 404


def test_a_config_is_removed(wire: Wire) -> None:
    put(wire, config=SCALE)
    assert wire.send("DELETE", "/feedback-configs").status_code == 422
    assert wire.send("DELETE", "/feedback-configs?feedback_key=tone").status_code == 204
    gone = wire.send("DELETE", "/feedback-configs?feedback_key=tone")
    assert (gone.status_code, set(gone.json())) == (404, {"detail"})
    assert configs(wire) == []


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({"type": "stars"}, {}),
        ({"type": "continuous", "min": 2, "max": 1}, {}),
        ({"type": "continuous", "min": "low"}, {}),
        ({"type": "categorical"}, {}),
        ({"type": "categorical", "categories": ["good"]}, {}),
        ({"type": "categorical", "categories": 5}, {}),
        (None, {}),
        ("continuous", {}),
        (SCALE, {"is_lower_score_better": "yes"}),
        (SCALE, {"feedback_key": ""}),
        (SCALE, {"feedback_key": "x" * 181}),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wire: Wire, config: Any, more: dict[str, Any]) -> None:
    assert put(wire, config=config, **more).status_code == 422
    assert configs(wire) == []


def test_configs_are_their_organisations(wire: Wire) -> None:
    put(wire, config=SCALE)
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    assert configs(wire, key=theirs) == []
    assert wire.send("DELETE", "/feedback-configs?feedback_key=tone", key=theirs).status_code == 404
    assert wire.post("/feedback-configs", {"feedback_key": "tone", "feedback_config": LABELS}, key=theirs).is_success
    assert configs(wire)[0]["feedback_config"]["type"] == "continuous"
