"""Canonical JSON, manifests and the small encodings: one spelling for each value."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import INTEGER_MAX, canonical_json, parse_canonical
from clearspan.proof.encoding import from_base64url, hash_from_hex, parse_time, render_time, to_base64url, whole_number
from clearspan.proof.keyed import hmac_sha256, keyed_sha256
from clearspan.proof.manifest import (
    Claim,
    claim_of,
    manifest_leaf,
    manifest_leaves,
    manifest_root,
    membership,
    parse_claim,
    render_claim,
    verify_membership,
)
from clearspan.store.tombstone import tombstone_key, tombstone_keys

SALT = bytes(range(32))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_keys_are_sorted_by_utf_16_as_rfc_8785_says() -> None:
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}
    assert [each for each in json.loads(canonical_json(value)).values()] == [2, 4, 6, 7, 1, 5, 3]
    assert canonical_json({"b": [1, "x\n\u00e9"], "a": None}) == b'{"a":null,"b":[1,"x\\n\xc3\xa9"]}'


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_a_value_has_one_text_and_comes_back(value: object) -> None:
    text = canonical_json(value)
    assert parse_canonical(text) == value
    assert canonical_json(parse_canonical(text)) == text


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), 1e3, 2**53, -(2**53), "\ud800", {1: 2}, {"a": b""}, {"a": {"b": [0.0]}}, object()]
)
def test_what_has_no_safe_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several reasons, one kind
        canonical_json(value)


def test_deep_nesting_is_refused() -> None:
    value: object = 1
    for _ in range(40):
        value = [value]
    with pytest.raises(ValueError, match="nested"):
        canonical_json(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":1,"a":1}', b'{"a":1}\n', b'{"a":1.0}', b'{"a":1e2}', b'{"a":NaN}',
        b'"\\u0041"', b'"\\/"', b"-0", b"01", b"", b"\xff", b"9007199254740992", b"[" * 100_000, b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_every_other_spelling_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidProof):
        parse_canonical(text)


@given(st.binary(max_size=40))
def test_base64url_has_one_spelling(value: bytes) -> None:
    text = to_base64url(value)
    assert from_base64url(text) == value
    for wrong in (text + "=", text + "A", " " + text, text + "\n"):
        try:
            other = from_base64url(wrong)
        except InvalidProof:
            continue
        assert other != value, "two texts must never mean one value"


@pytest.mark.parametrize("text", ["A", "AB", "AAAAA", "QQ==", "Q+", "Q/", "\u0660A", "QR"])
def test_loose_base64url_is_refused(text: str) -> None:
    with pytest.raises(InvalidProof):
        from_base64url(text)


@given(st.integers(-(2**63), 2**63 - 1))
def test_times_are_exact_to_the_nanosecond(ns: int) -> None:
    assert parse_time(render_time(ns)) == ns


def test_times_have_one_spelling() -> None:
    assert render_time(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
    for text in ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000001+00:00", "2023-02-30T00:00:00.000000000Z", 7):
        with pytest.raises(InvalidProof):
            parse_time(text)
    with pytest.raises(ValueError, match="cannot hold"):
        render_time(10**30)


@pytest.mark.parametrize("value", ["", "0" * 63, "A" * 64, "g" * 64, 0, None])
def test_a_hash_has_one_spelling(value: object) -> None:
    with pytest.raises(InvalidProof):
        hash_from_hex(value)


@pytest.mark.parametrize("value", [-1, True, 1.0, "1", None, 2**53])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(InvalidProof):
        whole_number(value)


# Manifests


def test_a_leaf_is_what_its_definition_says() -> None:
    named = (7).to_bytes(8, "big") + b"trace-1"
    own_salt = hmac.new(SALT, b"salt" + named, hashlib.sha256).digest()
    inner = hmac.new(own_salt, named, hashlib.sha256).digest()
    assert manifest_leaf(SALT, 7, "trace-1") == hashlib.sha256(b"\x00" + inner).digest()
    leaves = {manifest_leaf(salt, project, "trace-1") for salt in (SALT, SALT[1:]) for project in (7, 8)}
    assert len(leaves) == 4


@pytest.mark.parametrize("key_bytes", [0, 1, 32, 63, 64, 65, 200])
def test_keyed_hashes_are_those_of_the_standard_library(key_bytes: int) -> None:
    key = bytes(range(key_bytes))
    mac = keyed_sha256(key)
    for message in (b"", b"a", b"b" * 63, b"c" * 300):
        expected = hmac.digest(key, message, "sha256")
        assert mac(message) == hmac_sha256(key, message) == expected


def test_many_hashes_are_those_made_one_by_one() -> None:
    traces = [(1, "a"), (2**62, "\N{SNOWMAN}"), (1, "\ud800"), (7, "a" * 300)]
    assert list(manifest_leaves(SALT, traces)) == [manifest_leaf(SALT, *trace) for trace in traces]
    assert list(tombstone_keys(SALT, traces)) == [tombstone_key(SALT, *trace) for trace in traces]
    with pytest.raises(AssertionError):
        list(manifest_leaves(b"short", traces))


def test_the_order_of_traces_does_not_matter() -> None:
    leaves = [manifest_leaf(SALT, 1, f"trace-{number}") for number in range(50)]
    assert manifest_root(leaves) == manifest_root(reversed(leaves))
    assert manifest_root(leaves) != manifest_root(leaves[1:])


def claims(count: int) -> tuple[list[Claim], bytes]:
    leaves = sorted(manifest_leaf(SALT, 1, f"trace-{number}") for number in range(count))
    found = [claim_of(leaves, SALT, 1, f"trace-{number}") for number in range(count)]
    assert claim_of(leaves, SALT, 2, "trace-0") is None
    return [claim for claim in found if claim is not None], manifest_root(leaves)


def test_each_trace_of_a_manifest_can_be_shown_without_naming_another() -> None:
    found, root = claims(37)
    for claim in found:
        assert verify_membership(claim, root, 37)
        text = json.dumps(render_claim(claim))
        assert verify_membership(parse_claim(json.loads(text)), root, 37)
        others = {f'trace-{number}"' for number in range(37)} - {f'{claim.trace_id}"'}
        assert not any(other in text for other in others)
        # What the reader now holds opens no other leaf, not even for a guess that is right.
        for other in found:
            if other is not claim:
                place = other.membership
                assert not verify_membership(Claim(1, other.trace_id, claim.salt, place), root, 37)
                assert manifest_leaf(claim.salt, 1, other.trace_id) not in claim.membership.path


def test_a_trace_that_is_not_in_the_manifest_cannot_be_shown() -> None:
    found, root = claims(37)
    leaves = sorted(manifest_leaf(SALT, 1, each.trace_id) for each in found)
    assert membership(leaves, manifest_leaf(SALT, 1, "another")) is None
    assert membership([], manifest_leaf(SALT, 1, "another")) is None
    claim = found[5]
    wrong = [
        claim._replace(trace_id="another"),
        claim._replace(project_id=2),
        claim._replace(salt=SALT[::-1]),
        claim._replace(membership=replace(claim.membership, index=claim.membership.index ^ 1)),
        claim._replace(membership=replace(claim.membership, size=38)),
        claim._replace(membership=replace(claim.membership, path=claim.membership.path[:-1])),
    ]
    assert not any(verify_membership(each, root, 37) for each in wrong)
    assert not verify_membership(claim, root, 36)


@pytest.mark.parametrize(
    "change",
    [
        {"salt": "00"}, {"salt": "zz" * 32}, {"salt": 7}, {"salt": "AA" * 32}, {"trace_id": 7}, {"project_id": "1"},
        {"project_id": 2**63}, {"leaf_index": -1}, {"leaf_count": True}, {"path": "x"}, {"path": ["x"]}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_claim_is_refused(change: dict[str, object]) -> None:
    [claim], _ = claims(1)
    with pytest.raises(InvalidProof):
        parse_claim(render_claim(claim) | change)
    with pytest.raises(InvalidProof):
        parse_claim(None)
