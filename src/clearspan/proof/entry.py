"""One entry of the ledger as an outsider sees it: a line of JSON whose bytes are what was hashed."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from clearspan.model.errors import InvalidProof
from clearspan.proof.encoding import hash_from_hex
from clearspan.proof.merkle import leaf_hash

_FIELDS = {"at_ns", "body", "deletion_id", "kind", "org_id", "prev_hash", "seq", "step"}
_TIME_LIMIT = 2**63

ENTRY_FIRST_PREV = bytes(32)
"""`prev_hash` of the first entry."""


class Entry(NamedTuple):
    """A ledger entry, read from its text."""

    seq: int
    at_ns: int
    org_id: int | None
    kind: str
    deletion_id: str | None
    step: str
    body: dict[str, Any]
    prev_hash: bytes
    leaf: bytes  # the leaf hash of its text: the next entry's prev_hash


def parse_entry(text: bytes) -> Entry:
    """The entry of a line (without its line end). Raises InvalidProof for any other form or spelling."""
    try:
        value = json.loads(text)
        respelled = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidProof("An entry of the ledger is a line of JSON.") from None
    if respelled != text or not isinstance(value, dict) or set(value) != _FIELDS:
        raise InvalidProof("An entry of the ledger has exactly its own fields, sorted and without blanks.")
    kinds: tuple[tuple[str, tuple[type, ...]], ...] = (
        ("seq", (int,)), ("at_ns", (int,)), ("org_id", (int, type(None))), ("kind", (str,)),
        ("deletion_id", (str, type(None))), ("step", (str,)), ("body", (dict,)),
    )  # fmt: skip
    if not all(isinstance(value[name], types) and not isinstance(value[name], bool) for name, types in kinds):
        raise InvalidProof("A field of this ledger entry has another type than its own.")
    if value["seq"] < 0 or abs(value["at_ns"]) >= _TIME_LIMIT:
        raise InvalidProof("The number or time of this ledger entry is none.")
    value["prev_hash"] = hash_from_hex(value["prev_hash"])
    return Entry(**value, leaf=leaf_hash(text))
