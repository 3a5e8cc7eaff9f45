"""Removing a session: its traces by an ordinary deletion, then everything that was written about it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from native import hold, until

from clearspan.catalog import KeyPolicy, KeyScope, Project
from clearspan.catalog.projects import ProjectState
from clearspan.deletion.projects import WATCHED_S
from clearspan.testing.wire import Wire, open_wire


@pytest.fixture
def chat(wire: Wire) -> Project:
    """A project with two traces, beside one with one."""
    made = wire.post("/sessions", {"name": "chat", "description": "needle of a description"})
    assert made.status_code == 200
    project = wire.catalog.find_project(wire.catalog.first_org.id, "chat")
    assert project is not None
    wire.ingest(wire.span("t1"), wire.span("t2"), key=writer(wire, project))
    wire.ingest(wire.span("kept"))
    return project


def writer(wire: Wire, project: Project) -> str:
    return wire.key(KeyScope.INGEST, project_ids=[project.id])


def path(project: Project) -> str:
    return f"/sessions/{project.uuid}"


def state_of(wire: Wire, project: Project) -> Project:
    every = wire.catalog.projects(project.org_id, states=tuple(ProjectState))
    return next(each for each in every if each.id == project.id)


def listed(wire: Wire) -> list[str]:
    return [each["name"] for each in wire.get("/sessions?sort_by=name&sort_by_desc=false").json()]


@pytest.mark.parametrize("root", ["", "/api/v1"])
def test_a_session_goes_with_its_traces_and_a_receipt(wire: Wire, chat: Project, root: str) -> None:
    answer = wire.send("DELETE", root + path(chat))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["deleted_count"], told["held_count"], told["state"]) == (2, 0, "verified")
    assert answer.headers["clearspan-deletion-id"] == told["deletion_id"]
    assert answer.headers["clearspan-deletion-state"] == "verified"
    assert listed(wire) == ["default"]
    assert wire.list_ids() == ["kept"]
    again = wire.send("DELETE", root + path(chat))
    assert (again.status_code, again.json()) == (404, {"detail": "Session not found."})
    deletion = wire.get(answer.headers["location"])
    assert deletion.status_code == 200, "the deletion of a project that is gone can still be read"
    assert deletion.json()["dialect"] == "langsmith"
    assert wire.get(f"/v1/deletions/{told['deletion_id']}/receipt").status_code == 200
    assert told["deletion_id"] in {each["id"] for each in wire.get("/v1/deletions").json()["data"]}
    gone = state_of(wire, chat)
    assert (gone.state, gone.description, gone.name) == (ProjectState.GONE, None, gone.public_id)


def test_its_name_and_id_are_free_at_once(wire: Wire, chat: Project) -> None:
    wire.send("DELETE", path(chat))
    made = wire.post("/sessions", {"name": "chat", "id": chat.uuid})
    assert made.status_code == 200
    assert made.json()["description"] is None
    new = wire.catalog.find_project(chat.org_id, "chat")
    assert new is not None
    assert new.id != chat.id
    wire.ingest(wire.span("t1"), key=writer(wire, new))
    assert sorted(wire.list_ids()) == ["kept", "t1"], "the tombstones are the old project's"


def test_a_session_without_traces_goes_too(wire: Wire) -> None:
    made = wire.post("/sessions", {"name": "empty"}).json()
    answer = wire.send("DELETE", f"/sessions/{made['id']}")
    assert (answer.status_code, answer.json()["deleted_count"]) == (200, 0)
    assert listed(wire) == ["default"]


def test_the_default_session_is_emptied_and_stays(wire: Wire, chat: Project) -> None:
    [default] = wire.get("/sessions?name=default").json()
    answer = wire.send("DELETE", f"/sessions/{default['id']}")
    assert (answer.status_code, answer.json()["deleted_count"]) == (200, 1)
    assert wire.get("/sessions?name=default").json() == [default]
    assert sorted(wire.list_ids()) == ["t1", "t2"]


def test_several_sessions_go_together_or_none(wire: Wire, chat: Project) -> None:
    other = wire.post("/sessions", {"name": "other"}).json()["id"]
    refused = wire.send("DELETE", f"/sessions?session_ids={chat.uuid}&session_ids={uuid4()}")
    assert refused.status_code == 404
    assert sorted(wire.list_ids()) == ["kept", "t1", "t2"]
    assert wire.send("DELETE", "/sessions").status_code == 422
    answer = wire.send("DELETE", f"/sessions?session_ids={chat.uuid}&session_ids={other}&session_ids={other}")
    assert answer.status_code == 200
    assert [each["deleted_count"] for each in answer.json()["sessions"]] == [2, 0]
    assert len(answer.headers["clearspan-deletion-id"].split(", ")) == 2
    assert listed(wire) == ["default"]


def test_one_that_holds_keep_does_not_hide_what_became_of_the_others(wire: Wire, chat: Project) -> None:
    other = wire.post("/sessions", {"name": "other"}).json()["id"]
    hold(wire, trace_ids=["t1", "t2"])
    answer = wire.send("DELETE", f"/sessions?session_ids={other}&session_ids={chat.uuid}")
    assert answer.status_code == 202
    assert answer.json()["message"].startswith("1 of 2 sessions deleted")
    done, kept = answer.json()["sessions"]
    assert (done["state"], answer.headers["clearspan-deletion-id"]) == ("verified", done["deletion_id"])
    assert kept["error"] == "held"
    assert listed(wire) == ["chat", "default"]


def test_what_is_only_hidden_is_not_told_as_deleted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        wire = open_wire(stack, tmp_path / "data", "memory", delete_wait_s=0.0)
        wire.ingest(wire.span("t1"), wire.span("t2"))
        [session] = wire.get("/sessions").json()
        answer = wire.send("DELETE", f"/sessions?session_ids={session['id']}")
    [told] = answer.json()["sessions"]
    is_erased = told["state"] == "verified"  # it may be that quick
    assert (told["deleted_count"], told["hidden_count"]) == (2 if is_erased else 0, 2)
    assert answer.json()["message"].startswith("1 sessions" if is_erased else "0 of 1 sessions")


def test_what_is_held_keeps_the_session_till_it_goes(wire: Wire, chat: Project) -> None:
    held = hold(wire, trace_ids=["t1"])
    answer = wire.send("DELETE", path(chat))
    assert answer.status_code == 202
    assert (answer.json()["deleted_count"], answer.json()["held_count"]) == (1, 1)
    assert listed(wire) == ["default"]
    assert wire.list_ids() == ["kept"], "nothing of a session that leaves is shown"
    assert state_of(wire, chat).state is ProjectState.LEAVING
    wire.services.removal.sweep()
    assert state_of(wire, chat).left_name == "chat"
    child = wire.get(answer.headers["location"]).json()["child_id"]
    assert wire.send("DELETE", f"/v1/holds/{held['id']}").is_success, "the hold can still be released"
    until(wire, child, "verified")
    wire.services.removal.sweep()
    assert state_of(wire, chat).state is ProjectState.GONE


def test_a_cancelled_remainder_brings_the_session_back(wire: Wire, chat: Project) -> None:
    hold(wire, trace_ids=["t1"])
    answer = wire.send("DELETE", path(chat))
    child = wire.get(answer.headers["location"]).json()["child_id"]
    assert wire.post(f"/v1/deletions/{child}/cancel", {}).is_success
    wire.services.removal.sweep()
    assert listed(wire) == ["chat", "default"]
    assert sorted(wire.list_ids()) == ["kept", "t1"]
    assert wire.get("/sessions?name=chat").json()[0]["description"] == "needle of a description"


def test_a_session_of_nothing_but_held_traces_stays(wire: Wire, chat: Project) -> None:
    hold(wire, everything=True)
    answer = wire.send("DELETE", path(chat))
    assert (answer.status_code, set(answer.json())) == (409, {"detail"})
    assert listed(wire) == ["chat", "default"]
    assert sorted(wire.list_ids()) == ["kept", "t1", "t2"]


def test_what_comes_late_goes_as_well(wire: Wire, chat: Project) -> None:
    late = writer(wire, chat)
    principal = wire.catalog.authenticate(late)
    assert wire.send("DELETE", path(chat)).status_code == 200
    wire.catalog._keys._look_up = lambda key: principal  # a request that was let in before
    assert wire.post("/api/v1/traces/ingest", [wire.span("t1")], key=late).status_code == 200, (
        "refused by its tombstone"
    )
    wire.ingest(wire.span("t9"), key=late)
    wire.services.removal.sweep()
    gone = state_of(wire, chat)
    assert gone.deletion_id is not None
    wire.catalog._keys._look_up = wire.catalog._look_up
    wire.catalog._keys.clear()
    until(wire, gone.deletion_id, "verified")
    assert wire.list_ids() == ["kept"]
    assert state_of(wire, chat).state is ProjectState.GONE
    wire.clock.advance(WATCHED_S + 1)
    assert wire.catalog.removed_projects(gone_after_ns=wire.clock.now_ns() - round(WATCHED_S * 1e9)) == []


def test_limits_of_a_key_hold_for_sessions(wire: Wire, chat: Project) -> None:
    def refused(status: int, key: str, headers: dict[str, str] | None = None) -> None:
        answer = wire.send("DELETE", path(chat), key=key, headers=headers or {})
        assert answer.status_code == status, answer.text

    refused(422, wire.key(KeyScope.DELETE, policy=KeyPolicy(max_traces=1)))
    refused(422, wire.key(KeyScope.DELETE, policy=KeyPolicy(forbid_delete_all=True)))
    refused(403, wire.key(KeyScope.DELETE, environment="staging"))
    refused(403, wire.key(KeyScope.READ))
    talker = wire.key(KeyScope.DELETE, policy=KeyPolicy(require_reason=True))
    refused(422, talker)
    assert listed(wire) == ["chat", "default"]
    assert sorted(wire.list_ids()) == ["kept", "t1", "t2"]
    refused(200, talker, {"Clearspan-Reason": "case 12"})
    assert listed(wire) == ["default"]


def test_another_tenant_removes_nothing(wire: Wire, chat: Project) -> None:
    theirs = wire.key(*KeyScope, org_id=wire.catalog.create_organisation("other").id)
    for address in (path(chat), f"/sessions?session_ids={chat.uuid}"):
        assert wire.send("DELETE", address, key=theirs).status_code == 404
    answer: Any = wire.send("DELETE", path(chat))
    assert wire.get(answer.headers["location"], key=theirs).status_code == 404
