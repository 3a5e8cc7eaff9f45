"""Receipts: their one form, and their check by somebody who has nothing but the receipt and a public key.

docs/receipts.md describes each member for readers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import canonical_json, parse_canonical
from clearspan.proof.encoding import hash_from_hex, parse_time, whole_number
from clearspan.proof.entry import Entry, parse_entry
from clearspan.proof.findings import Findings
from clearspan.proof.head import SignedHead, read_head
from clearspan.proof.manifest import Claim, parse_claim, verify_membership
from clearspan.proof.merkle import EMPTY_ROOT, verify_consistency, verify_inclusion
from clearspan.proof.signing import RECEIPT_TYPE, PublicKey, verify_jws

RECEIPT_VERSION: Final = "clearspan-receipt/1"
ENTRY_KIND: Final = "deletion"
ENTRY_STATE: Final = "verified"
ENTRY_MOVE: Final = ("purged", ENTRY_STATE)

TRACE_COUNTS: Final = ("matched", "deleted", "already_absent", "no_longer_matching", "held", "failed")
TARGET_COUNTS: Final = ("planned", "purged", "remaining")
_TARGET_COUNTS_MORE: Final = ("already_absent", "held", "failed")
_UNSAID: Final = {"held": 0}
"""What an entry means that leaves a count out: the first ledgers knew no holds."""
_STATES: Final = ("planned", "awaiting_approval", "hidden", "purged", "verified", "blocked", "failed")

# As in the catalog: ids, codes, field names and operators, but no sentence and no address.
_PLAIN = re.compile(r"[A-Za-z0-9_:.\-+/=!<>~,]{1,256}")
_SENTENCE = re.compile(r"[ -~]{1,300}")

_Reader = Callable[[Any], object]


def check_receipt(
    jws: str,
    keys: Sequence[PublicKey],
    *,
    head: str | None = None,
    consistency: Mapping[str, Any] | None = None,
    member: Any = None,
) -> Findings:
    """Check a receipt with nothing but public keys.

    Args:
        jws: the receipt, a compact JWS.
        head: a signed tree head (compact JWS) that the checker trusts, older or newer than the receipt.
        consistency: {"old_size", "size", "path"} that joins the two trees, when their sizes differ.
        member: the JSON of a membership proof, to be checked against the receipt's manifest.
    Returns:
        The points, in order; after a wrong signature or form nothing else is looked at.
    """
    found = Findings()
    signed = found.attempt(
        "signature",
        "The receipt is signed by a key you gave, and not a character of it was changed.",
        lambda: verify_jws(jws, keys, typ=RECEIPT_TYPE),
    )
    if signed is None:
        return found
    found.key_id = signed[1]
    payload = found.attempt(
        "form",
        "It has the form of a receipt: nothing is missing, nothing is left over, the counts add up, nothing remains.",
        lambda: check_payload(parse_canonical(signed[0])),
    )
    if payload is None:
        return found
    found.payload = payload
    ledger = payload["ledger"]
    found.attempt(
        "entry", "The ledger entry in it records this deletion as verified, at the same time, with the same counts.",
        lambda: check_entry(payload),
    )  # fmt: skip
    path = [hash_from_hex(node) for node in ledger["path"]]
    leaf, root = hash_from_hex(ledger["leaf_hash"]), hash_from_hex(ledger["root"])
    found.note(
        "inclusion",
        verify_inclusion(leaf, ledger["index"], ledger["size"], path, root),
        f"That entry is number {ledger['index']} of the ledger of {ledger['size']} entries.",
        "The path does not lead from the ledger entry to the ledger's root.",
    )
    if head is not None:
        _check_head(found, payload, keys, head, consistency)
    if member is not None:
        _check_member(found, payload, member)
    return found


def _check_head(
    found: Findings,
    payload: Mapping[str, Any],
    keys: Sequence[PublicKey],
    jws: str,
    consistency: Mapping[str, Any] | None,
) -> None:
    head = found.attempt(
        "head_signature", "The tree head is signed by a key you gave.", lambda: read_head(jws, keys)[0]
    )
    if not isinstance(head, SignedHead):
        return
    if not found.note(
        "head_instance",
        head.instance == payload["instance"],
        f"Receipt and tree head come from the same installation, {head.instance}.",
        "The tree head comes from another installation than the receipt.",
    ):
        return
    own = (payload["ledger"]["size"], hash_from_hex(payload["ledger"]["root"]))
    old, new = sorted((own, (head.size, head.root)))
    found.attempt(
        "head",
        f"The ledger of the receipt ({own[0]} entries) and of the head ({head.size}) are one history.",
        lambda: check_history(old, new, consistency),
    )


def check_history(old: tuple[int, bytes], new: tuple[int, bytes], consistency: Mapping[str, Any] | None) -> None:
    """Raise InvalidProof unless the tree (size, root) `new` begins with `old`, as `consistency` shows."""
    path: list[bytes] = []
    if old[0] != new[0]:
        if consistency is None:
            raise InvalidProof(
                f"The ledger of {old[0]} entries and that of {new[0]} can be joined only by a consistency proof."
            )
        if set(consistency) != {"old_size", "size", "path"} or not isinstance(consistency["path"], list):
            raise InvalidProof("A consistency proof has the members old_size, size and path.")
        sizes = whole_number(consistency["old_size"]), whole_number(consistency["size"])
        if sizes != (old[0], new[0]):
            raise InvalidProof(f"The consistency proof joins {sizes[0]} and {sizes[1]}, not {old[0]} and {new[0]}.")
        path = [hash_from_hex(node) for node in consistency["path"]]
    if not verify_consistency(*old, *new, path):
        raise InvalidProof("The two ledgers are different histories: entries were changed, dropped or reordered.")


def _check_member(found: Findings, payload: Mapping[str, Any], member: Any) -> None:
    claim = found.attempt("member_form", "The membership proof can be read.", lambda: parse_claim(member))
    if isinstance(claim, Claim):
        manifest = payload["manifest"]
        found.note(
            "member",
            verify_membership(claim, hash_from_hex(manifest["root"]), manifest["size"]),
            "The named trace is one of those that this deletion removed.",
            "The named trace is not shown to be one of those that this deletion removed.",
        )


# The form

_COUNTED: Final = ("annotations", "spans", "traces")


def counted_in(payload: Any) -> str:
    """What a deletion removed and its receipt counts: `traces`, or `annotations` or `spans` by themselves."""
    said = payload if isinstance(payload, dict) else {}
    return next((counted for counted in _COUNTED if counted in said), _COUNTED[-1])


def check_payload(value: Any) -> dict[str, Any]:
    """`value` itself, when it is the whole payload of a receipt: each member there, of its kind, and in agreement.

    Raises:
        InvalidProof: the message names the first member that is wrong.
    """
    counted = counted_in(value)
    payload = _object(value, _MEMBERS | {counted: _COUNTS[counted]}, "the receipt")
    traces, manifest = payload[counted], payload["manifest"]
    if traces["matched"] != sum(traces[name] for name in TRACE_COUNTS[1:]):
        raise InvalidProof(f"The receipt's counts of {counted} do not add up.")
    if traces["failed"]:
        raise InvalidProof("A receipt is given only when nothing failed.")
    if manifest["size"] != traces["deleted"] or (not manifest["size"] and manifest["root"] != EMPTY_ROOT.hex()):
        raise InvalidProof(f"The receipt's manifest does not list as many {counted} as were deleted.")
    for name, counts in payload["targets"].items():
        if counts["remaining"] != 0:
            raise InvalidProof(f"Rows remain in the target {name}.")
    canonical_json(payload)
    return payload


def check_entry(payload: Mapping[str, Any]) -> Entry:
    """The ledger entry of a well-formed payload. Raises InvalidProof unless it records what the receipt says."""
    ledger = payload["ledger"]
    entry = parse_entry(ledger["entry"].encode())
    if entry.leaf.hex() != ledger["leaf_hash"] or entry.seq != ledger["index"]:
        raise InvalidProof("The ledger entry in the receipt is not the one it names by number and hash.")
    if entry.kind != ENTRY_KIND or entry.deletion_id != payload["deletion_id"] or entry.at_ns != _at(ledger):
        raise InvalidProof("The ledger entry is about another deletion or another moment.")
    body = entry.body
    if (body.get("before"), body.get("after")) != ENTRY_MOVE or body.get("problem") is not None:
        raise InvalidProof("The ledger entry does not record the deletion as verified.")
    for count in ("purged", "remaining"):
        if body.get(count) != {name: counts[count] for name, counts in payload["targets"].items()}:
            raise InvalidProof(f"Receipt and ledger entry count `{count}` differently.")
    traces = payload[counted_in(payload)]
    for said, recorded in (("deleted", "hidden"), *((name, name) for name in TRACE_COUNTS[2:5])):
        if body.get(recorded, _UNSAID.get(recorded)) != traces[said]:
            raise InvalidProof(f"Receipt and ledger entry count `{said}` differently.")
    if parse_time(payload["times"][ENTRY_STATE]) != entry.at_ns:
        raise InvalidProof("By the receipt the deletion was verified at another time than by its ledger entry.")
    return entry


def _at(ledger: Mapping[str, Any]) -> int:
    return parse_time(ledger["at"])


def _object(value: Any, members: Mapping[str, _Reader], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidProof(f"In {where} an object is missing.")
    for name in sorted(set(members) ^ set(value)):
        raise InvalidProof(f"The member {name!r} is {'missing from' if name in members else 'unknown in'} {where}.")
    for name, read in members.items():
        try:
            read(value[name])
        except InvalidProof as error:
            raise InvalidProof(f"`{name}` in {where}: {error.message}") from None
    return value


def _plain(value: Any) -> object:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise InvalidProof("It is no id or code.")
    return value


def _flag(value: Any) -> object:
    if not isinstance(value, bool):
        raise InvalidProof("It is neither true nor false.")
    return value


def _true(value: Any) -> object:
    if value is not True:
        raise InvalidProof("It is not true.")
    return value


def _version(value: Any) -> object:
    if value != RECEIPT_VERSION:
        raise InvalidProof(f"This program knows {RECEIPT_VERSION} only.")
    return value


def _text(value: Any) -> object:
    if not isinstance(value, str):
        raise InvalidProof("It is no text.")
    return value


def _sentence(value: Any) -> object:
    if not isinstance(value, str) or not _SENTENCE.fullmatch(value):
        raise InvalidProof("It is no plain sentence.")
    return value


def _optional(read: _Reader) -> _Reader:
    return lambda value: None if value is None else read(value)


def _list(read: _Reader, *, least: int = 0) -> _Reader:
    def check(value: Any) -> object:
        if not isinstance(value, list) or len(value) < least:
            raise InvalidProof(f"It is no list of at least {least}.")
        return [read(each) for each in value]

    return check


def _members(where: str, **members: _Reader) -> _Reader:
    return lambda value: _object(value, members, where)


def _targets(value: Any) -> object:
    if not isinstance(value, dict) or not value:
        raise InvalidProof("No target was counted.")
    for name, counts in value.items():
        _plain(name)
        more = [each for each in _TARGET_COUNTS_MORE if isinstance(counts, dict) and each in counts]
        _object(counts, dict.fromkeys((*TARGET_COUNTS, *more), whole_number), f"the target {name}")
    return value


def _times(value: Any) -> object:
    if not isinstance(value, dict) or ENTRY_STATE not in value or not set(value) <= set(_STATES):
        raise InvalidProof("It is not the times of states, `verified` among them.")
    return [parse_time(each) for each in value.values()]


_MEMBERS: Final[dict[str, _Reader]] = {
    "version": _version,
    "instance": _plain,
    "software": _plain,
    "deletion_id": _plain,
    "parent_id": _optional(_plain),
    "dialect": _plain,
    "requested_by": _plain,
    "scope": _members("the scope", projects=_list(whole_number), conditions=_list(_plain), hash=hash_from_hex),
    "window": _members("the window", start=_optional(parse_time), end=_optional(parse_time), implicit=_flag),
    "targets": _targets,
    "manifest": _members("the manifest", root=hash_from_hex, size=whole_number, salted=_true),
    "times": _times,
    "method": _list(_sentence, least=1),
    "not_covered": _list(_sentence, least=1),
    "ledger": _members(
        "the ledger's place",
        index=whole_number,
        entry=_text,
        leaf_hash=hash_from_hex,
        size=whole_number,
        root=hash_from_hex,
        path=_list(hash_from_hex),
        at=parse_time,
    ),
}
_COUNTS: Final[Mapping[str, _Reader]] = {
    counted: _members(f"the counts of {counted}", **dict.fromkeys(TRACE_COUNTS, whole_number)) for counted in _COUNTED
}
"""One of them is a member of the receipt as well: see `counted_in`."""
