"""Whatever a hostile file holds, a check answers: it holds, or it does not. It never fails in another way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import canonical_json
from clearspan.proof.encoding import render_time
from clearspan.proof.log import check_log
from clearspan.proof.merkle import leaf_hash
from clearspan.proof.receipt import check_payload, check_receipt
from clearspan.proof.signing import HEAD_TYPE, RECEIPT_TYPE, SigningKey, sign_jws
from clearspan.testing.receipts import receipt_payload, verified_body

KEY = SigningKey(bytes(range(32)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def whole_payload() -> dict[str, Any]:
    """A receipt's payload over a ledger of one entry."""
    payload = receipt_payload("del_x")
    entry = {
        "at_ns": 5, "body": verified_body(payload), "deletion_id": "del_x", "kind": "deletion", "org_id": 1,
        "prev_hash": "00" * 32, "seq": 0, "step": "4.verified",
    }  # fmt: skip
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    leaf = leaf_hash(text.encode()).hex()
    place = {"index": 0, "entry": text, "leaf_hash": leaf, "size": 1, "root": leaf, "path": [], "at": render_time(5)}
    return payload | {"version": "clearspan-receipt/1", "instance": "inst_1", "ledger": place}


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every member and item."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in paths_of(item, (*path, key)))]


PATHS = paths_of(whole_payload())[1:]


def test_the_sample_is_genuine() -> None:
    assert check_receipt(sign_jws(canonical_json(whole_payload()), KEY, typ=RECEIPT_TYPE), [KEY.public]).ok


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), VALUES)
def test_any_member_may_hold_anything(path: tuple[Any, ...], value: Any) -> None:
    payload = whole_payload()
    place = payload
    for step in path[:-1]:
        place = place[step]
    is_change = place[path[-1]] != value or type(place[path[-1]]) is not type(value)
    place[path[-1]] = value
    found = check_receipt(sign_jws(canonical_json(payload), KEY, typ=RECEIPT_TYPE), [KEY.public])
    if is_change and path[0] in {"ledger", "targets", "traces", "manifest", "version", "deletion_id", "times"}:
        # `planned`, earlier times and the manifest's root say what only the signer knows: a right signature vouches.
        vouched = {("times", "hidden"), ("manifest", "root"), ("ledger", "size")}
        assert not found.ok or path[-1] == "planned" or path[:2] in vouched


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_a_signed_value_of_any_kind_is_judged(value: Any) -> None:
    jws = sign_jws(canonical_json(value), KEY, typ=RECEIPT_TYPE)
    assert not check_receipt(jws, [KEY.public]).ok
    head = sign_jws(canonical_json(value), KEY, typ=HEAD_TYPE)
    genuine = sign_jws(canonical_json(whole_payload()), KEY, typ=RECEIPT_TYPE)
    joined = value if isinstance(value, dict) else {"old_size": value, "size": 1, "path": [value]}
    assert not check_receipt(genuine, [KEY.public], head=head, consistency=joined, member=value).ok
    with pytest.raises(InvalidProof):
        check_payload(value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["entry", "key", "head", "receipt"]), max_size=5), st.data())
def test_any_lines_are_judged(kinds: list[str], data: st.DataObject) -> None:
    lines = [b'{"instance":"inst_1","version":"clearspan-ledger/1"}']
    for kind in sorted(kinds, key=["key", "entry", "head", "receipt"].index):
        value = data.draw(VALUES)
        body = {"at_ns": 5, "body": value, "deletion_id": None, "kind": "signing_key", "org_id": None,
                "prev_hash": "00" * 32, "seq": 0, "step": ""}  # fmt: skip
        line = body if kind == "entry" else {kind: value}
        lines.append(json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    try:
        found = check_log(lines)
    except InvalidProof:
        return
    assert found.ok is (not kinds), "an empty ledger holds; none of these lines is genuine"
