"""The frozen plan, its hashes, and what may and may not leave the trace store."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest

from clearspan.catalog.bodies import render_body
from clearspan.deletion.plan import (
    Plan,
    canonical_request,
    job_of,
    parse_private,
    parse_request,
    plain_request,
    repeatable_id,
    request_hash,
    request_shape,
    root_of_traces,
)
from clearspan.deletion.records import _FIXED
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.model.trace import Scope, Window
from clearspan.proof.manifest import manifest_leaf
from clearspan.query.ast import Condition, Group
from clearspan.query.fields import BY_NAME, METADATA
from clearspan.query.operators import Operator
from clearspan.store.port import PlannedTrace

SALT = b"s" * 32
MANIFEST_SALT = b"m" * 32
SECRET = b"k" * 32
NEEDLES = ("anna@example.com", "plan-of-anna", "because-anna-asked", "trace-of-anna", "idem-anna")


def request(**fields: Any) -> DeletionRequest:
    where = Group(
        "AND",
        (
            Condition(BY_NAME["customer_identifier"], Operator.IN, ("anna@example.com", "b")),
            Condition(METADATA, Operator.EQUALS, ("plan-of-anna",), "plan-of-anna"),
            Condition(BY_NAME["total_cost"], Operator.GT, (Decimal("0.1"),)),
        ),
    )
    asked: dict[str, Any] = {
        "org_id": 1, "requested_by": "key_1", "dialect": "respan", "scope": Scope((2, 1), "prod"),
        "selection": ByFilter(where), "window": Window(1, 2), "reason": "because-anna-asked",
        "idempotency_key": "idem-anna",
    }  # fmt: skip
    return DeletionRequest(**{**asked, **fields})


def traces(*ids: str) -> tuple[PlannedTrace, ...]:
    return tuple(PlannedTrace(n, 1, trace_id) for n, trace_id in enumerate(ids, 1))


def plan_of(asked: DeletionRequest, *planned: PlannedTrace) -> Plan:
    root = root_of_traces(MANIFEST_SALT, planned)
    return Plan("del_1", asked, planned, {"span": 3}, SALT, MANIFEST_SALT, root)


def test_what_the_catalog_gets_holds_nothing_personal() -> None:
    for selection in (request().selection, ByIds(("trace-of-anna",))):
        plan = plan_of(request(selection=selection), *traces("trace-of-anna"))
        job = job_of(plan, SECRET)
        for needle in NEEDLES:
            assert needle not in repr(job)
            assert needle not in repr(plan)
        render_body({name: getattr(job, name) for name in _FIXED})  # the Catalog's own check of free text


def test_the_shape_names_fields_and_operators() -> None:
    assert request_shape(request()) == ("customer_identifier:in:2", "metadata:equals:1", "total_cost:gt:1")
    assert request_shape(request(selection=ByIds(("a", "b")))) == ("trace_ids:in:2",)


def test_the_private_bytes_tell_the_whole_request() -> None:
    plan = plan_of(request(), *traces("t"))
    told = orjson.loads(plan.private_bytes())
    assert told["salt"] == SALT.hex()
    assert told["request"]["reason"] == "because-anna-asked"
    assert "anna@example.com" in str(told["request"]["selection"])
    assert told["request"]["window"] == [1, 2]


def test_a_plan_of_nothing_writes_nothing_private_down() -> None:
    assert plan_of(request()).private_bytes() == b""


@pytest.mark.parametrize(
    "change",
    [
        {"scope": Scope((1,), "prod")}, {"scope": Scope((1, 2))}, {"window": Window(1, 3)}, {"reason": None},
        {"selection": ByIds(("t",))}, {"selection": ByFilter(Group("OR", request().selection.where.children))},  # type: ignore[union-attr]
        {"requested_by": "key_2"}, {"dialect": "native"}, {"delete_all": True}, {"expected_count": 0},
        {"not_before_ns": 1},
    ],
)  # fmt: skip
def test_another_request_has_other_bytes_and_hashes(change: dict[str, Any]) -> None:
    base, other = request(), request(**change)
    assert canonical_request(base) != canonical_request(other)
    assert request_hash(SECRET, base) != request_hash(SECRET, other)


def test_equal_requests_have_equal_bytes() -> None:
    assert canonical_request(request()) == canonical_request(request(scope=Scope((1, 2), "prod")))
    ids = [request(selection=ByIds(each)) for each in (("a", "b"), ("b", "a", "b"))]
    assert canonical_request(ids[0]) == canonical_request(ids[1])


def test_an_implicit_window_is_no_part_of_what_was_asked() -> None:
    hours = [request(window=Window(n, n + 10), window_is_implicit=True, end_is_implicit=True) for n in (1, 2)]
    assert request_hash(SECRET, hours[0]) == request_hash(SECRET, hours[1])
    since = [request(window=Window(1, n), end_is_implicit=True) for n in (5, 6)]
    assert request_hash(SECRET, since[0]) == request_hash(SECRET, since[1])
    said = [request(window=Window(n, 9), end_is_implicit=True) for n in (5, 6)]
    assert request_hash(SECRET, said[0]) != request_hash(SECRET, said[1])


def test_an_idempotency_key_is_its_callers_own() -> None:
    ids = {repeatable_id(SECRET, each) for each in (request(), request(reason="other"))}
    assert len(ids) == 1
    assert repeatable_id(SECRET, request(idempotency_key=None)) is None
    others = [request(requested_by="key_2"), request(org_id=2), request(idempotency_key="x")]
    assert len({repeatable_id(SECRET, each) for each in (request(), *others)}) == 4
    assert len({repeatable_id(secret, request()) for secret in (SECRET, SALT)}) == 2


def test_the_scope_hash_is_salted() -> None:
    plan = plan_of(request())
    assert plan.scope_hash != replace(plan, salt=SECRET).scope_hash
    assert plan.scope_hash == hmac.new(SALT, canonical_request(request()), hashlib.sha256).hexdigest()


def test_the_manifest_root_is_rfc_9162_over_sorted_keyed_leaves() -> None:
    def leaf(trace_id: str) -> bytes:
        return manifest_leaf(SALT, 1, trace_id)

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    assert root_of_traces(SALT, ()) == hashlib.sha256(b"").hexdigest()
    assert root_of_traces(SALT, traces("a")) == leaf("a").hex()
    a, b, c, d, e = sorted(leaf(trace_id) for trace_id in "abcde")
    five = node(node(node(a, b), node(c, d)), e).hex()
    assert root_of_traces(SALT, traces(*"abcde")) == five
    assert root_of_traces(SALT, traces(*"ecdba")) == five
    assert root_of_traces(SECRET, traces(*"abcde")) != five


@pytest.mark.parametrize("selection", [request().selection, ByIds(("a", "b")), ByFilter(None), ByIds(())])
def test_a_request_that_was_written_down_can_be_read_again(selection: ByFilter | ByIds) -> None:
    asked = request(selection=selection, idempotency_key=None, delete_all=True, not_before_ns=5, expected_count=3)
    assert parse_request(plain_request(asked), 1) == replace(asked, scope=Scope((1, 2), "prod"))
    assert parse_private(plan_of(asked, *traces("t")).private_bytes(), 1) == replace(asked, scope=Scope((1, 2), "prod"))
