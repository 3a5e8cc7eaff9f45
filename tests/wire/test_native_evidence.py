"""The native API: events, receipts, membership, tombstones and the ledger, checked with nothing but what it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from native import by_customer, create, later, refused, until

from clearspan.api.native.events import EventHub
from clearspan.catalog import KeyScope
from clearspan.proof.head import read_head
from clearspan.proof.manifest import parse_claim
from clearspan.proof.merkle import leaf_hash, root_of, verify_consistency, verify_inclusion
from clearspan.proof.receipt import check_receipt
from clearspan.proof.signing import PublicKey, parse_jwk
from clearspan.testing.wire import Wire


@pytest.fixture
def two(wire: Wire) -> Wire:
    wire.ingest(wire.span("a", customer_identifier="u1"), wire.span("b", customer_identifier="u1"), wire.span("c"))
    return wire


def keys_of(wire: Wire) -> list[PublicKey]:
    return [parse_jwk(jwk) for jwk in wire.get("/v1/ledger/keys").json()["keys"]]


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """(event, id, data) of each event of a stream."""
    found: dict[str, str] = {}
    for line in lines:
        if not line and "data" in found:
            yield found["event"], found["id"], json.loads(found["data"])
            found = {}
        name, _, value = line.partition(": ")
        found[name] = value


def watch(wire: Wire, deletion_id: str, **headers: str) -> list[tuple[str, str, Any]]:
    path = f"/v1/deletions/{deletion_id}/events"
    answer = wire.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(events_of(iter(answer.text.splitlines())))


def test_events_of_a_deletion_that_has_ended(two: Wire) -> None:
    told = create(two, by_customer(two))
    found = watch(two, told["id"])
    states = [(data["state"], event) for event, _, data in found if event == "state"]
    assert states == [(state, "state") for state in ("planned", "hidden", "purged", "verified")]
    assert [event for event, _, _ in found[4:]] == ["progress", "end"]
    assert found[4][2]["counts"] == told["counts"]
    assert found[5][2] == {"id": told["id"], "state": "verified"}
    assert "u1" not in json.dumps(found)
    path = f"/v1/deletions/{told['id']}/events"
    assert wire_status(two, path, found[-1][1]) == 204, "nothing was missed and nothing will come"
    resumed = watch(two, told["id"], Last_Event_ID=found[1][1])
    assert [data["state"] for event, _, data in resumed if event == "state"] == ["purged", "verified"]
    for nonsense in ("", "x", "1", "1.x", "9" * 40 + ".1", "-1.0"):
        assert len(watch(two, told["id"], Last_Event_ID=nonsense)) == 6


def wire_status(wire: Wire, path: str, last: str) -> int:
    status: int = wire.get(path, headers={"Last-Event-ID": last}).status_code
    return status


def test_events_are_for_those_who_may_see_the_deletion(two: Wire) -> None:
    refused(two.get("/v1/deletions/del_x/events"), 404, "not_found")
    told = create(two, by_customer(two))
    stranger = two.key(*KeyScope, org_id=two.catalog.create_organisation("Other").id)
    refused(two.get(f"/v1/deletions/{told['id']}/events", key=stranger), 404, "not_found")


def test_the_number_of_streams_is_bounded(two: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    told = create(two, by_customer(two))
    monkeypatch.setattr(two.services.events, "_streams_max", 0)
    answer = two.get(f"/v1/deletions/{told['id']}/events")
    refused(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "5"
    assert isinstance(two.services.events, EventHub)


def test_a_receipt_proves_the_deletion_offline(two: Wire) -> None:
    told = create(two, by_customer(two))
    answer = two.get(told["receipt_url"])
    assert answer.status_code == 200
    body = answer.json()
    alone = two.get(told["receipt_url"], headers={"Accept": "application/jose"})
    assert (alone.headers["content-type"], alone.text) == ("application/jose", body["receipt"])
    both = two.get(told["receipt_url"], headers={"Accept": "application/json, application/jose"})
    assert both.headers["content-type"] == "application/json"
    create(two, {"trace_ids": ["c"]})
    head = two.get("/v1/ledger/head").json()
    size = body["payload"]["ledger"]["size"]
    joined = two.get(f"/v1/ledger/consistency?from={size}&size={head['size']}").json()
    proof = two.get(f"/v1/deletions/{told['id']}/membership?trace_id=a").json()
    found = check_receipt(body["receipt"], keys_of(two), head=head["head"], consistency=joined, member=proof)
    assert found.ok, found
    assert found.payload == body["payload"]
    assert body["payload"]["traces"]["deleted"] == 2
    assert '"u1' not in answer.text, "a signature may hold u1 by chance, and no quote"
    refused(two.get(f"/v1/deletions/{told['id']}/membership?trace_id=c"), 404, "not_a_member", "trace_id")
    refused(two.get(f"/v1/deletions/{told['id']}/membership"), 400, "missing_parameter", "trace_id")
    assert parse_claim(proof).trace_id == "a"


def test_there_is_no_receipt_before_verified(two: Wire) -> None:
    told = create(two, by_customer(two, not_before=later(two)))
    path = f"/v1/deletions/{told['id']}"
    refused(two.get(f"{path}/receipt"), 409, "receipt_not_ready")
    refused(two.get(f"{path}/membership?trace_id=a"), 409, "receipt_not_ready")
    two.post(f"{path}/cancel")
    refused(two.get(f"{path}/receipt"), 409, "receipt_not_ready")


def test_a_tombstone_can_be_listed_and_lifted(two: Wire) -> None:
    told = create(two, by_customer(two))
    path = f"/v1/deletions/{told['id']}/tombstones"
    both = two.get(path).json()
    assert (len(both["data"]), both["next_cursor"]) == (2, None)
    first = two.get(f"{path}?limit=1").json()
    second = two.get(f"{path}?limit=1&cursor={first['next_cursor']}").json()
    assert [first["data"][0], second["data"][0]] == both["data"]
    assert second["next_cursor"] is None
    late = two.post("/api/v1/traces/ingest", [two.span("a", "late")])
    assert "refused" in late.json()["message"]
    assert two.get(f"/v1/deletions/{told['id']}").json()["late_refused"] == 1
    reader = two.key(KeyScope.READ, KeyScope.DELETE)
    assert two.post("/v1/tombstones/lift", {"trace_id": "a", "reason": "r"}, key=reader).status_code == 403
    lifted = two.post("/v1/tombstones/lift", {"trace_id": "a", "project": "default", "reason": "restored for Mr Smith"})
    assert (lifted.status_code, lifted.json()["deletion_id"]) == (200, told["id"]), lifted.text
    two.ingest(two.span("a", "again"))
    assert "a" in two.list_ids()
    refused(two.post("/v1/tombstones/lift", {"trace_id": "a", "reason": "r"}), 404, "no_tombstone", "trace_id")
    refused(two.post("/v1/tombstones/lift", {"trace_id": "b"}), 400, "missing_key", "reason")
    refused(two.post("/v1/tombstones/lift", {"reason": "r"}), 400, "missing_key", "trace_id")
    waiting = create(two, {"trace_ids": ["c"], "not_before": later(two)})
    refused(two.post("/v1/tombstones/lift", {"trace_id": "c", "reason": "r"}), 409, "still_erasing")
    two.clock.advance(3601)
    two.post(f"/v1/deletions/{waiting['id']}/retry")
    until(two, waiting["id"], "verified")


def test_only_who_sees_a_deletion_can_lift_its_tombstones(two: Wire) -> None:
    org_id = two.catalog.first_org.id
    second = two.catalog.create_project(org_id, "second")
    inside = two.key(*KeyScope, project_ids=[second.id])
    staging, prod = (two.key(*KeyScope, environment=name) for name in ("staging", "prod"))
    two.ingest(two.span("s"), key=staging)
    two.ingest(two.span("i"), key=inside)
    of_staging = create(two, {"trace_ids": ["s"]}, key=staging)["id"]
    of_all = create(two, {"trace_ids": ["i"]})["id"]
    waiting = create(two, {"trace_ids": ["a"], "not_before": later(two)})["id"]

    def lift(trace_id: str, project: str, key: str | None = None) -> Any:
        asked = {"trace_id": trace_id, "project": project, "reason": "r"}
        return two.post("/v1/tombstones/lift", asked, **({"key": key} if key else {}))

    for key, trace_id, project in (
        (prod, "s", "default"),
        (prod, "a", "default"),  # not "still erasing": that would tell that it is there
        (staging, "a", "default"),
        (staging, "i", "second"),
        (inside, "i", "second"),
    ):
        refused(lift(trace_id, project, key), 404, "no_tombstone", "trace_id")
    assert lift("s", "default", staging).json()["deletion_id"] == of_staging
    assert lift("i", "second").json()["deletion_id"] == of_all
    two.post(f"/v1/deletions/{waiting}/cancel")


def test_what_was_said_of_an_act_can_be_erased_and_every_proof_holds(two: Wire) -> None:
    told = create(two, by_customer(two, not_before=later(two)))
    two.post(f"/v1/deletions/{told['id']}/cancel", {"reason": "Mrs Smith changed her mind"})
    entries = two.get(f"/v1/ledger/entries?deletion_id={told['id']}").json()["data"]
    noted = [each for each in entries if each["entry"]["body"].get("private_ref")]
    assert [each["entry"]["body"]["after"] for each in noted] == ["cancelled"]
    assert "Smith" not in json.dumps(entries)
    seq, head = noted[0]["seq"], two.get("/v1/ledger/head").json()
    assert two.send("DELETE", f"/v1/ledger/entries/{seq}/private").json() == {"seq": seq, "erased": True}
    assert two.send("DELETE", f"/v1/ledger/entries/{seq}/private").json() == {"seq": seq, "erased": False}
    assert two.get("/v1/ledger/head").json() == head
    refused(two.send("DELETE", f"/v1/ledger/entries/{entries[0]['seq']}/private"), 404, "nothing_private")
    refused(two.send("DELETE", "/v1/ledger/entries/999/private"), 404, "not_found")
    refused(two.send("DELETE", "/v1/ledger/entries/x/private"), 400, "invalid_input", "seq")
    reader = two.key(KeyScope.READ, KeyScope.DELETE)
    assert two.send("DELETE", f"/v1/ledger/entries/{seq}/private", key=reader).status_code == 403


def test_the_ledger_can_be_checked_by_who_sees_only_a_part_of_it(two: Wire) -> None:
    other = two.catalog.create_organisation("Other")
    theirs = two.key(*KeyScope, org_id=other.id)
    two.ingest(two.span("x"), key=theirs)
    create(two, by_customer(two))
    create(two, {"trace_ids": ["x"]}, key=theirs)
    entries: list[Any] = []
    query = "?limit=3"
    while query:
        page = two.get(f"/v1/ledger/entries{query}").json()
        entries += page["data"]
        query = f"?limit=3&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert [each["seq"] for each in entries] == list(range(len(entries)))
    own = [each for each in entries if each["text"] is not None]
    assert 0 < len(own) < len(entries)
    for each in own:
        assert leaf_hash(each["text"].encode()).hex() == each["leaf_hash"]
    for each in entries:
        assert (each["text"] is None) is (each["entry"] is None)
    head = two.get("/v1/ledger/head").json()
    leaves = [bytes.fromhex(each["leaf_hash"]) for each in entries]
    assert (head["size"], head["root"]) == (len(leaves), root_of(leaves).hex())
    signed, _ = read_head(head["head"], keys_of(two))
    assert (signed.size, signed.root.hex()) == (head["size"], head["root"])
    assert two.get(f"/v1/ledger/entries?from={len(leaves) - 1}").json()["data"] == entries[-1:]
    proof = two.get("/v1/ledger/inclusion?index=1").json()
    path = [bytes.fromhex(node) for node in proof["path"]]
    assert verify_inclusion(leaves[1], 1, len(leaves), path, root_of(leaves))
    proof = two.get("/v1/ledger/consistency?from=3").json()
    path = [bytes.fromhex(node) for node in proof["path"]]
    assert verify_consistency(3, root_of(leaves[:3]), len(leaves), root_of(leaves), path)
    their = two.get("/v1/ledger/entries", key=theirs).json()["data"]
    assert [each["leaf_hash"] for each in their] == [each["leaf_hash"] for each in entries]
    assert {each["seq"] for each in their if each["text"]}.isdisjoint({each["seq"] for each in own})
    seq = own[0]["seq"]
    refused(two.send("DELETE", f"/v1/ledger/entries/{seq}/private", key=theirs), 404, "not_found")


def test_bad_questions_to_the_ledger(two: Wire) -> None:
    create(two, by_customer(two))
    size = two.get("/v1/ledger/head").json()["size"]
    for query, field in (
        (f"inclusion?index={size}", "index"),
        ("inclusion", "index"),
        ("inclusion?index=-1", "index"),
        (f"inclusion?index=0&size={size + 1}", "size"),
        ("inclusion?index=0&size=x", "size"),
        (f"consistency?from={size + 1}", "from"),
        ("consistency", "from"),
        ("entries?from=x", "from"),
        ("entries?limit=1000", "limit"),
        ("head?size=1", "size"),
    ):
        answer = two.get(f"/v1/ledger/{query}")
        assert (answer.status_code, answer.json()["fields"]) == (400, [field]), (query, answer.text)
    refused(two.get("/v1/ledger/entries?cursor=bm9uZQ"), 400, "invalid_cursor", "cursor")


def test_evidence_of_a_span_is_asked_for_by_its_trace_and_itself(two: Wire) -> None:
    two.ingest(two.span("a", "x"), two.span("a", "y"))
    told = create(two, {"span_ids": ["a/x"], "wait": "verified"})
    receipt = two.get(told["receipt_url"]).json()
    path = f"/v1/deletions/{told['id']}/membership?trace_id="
    proof = two.get(f"{path}a/x").json()
    assert parse_claim(proof).trace_id == "a/x"
    assert check_receipt(receipt["receipt"], keys_of(two), member=proof).ok
    for other in ("a", "a/y", "x"):
        refused(two.get(path + other), 404, "not_a_member", "trace_id")
    assert two.get(f"{path}a/x/y").status_code == 400
    assert "refused" in two.post("/api/v1/traces/ingest", [two.span("a", "x")]).json()["message"]
    lifted = two.post("/v1/tombstones/lift", {"trace_id": "a/x", "project": "default", "reason": "it was needed"})
    assert (lifted.status_code, lifted.json()["deletion_id"]) == (200, told["id"]), lifted.text
    two.ingest(two.span("a", "x"))
