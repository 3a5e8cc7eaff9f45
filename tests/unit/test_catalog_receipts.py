"""Receipts and signed heads of a catalog: genuine ones hold with nothing but a public key, nothing else does."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from clearspan import faults
from clearspan.catalog import Catalog, ledger, receipts
from clearspan.catalog.heads import HEAD_EVERY
from clearspan.model.errors import InvalidInput, InvalidProof
from clearspan.proof.canonical import canonical_json
from clearspan.proof.head import read_head
from clearspan.proof.manifest import claim_of, render_claim
from clearspan.proof.merkle import EMPTY_ROOT, root_of, verify_consistency, verify_inclusion
from clearspan.proof.receipt import check_entry, check_payload, check_receipt
from clearspan.proof.signing import RECEIPT_TYPE, PublicKey, SigningKey, sign_jws
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog
from clearspan.testing.receipts import SALT, issue_receipt, leaves_of, receipt_payload, verified_body

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def catalog(tmp_path: Path, clock: FixedClock) -> Iterator[Catalog]:
    lay_catalog(tmp_path)
    with Catalog.open(tmp_path, clock=clock, ids=CountingIds()) as opened:
        yield opened


def issue(catalog: Catalog, name: str, **changes: Any) -> str:
    return issue_receipt(catalog, 1_700_000_000_000_000_000, receipt_payload(name, **changes))


def issue_beside(catalog: Catalog, payload: dict[str, Any], body: dict[str, Any], *, kind: str = "deletion") -> str:
    """Issue a receipt beside a ledger row that may say something else."""
    with catalog.database.write() as db:
        entry = ledger.append(db, 5, kind, "del_x", body, step="verified")
        return receipts.issue(db, catalog.signer, payload, entry)


def keys_of(catalog: Catalog) -> list[PublicKey]:
    return [each.key for each in catalog.signing_keys()]


def payload_of(jws: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(jws.split(".")[1] + "=="))
    return found


def failed(jws: str, catalog: Catalog, **more: Any) -> list[str]:
    return [check.name for check in check_receipt(jws, keys_of(catalog), **more).checks if not check.ok]


# Issuing


def test_a_receipt_holds_with_nothing_but_the_public_key(catalog: Catalog) -> None:
    for number in range(5):
        catalog.append_ledger("deletion", f"del_{number}", {})
    jws = issue(catalog, "del_x")
    found = check_receipt(jws, keys_of(catalog))
    assert found.ok
    assert [check.name for check in found.checks] == ["signature", "form", "entry", "inclusion"]
    assert found.payload is not None
    assert found.payload["instance"] == catalog.instance_id
    assert found.payload["ledger"]["index"] == 5
    assert catalog.receipt("del_x") == jws
    assert catalog.receipt("del_0") is None


def test_a_deletion_has_one_receipt_whatever_is_tried(catalog: Catalog) -> None:
    first = issue(catalog, "del_x")
    size = catalog.ledger_size()
    assert issue(catalog, "del_x", method=["Other words."]) == first
    assert catalog.ledger_size() == size
    entries = catalog.ledger(deletion_id="del_x")
    assert [entry.kind for entry in entries] == ["deletion", "receipt"]
    assert entries[1].body["receipt_hash"] == receipts.hash_of(first)
    for sql in ("UPDATE receipt SET jws = 'x'", "DELETE FROM receipt", "UPDATE ledger_node SET hash = x'00'",
                "DELETE FROM tree_head"):  # fmt: skip
        catalog.signed_head()
        with pytest.raises(IntegrityError, match="only grows"), catalog.database.write() as db:
            db.execute(text(sql))


MALFORMED: list[dict[str, Any]] = [
    {"deletion_id": "no such id"},
    {"parent_id": 7},
    {"dialect": ""},
    {"requested_by": "Ada Lovelace"},
    {"software": None},
    {"scope": {"projects": [1], "conditions": ["customer = ada@example.com"], "hash": "ab" * 32}},
    {"scope": {"projects": [1], "conditions": [], "hash": "secret"}},
    {"scope": {"projects": [1], "conditions": []}},
    {"window": {"start": "2026-01-01", "end": None, "implicit": False}},
    {"window": {"start": None, "end": None, "implicit": 0}},
    {"targets": {}},
    {"targets": {"span": {"planned": 9, "purged": 9, "remaining": 0}}},
    {"targets": {"span": {"planned": 9, "purged": 9}, "trace": {"planned": 3, "purged": 3, "remaining": 0}}},
    {"targets": {"span": {"planned": 9, "purged": 9, "remaining": None}}},
    {"targets": {"span": {"planned": 9, "purged": 9, "remaining": 1}}},
    {"targets": {"span": {"planned": 9, "purged": 9, "remaining": 0, "left": 1}}},
    {"manifest": {"root": "00" * 32, "size": 2, "salted": True}},
    {"manifest": {"root": "00" * 32, "size": 3, "salted": False}},
    {"manifest": {"root": "00", "size": 3, "salted": True}},
    {"times": {}},
    {"times": {"verified": 1}},
    {"times": {"verified": "2026-11-22T00:00:00.000000000Z", "deleted": "2026-11-22T00:00:00.000000000Z"}},
    {"method": []},
    {"method": ["\u00e9"]},
    {"not_covered": []},
    {"not_covered": [7]},
    {"extra": 1},
    {"traces": {"matched": 9, "deleted": 3, "already_absent": 1, "no_longer_matching": 1, "held": 0, "failed": 0}},
    {"traces": {"matched": 6, "deleted": 3, "already_absent": 1, "no_longer_matching": 1, "held": 0, "failed": 1}},
    {"traces": {"matched": 3.0, "deleted": 3, "already_absent": 0, "no_longer_matching": 0, "held": 0, "failed": 0}},
    {"traces": {"matched": 3, "deleted": 3}},
]  # fmt: skip


@pytest.mark.parametrize("change", MALFORMED, ids=lambda change: str(change)[:70])
def test_a_malformed_receipt_is_never_signed(catalog: Catalog, change: dict[str, Any]) -> None:
    good = receipt_payload("del_x")
    with pytest.raises(ValueError, match="no such receipt can be signed"):
        issue_beside(catalog, good | change, verified_body(good))
    assert catalog.receipt("del_x") is None
    assert catalog.ledger_size() == 0, "the move to verified is undone with it"


@pytest.mark.parametrize("missing", sorted(receipt_payload("del_x")))
def test_no_member_may_be_missing(missing: str) -> None:
    payload = receipt_payload("del_x")
    del payload[missing]
    with pytest.raises(InvalidProof, match="missing"):
        check_payload(payload)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"after": "purged"}, "deletion"),
        ({"purged": {"span": 9, "trace": 2}}, "deletion"),
        ({"remaining": {"span": 0}}, "deletion"),
        ({"hidden": 2}, "deletion"),
        ({"held": 1}, "deletion"),
        ({"no_longer_matching": 0}, "deletion"),
        ({"already_absent": 0}, "deletion"),
        ({"before": "hidden"}, "deletion"),
        ({"problem": "survivors:span"}, "deletion"),
        ({}, "other"),
    ],
)
def test_a_receipt_that_says_other_than_its_entry_is_never_signed(
    catalog: Catalog, body: dict[str, Any], kind: str
) -> None:
    payload = receipt_payload("del_x")
    with pytest.raises(ValueError, match="ntry"):
        issue_beside(catalog, payload, verified_body(payload) | body, kind=kind)
    assert catalog.receipt("del_x") is None


@pytest.mark.parametrize("silent", ["hidden", "already_absent", "no_longer_matching", "purged", "remaining"])
def test_an_entry_that_leaves_out_a_count_records_nothing(catalog: Catalog, silent: str) -> None:
    payload = receipt_payload("del_x")
    body = verified_body(payload)
    del body[silent]
    with pytest.raises(ValueError, match="count"):
        issue_beside(catalog, payload, body)


def test_a_receipt_of_another_moment_than_its_entry_is_never_signed(catalog: Catalog) -> None:
    payload = receipt_payload("del_x")
    payload["times"]["verified"] = "2026-11-22T00:00:00.000000000Z"
    with pytest.raises(ValueError, match="verified at another time"):
        issue_beside(catalog, payload, verified_body(payload))


def test_a_deletion_of_nothing_has_a_receipt_too(catalog: Catalog) -> None:
    jws = issue_receipt(catalog, 5, receipt_payload("del_x", ()))
    assert check_receipt(jws, keys_of(catalog)).ok
    assert payload_of(jws)["manifest"] == {"root": EMPTY_ROOT.hex(), "size": 0, "salted": True}
    with pytest.raises(InvalidProof):
        check_payload(payload_of(jws) | {"manifest": {"root": "00" * 32, "size": 0, "salted": True}})


# Refusing


def test_every_change_of_one_character_of_a_receipt_is_refused(catalog: Catalog) -> None:
    jws, keys = issue(catalog, "del_x"), keys_of(catalog)
    assert check_receipt(jws, keys).ok
    for at, right in enumerate(jws):
        place = ALPHABET.find(right)
        near = {ALPHABET[place ^ 1], ALPHABET[place ^ 32]} if place >= 0 else {"A"}
        for wrong in {*near, ".", "=", " ", "\n", "\u0430", "A"} - {right}:
            changed = jws[:at] + wrong + jws[at + 1 :]
            assert not check_receipt(changed, keys).ok, (at, right, wrong)
        assert not check_receipt(jws[:at] + jws[at + 1 :], keys).ok
        assert not check_receipt(jws[:at], keys).ok


def test_a_swapped_key_is_refused(catalog: Catalog) -> None:
    jws, other = issue(catalog, "del_x"), SigningKey(bytes(range(32)))
    assert not check_receipt(jws, [other.public]).ok
    assert not check_receipt(jws, []).ok
    resigned = sign_jws(canonical_json(payload_of(jws)), other, typ=RECEIPT_TYPE)
    assert failed(resigned, catalog) == ["signature"]
    assert check_receipt(resigned, [other.public]).ok, "whoever trusts that key believes it: give the right one"


@pytest.mark.parametrize(
    ("change", "point"),
    [
        ({"path": []}, "inclusion"),
        ({"path": ["00" * 32]}, "inclusion"),
        ({"root": "00" * 32}, "inclusion"),
        ({"size": 9}, "inclusion"),
        ({"leaf_hash": "00" * 32}, "entry"),
        ({"index": 0}, "entry"),
        ({"at": "2026-11-22T00:00:00.000000000Z"}, "entry"),
        ({"entry": "{}"}, "entry"),
        ({"entry": "\u00e9"}, "entry"),
        ({"path": ["x"]}, "form"),
        ({"more": 1}, "form"),
    ],
    ids=str,
)
def test_a_forged_path_is_refused_even_with_a_right_signature(
    catalog: Catalog, change: dict[str, Any], point: str
) -> None:
    catalog.append_ledger("deletion", "del_0", {})
    payload = payload_of(issue(catalog, "del_x"))
    payload["ledger"] |= change
    key = SigningKey(bytes(range(32)))
    found = check_receipt(sign_jws(canonical_json(payload), key, typ=RECEIPT_TYPE), [key.public])
    assert point in [check.name for check in found.checks if not check.ok]


def test_counts_that_differ_from_the_entry_are_refused(catalog: Catalog) -> None:
    payload = payload_of(issue(catalog, "del_x"))
    check_entry(payload)
    payload["targets"]["span"]["purged"] = 8
    with pytest.raises(InvalidProof, match="differently"):
        check_entry(payload)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"times": {"verified": "1970-01-01T00:00:00.000000006Z"}}, "time"),
        ({"deletion_id": "del_y"}, "another deletion"),
        ({"traces": {"deleted": 2, "held": 1}, "manifest": {"size": 2}}, "deleted"),
        ({"traces": {"already_absent": 0, "no_longer_matching": 2}}, "already_absent"),
        ({"targets": {"span": {"planned": 9, "purged": 8, "remaining": 0}}}, "purged"),
    ],
    ids=str,
)
def test_a_receipt_forged_beside_a_genuine_entry_is_refused_even_with_a_right_signature(
    catalog: Catalog, change: dict[str, Any], said: str
) -> None:
    """Each keeps the form: counts add up and the place in the ledger is genuine; only the entry says otherwise."""
    payload = payload_of(issue_receipt(catalog, 5, receipt_payload("del_x")))
    for name, value in change.items():
        payload[name] = payload[name] | value if isinstance(value, dict) else value
    key = SigningKey(bytes(range(32)))
    found = check_receipt(sign_jws(canonical_json(payload), key, typ=RECEIPT_TYPE), [key.public])
    assert [check.name for check in found.checks if not check.ok] == ["entry"]
    failure = found.first_failure()
    assert failure is not None
    assert said in failure.said


@pytest.mark.parametrize("text", [b'"x"', b"[]", b'{"version":"clearspan-receipt/1"}', b"{}", b"1"])
def test_a_signed_text_that_is_no_receipt_is_refused(text: bytes) -> None:
    key = SigningKey(bytes(range(32)))
    found = check_receipt(sign_jws(text, key, typ=RECEIPT_TYPE), [key.public])
    assert [check.name for check in found.checks if not check.ok] == ["form"]
    assert found.payload is None


# Membership


def test_membership_is_shown_without_other_ids(catalog: Catalog) -> None:
    traces = [f"trace-{number}" for number in range(20)]
    jws = issue_receipt(catalog, 5, receipt_payload("del_x", traces))
    claim = claim_of(leaves_of(traces), SALT, 1, "trace-7")
    assert claim is not None
    shown = render_claim(claim)
    assert failed(jws, catalog, member=shown) == []
    assert not any(f'{each}"' in json.dumps(shown) + jws for each in traces if each != "trace-7")
    assert failed(jws, catalog, member=shown | {"trace_id": "trace-8"}) == ["member"]
    assert failed(jws, catalog, member=shown | {"leaf_count": 21}) == ["member"]
    assert failed(jws, catalog, member={"trace_id": "trace-7"}) == ["member_form"]


# Heads and rotation


def test_heads_are_signed_over_what_the_ledger_is_and_all_are_kept(catalog: Catalog, clock: FixedClock) -> None:
    leaves = []
    heads = [catalog.signed_head()]
    for number in range(9):
        leaves.append(catalog.append_ledger("deletion", f"del_{number}", {}).entry_hash)
        clock.advance(1)
        heads.append(catalog.signed_head())
        assert catalog.signed_head() == heads[-1], "the same size is signed once"
    for size, jws in enumerate(heads):
        head, key_id = read_head(jws, keys_of(catalog))
        assert (head.instance, head.size, head.root) == (catalog.instance_id, size, root_of(leaves[:size]))
        assert key_id == catalog.signing_keys()[0].key_id
        assert catalog.ledger_root(size) == head.root
    assert catalog.published_heads() == heads
    assert catalog.published_heads(from_size=8, limit=1) == heads[8:9]
    for size in range(10):
        path = catalog.consistency(size, 9)
        assert verify_consistency(size, root_of(leaves[:size]), 9, root_of(leaves), path)
        for index in range(size):
            assert verify_inclusion(leaves[index], index, size, catalog.inclusion(index, size), root_of(leaves[:size]))


def test_a_head_is_published_by_itself_after_so_many_entries(catalog: Catalog) -> None:
    with catalog.database.write() as db:
        for number in range(HEAD_EVERY + 3):
            ledger.append(db, 5, "deletion", f"del_{number}", {})
    [jws] = catalog.published_heads()
    assert read_head(jws, keys_of(catalog))[0].size == HEAD_EVERY


@pytest.mark.parametrize("call", [
    lambda catalog: catalog.ledger_root(4), lambda catalog: catalog.ledger_root(-1),
    lambda catalog: catalog.inclusion(3, 3), lambda catalog: catalog.inclusion(-1, 3),
    lambda catalog: catalog.inclusion(0, 4), lambda catalog: catalog.consistency(4, 3),
    lambda catalog: catalog.consistency(0, 4), lambda catalog: catalog.consistency(-1, 3),
])  # fmt: skip
def test_there_are_no_proofs_beyond_the_ledger(catalog: Catalog, call: Any) -> None:
    for number in range(3):
        catalog.append_ledger("deletion", f"del_{number}", {})
    with pytest.raises(InvalidInput):
        call(catalog)


def test_a_pinned_head_older_or_newer_joins_a_receipt(catalog: Catalog) -> None:
    catalog.append_ledger("deletion", "del_0", {})
    older = catalog.signed_head()
    jws = issue(catalog, "del_x")
    size = payload_of(jws)["ledger"]["size"]
    for number in range(6):
        catalog.append_ledger("deletion", f"del_later_{number}", {})
    newer = catalog.signed_head()
    for head, old, new in ((older, 1, size), (newer, size, catalog.ledger_size())):
        proof = {"old_size": old, "size": new, "path": [node.hex() for node in catalog.consistency(old, new)]}
        assert failed(jws, catalog, head=head, consistency=proof) == []
        assert failed(jws, catalog, head=head) == ["head"], "another size needs a proof"
        assert failed(jws, catalog, head=head, consistency=proof | {"path": [*proof["path"], "00" * 32]}) == ["head"]
        assert failed(jws, catalog, head=head, consistency=proof | {"size": new + 1}) == ["head"]
        assert failed(jws, catalog, head=head, consistency={"path": []}) == ["head"]
        assert failed(jws, catalog, head=head[:-2] + "AA", consistency=proof) == ["head_signature"]


def test_a_head_of_another_history_or_installation_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    jws = issue(catalog, "del_x")
    with Catalog.open(tmp_path / "other", ids=CountingIds()) as other:
        other.append_ledger("deletion", "del_y", {})
        forged = other.signed_head()
        keys = [*keys_of(catalog), *keys_of(other)]
        same_name = other.instance_id == catalog.instance_id
        found = check_receipt(jws, keys, head=forged)
    assert same_name, "equal ids: only the history differs"
    assert [check.name for check in found.checks if not check.ok] == ["head"]
    with Catalog.open(tmp_path / "third") as third:
        found = check_receipt(jws, [*keys_of(catalog), *keys_of(third)], head=third.signed_head())
    assert [check.name for check in found.checks if not check.ok] == ["head_instance"]


def test_old_receipts_hold_after_the_key_was_changed(catalog: Catalog, clock: FixedClock) -> None:
    before = issue(catalog, "del_1")
    [old] = catalog.signing_keys()
    clock.advance(60)
    new = catalog.rotate_signing_key()
    after = issue(catalog, "del_2")
    assert [each.key_id for each in catalog.signing_keys()] == [old.key_id, new.key_id]
    assert catalog.signing_keys()[0].retired_at_ns == clock.now_ns()
    assert check_receipt(before, [old.key]).ok
    assert check_receipt(after, [new.key]).ok
    assert not check_receipt(after, [old.key]).ok
    assert not check_receipt(before, [new.key]).ok
    rotation = next(entry for entry in catalog.ledger() if entry.kind == "signing_key")
    assert (rotation.body["key_id"], rotation.body["replaces"]) == (new.key_id, old.key_id)
    last_of_old = read_head(catalog.published_heads()[-1], [old.key])[0]
    assert last_of_old.size == rotation.seq + 1, "the old key vouches for the entry that names the new one"


def test_the_private_part_of_a_retired_key_is_gone_from_the_file(tmp_path: Path, catalog: Catalog) -> None:
    with catalog.database.read() as db:
        seed = catalog.signer.key(db).seed
    catalog.checkpoint()
    assert any(seed in path.read_bytes() for path in tmp_path.iterdir())
    catalog.rotate_signing_key()
    assert catalog.checkpoint()
    assert not [path.name for path in tmp_path.iterdir() if seed in path.read_bytes()]


def test_a_receipt_and_its_entry_come_or_go_together(catalog: Catalog) -> None:
    with faults.armed("receipt.after_sign:1:raise"), pytest.raises(faults.FaultInjected):
        issue(catalog, "del_x")
    assert (catalog.ledger_size(), catalog.receipt("del_x")) == (0, None)
    assert check_receipt(issue(catalog, "del_x"), keys_of(catalog)).ok
    assert catalog.ledger_size() == 2
