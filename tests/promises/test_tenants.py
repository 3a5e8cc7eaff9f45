"""Every route with every kind of key, and two tenants whose traces, customers and requests have the same names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.wire.respan_experiments import add_items, add_result, make_dataset, make_evaluator, make_experiment

from clearspan.api.app import build_routes
from clearspan.api.auth import Permission, route_permissions
from clearspan.catalog import KeyScope
from clearspan.catalog.experiments import ExperimentStatus
from clearspan.experiments.items import NewItem
from clearspan.testing.wire import OWNER_KEY, Wire, open_wire

from .plugin import PromiseFixture

OPEN = {Permission.PUBLIC, Permission.NONE_NEEDED}
SECRET = "ann@example.com"
SHARED_ID = "the-same-id"


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with ExitStack() as stack:
        yield open_wire(stack, tmp_path / "data", "sqlite")


def closed_routes(wire: Wire) -> list[tuple[str, str, Permission]]:
    """(method, path, permission) of every route that needs a key, each spelling."""
    found = []
    for (method, path), permission in route_permissions(build_routes(wire.services)).items():
        assert permission is not None, f"{method} {path} declares no permission"
        if permission not in OPEN:
            found.append((method, path, permission))
    return found


def filled(path: str, **ids: object) -> str:
    """The path with its parameters; those that are not given name nothing."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: str(ids.get(match[1], "unknown")), path)


def test_every_route_with_every_kind_of_key(wire: Wire, promise: PromiseFixture) -> None:
    counter = promise("P9", "T1")
    org = wire.catalog.first_org.id
    short = wire.catalog.create_key(org, name="short", expires_at_ns=wire.clock.now_ns() + 1)
    gone = wire.catalog.create_key(org, name="gone")
    wire.catalog.revoke_key(org, gone.key.public_id)
    wire.clock.advance(10)
    invalid = {"none": None, "empty": "", "wrong": "cs_00000000_" + "A" * 43}
    invalid |= {"expired": short.secret, "revoked": gone.secret}
    by_scope = {scope: wire.key(scope) for scope in KeyScope}
    asked: set[tuple[str, str]] = set()
    for method, path, permission in closed_routes(wire):
        address = filled(path, seq=0)
        wire.clock.advance(1)  # the budget of wrong keys fills up again
        # The same endpoint with its slash or without: that the gate stands there, too, one key tells.
        is_asked = (method, path.rstrip("/")) in asked
        asked.add((method, path.rstrip("/")))
        for kind, key in [("wrong", invalid["wrong"])] if is_asked else invalid.items():
            with counter.run(f"{method} {path} {kind}"):
                assert wire.send(method, address, {}, key=key).status_code == 401, (method, path, kind)
        for scope, key in [] if is_asked else by_scope.items():
            with counter.run(f"{method} {path} {scope}"):
                status = wire.send(method, address, {}, key=key).status_code
                is_let_in = status not in (401, 403)
                assert is_let_in is (permission.scope is scope), (method, path, scope, status)


class Tenant:
    """One organisation with a key of every scope and traces of the same names as the other's."""

    def __init__(self, wire: Wire, org_id: int) -> None:
        self.wire = wire
        self.key = wire.key(*KeyScope, org_id=org_id)
        wire.catalog.find_project(org_id, "default") or wire.catalog.create_project(org_id, "default")
        for number in range(4):
            span = wire.span(f"{SHARED_ID}-{number}", customer_identifier=SECRET, input=f"of {org_id}")
            wire.ingest(span, key=self.key)
        self.body = {"filters": {"customer_identifier": {"value": [SECRET]}}, "delete_all": True}

    def send(self, method: str, path: str, body: Any = None) -> Any:
        return self.wire.send(method, path, body, key=self.key)

    def sees(self) -> list[str]:
        return sorted(self.wire.list_ids(key=self.key))


def make_everything(tenant: Tenant) -> dict[str, Any]:
    """A verified deletion, a hold, a held child and a plan token of one tenant: their ids."""
    one = tenant.send("POST", "/v1/deletions", {"trace_ids": [f"{SHARED_ID}-0"], "delete_all": True}).json()
    hold = tenant.send("POST", "/v1/holds", {"trace_ids": [f"{SHARED_ID}-1"], "reason": SECRET}).json()
    two = {"trace_ids": [f"{SHARED_ID}-1", f"{SHARED_ID}-2"], "delete_all": True, "wait": "verified"}
    parent = tenant.send("POST", "/v1/deletions", two).json()
    plan = tenant.send("POST", "/v1/deletions/preview", tenant.body).json()
    return {
        "deletion_id": one["id"],
        "hold_id": hold["id"],
        "child_id": parent["child_id"],
        "token": plan["plan_token"],
    }


def own_view(tenant: Tenant, made: dict[str, Any]) -> list[str]:
    """Everything a tenant reads of its own; equal texts mean that nothing was changed."""
    paths = ["/v1/deletions", "/v1/holds?state=all", f"/v1/holds/{made['hold_id']}"]
    for name in ("deletion_id", "child_id"):
        paths += [f"/v1/deletions/{made[name]}", f"/v1/deletions/{made[name]}/tombstones"]
        paths += [f"/v1/deletions/{made[name]}/receipt", f"/v1/ledger/entries?deletion_id={made[name]}"]
    return [tenant.send("GET", path).text for path in paths] + tenant.sees()


def test_a_tenant_neither_sees_nor_moves_anothers_deletions_and_holds(wire: Wire, promise: PromiseFixture) -> None:
    counter = promise("P9", "T2")
    ours = Tenant(wire, wire.catalog.first_org.id)
    theirs = Tenant(wire, wire.catalog.create_organisation("Other").id)
    made = make_everything(ours)
    before, their_traces = own_view(ours, made), theirs.sees()
    entries = ours.send("GET", "/v1/ledger/entries?limit=200").json()["data"]
    seqs = [each["seq"] for each in entries if each["entry"] and each["entry"]["deletion_id"] in made.values()]
    bodies = {"/v1/tombstones/lift": {"trace_id": f"{SHARED_ID}-0", "reason": "mine"}}
    phoenix = build_routes(wire.services).state.phoenix_paths
    for method, path, _ in closed_routes(wire):
        # Phoenix's and LangSmith's parts of /v1 have their own words for what is not there, and tests of their own.
        if (
            not path.startswith("/v1/")
            or path.startswith("/v1/platform/")
            or path in phoenix
            or ("{" not in path and path.rstrip("/") not in bodies)
        ):
            continue
        for deletion_id in (made["deletion_id"], made["child_id"]):
            address = filled(path, deletion_id=deletion_id, hold_id=made["hold_id"], seq=seqs[-1])
            if address.rstrip("/").endswith("membership"):
                address += f"?project=default&trace_id={SHARED_ID}-0"
            with counter.run(f"{method} {path}"):
                answer = theirs.send(method, address, bodies.get(path.rstrip("/"), {}))
                assert answer.status_code == 404, (method, path, answer.text)
                assert SECRET not in answer.text
    with counter.run("lists", runs=4):
        check_lists(theirs, made, seqs)
    with counter.run("token"):
        answer = theirs.send("POST", "/v1/deletions", {"plan_token": made["token"]})
        assert (answer.status_code, answer.json()["code"]) == (409, "plan_used_or_unknown")
    assert theirs.sees() == their_traces
    assert own_view(ours, made) == before


def check_lists(theirs: Tenant, made: dict[str, Any], seqs: list[int]) -> None:
    """Nothing of the other tenant's in any list; of its ledger entries the number and the leaf hash alone."""
    for path in ("/v1/deletions", "/v1/holds?state=all"):
        assert theirs.send("GET", path).json()["data"] == []
    answer = theirs.send("GET", "/v1/ledger/entries?limit=200")
    assert not any(value in answer.text for value in (*made.values(), SECRET, SHARED_ID))
    by_seq = {each["seq"]: each for each in answer.json()["data"]}
    assert all((by_seq[seq]["text"], by_seq[seq]["entry"]) == (None, None) for seq in seqs)
    assert theirs.send("GET", f"/v1/ledger/entries?deletion_id={made['deletion_id']}").status_code == 404


def test_the_same_request_takes_ones_own_alone(wire: Wire, promise: PromiseFixture) -> None:
    counter = promise("P9", "T2")
    ours = Tenant(wire, wire.catalog.first_org.id)
    theirs = Tenant(wire, wire.catalog.create_organisation("Other").id)
    for first, second in ((ours, theirs), (theirs, ours)):
        kept = second.sees()
        with counter.run("preview"):
            plan = first.send("POST", "/v1/deletions/preview", first.body).json()
            assert plan["traces"]["matched"] == len(first.sees()) == 4
        with counter.run("hold"):
            hold = second.send("POST", "/v1/holds", {"everything": True, "reason": "all of it"}).json()
            assert hold["traces"]["protected"] == len(kept), "a hold keeps its own tenant's alone"
        with counter.run("delete"):
            done = first.send("POST", "/v1/deletions", {**first.body, "wait": "verified", "idempotency_key": "same"})
            assert (done.status_code, done.json()["traces"]["hidden"]) == (202, 4), done.text
            assert (first.sees(), second.sees()) == ([], kept)
        with counter.run("late"):
            late = wire.span(f"{SHARED_ID}-0", "late")
            told = wire.post("/api/v1/traces/ingest", [late], key=first.key).json()["message"]
            assert "1 spans refused" in told
            if kept:
                wire.ingest(wire.span(kept[0], "late"), key=second.key)
        second.send("DELETE", f"/v1/holds/{hold['id']}", {})
    assert wire.list_ids(key=OWNER_KEY) == []


EXPERIMENTS = "/api/v2/experiments/"
WHOLE = {"", "progress/", "cancel/", "start/", "retry/"}
"""Parts of an experiment's address that are about all of its results, for what changes or counts them."""


def test_a_key_of_one_environment_neither_counts_nor_steers_an_experiment(wire: Wire, promise: PromiseFixture) -> None:
    counter = promise("P9", "T2")
    dataset = make_dataset(wire, f"of {SECRET}")
    [item] = add_items(wire, dataset, NewItem({"q": 1}, {"a": SECRET}))
    make_evaluator(wire, "accuracy")
    experiment = make_experiment(wire, dataset, status=ExperimentStatus.CANCELLED)
    staging = wire.key(*KeyScope, environment="staging")
    trace_ids = [
        add_result(wire, experiment, number, item=item, outputs={"a": number}, key=key)
        for number, key in enumerate((wire.key(*KeyScope, environment="production"), staging))
    ]
    one = f"{EXPERIMENTS}{experiment.public_id}/"
    before = wire.get(one).json()
    for method, path, _ in closed_routes(wire):
        if not path.startswith(EXPERIMENTS) or not path.endswith("/") or method == "HEAD":
            continue
        address = filled(path, experiment_id=experiment.public_id, log_id=trace_ids[0]) + "?evaluator_id=accuracy"
        said: Any = {"concurrency": 9} if method in ("PATCH", "PUT") else {}
        with counter.run(f"{method} {path}"):
            answer = wire.send(method, address, None if method == "GET" else said, key=staging)
            is_whole = path in {one_path(part) for part in WHOLE} and (method, path) != ("GET", one_path(""))
            wanted = (403,) if is_whole or (path == EXPERIMENTS and method == "POST") else (200, 400, 404)
            assert answer.status_code in wanted, (method, path, answer.text)
            told = [each for each in (trace_ids[0], f"of {SECRET}") if each in answer.text]
            assert not told, (method, path)
    assert wire.get(one).json() == before
    seen = wire.post(f"{one}logs/list/", {}, key=staging).json()
    assert (seen["count"], seen["results"][0]["expected_output"]) == (1, None), "datasets may hold other environments"
    assert wire.get(f"{one}progress/").json()["total"] == 2, "whoever sees all of the organisation counts"


def one_path(part: str) -> str:
    """The path of a part of one experiment, as routes spell it."""
    return f"{EXPERIMENTS}{{experiment_id}}/{part}"
