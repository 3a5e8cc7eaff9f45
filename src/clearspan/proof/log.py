"""A whole ledger as lines of JSON, and its check from the first entry to the last. In this order:

{"instance":"inst_…","version":"clearspan-ledger/1"}     the first line
{"key":{… a public JWK …}}                               every key that ever signed
{"at_ns":…,"body":{…},…,"seq":0,"step":"…"}              the entries; leaf hash = SHA-256(0x00 || the line, no end)
{"head":"… JWS …"}                                       every signed head
{"receipt":"… JWS …"}                                    every receipt
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from clearspan.model.errors import InvalidProof
from clearspan.proof.encoding import from_base64url, hash_from_hex
from clearspan.proof.entry import ENTRY_FIRST_PREV, Entry, parse_entry
from clearspan.proof.findings import Findings
from clearspan.proof.head import SignedHead, read_head
from clearspan.proof.merkle import LeafNodes, root_at
from clearspan.proof.receipt import check_receipt
from clearspan.proof.signing import PublicKey, parse_jwk

LOG_VERSION: Final = "clearspan-ledger/1"
RECEIPT_KIND: Final = "receipt"
KEY_KIND: Final = "signing_key"
_ORDER: Final = ("key", "entry", "head", "receipt")


def render_first_line(instance: str) -> bytes:
    """The first line of an export, without its line end."""
    return _compact({"instance": instance, "version": LOG_VERSION})


def render_line(name: str, value: Any) -> bytes:
    """A line with a "key", "head" or "receipt", without its line end."""
    return _compact({name: value})


def check_log(
    lines: Iterable[bytes],
    *,
    keys: Sequence[PublicKey] = (),
    head: str | None = None,
) -> Findings:
    """Check an exported ledger: entries, keys, every signed head, every receipt.

    Args:
        lines: with or without line ends.
        keys: those the checker trusts. Without any, the keys of the export vouch for themselves, which finds damage
            but not a ledger that was made anew; with some, every other key must be joined to them by a rotation.
        head: a signed head (compact JWS) kept from before: finds a ledger that was rolled back or forked.
    Raises:
        InvalidProof: this is no export of a ledger.
    Cost: one pass; about 150 bytes of memory an entry.
    """
    log = Log(keys)
    log.read(lines)
    if head is not None and log.is_sound:
        log.check_pinned(head)
    return log.found


class Log:
    """An exported ledger while it is read; `found` has what holds and what does not."""

    def __init__(self, keys: Sequence[PublicKey] = ()) -> None:
        self.found = Findings()
        self.instance = ""
        self._trusted = {key.key_id: key for key in keys}
        self._trusts_itself = not keys
        self._known: dict[str, PublicKey] = {}  # of the key lines
        self._leaves: list[bytes] = []
        self._nodes = LeafNodes(self._leaves)
        self._last: Entry | None = None
        self._suspect: int | None = None  # this entry or the next one was changed; the one after that tells which
        self._broken: str | None = None
        self._rotations: list[tuple[int, str, str]] = []  # (entry, new key, old key)
        self._receipt_hashes: dict[str, tuple[int, str]] = {}  # deletion_id → (entry, SHA-256), not yet met
        self._heads: list[str] = []
        self._receipts_good = 0
        self._receipt_problem: str | None = None

    @property
    def size(self) -> int:
        """How many entries were read and follow one another."""
        return len(self._leaves)

    @property
    def is_sound(self) -> bool:
        """Whether the entries are whole and in order, so that roots mean something."""
        return self._broken is None

    def read(self, lines: Iterable[bytes]) -> None:
        """Read all lines and note each point. Raises InvalidProof when this is no export."""
        stage = 0
        for kind, text, value in self._split(lines):
            if _ORDER.index(kind) < stage:
                raise InvalidProof(f"A line with a {kind} stands after its place.")
            while stage < _ORDER.index(kind):
                self._end_of(_ORDER[stage])
                stage += 1
            if kind == "key":
                key = parse_jwk(value)
                self._known[key.key_id] = key
            elif kind == "entry":
                self._add_entry(text)
            elif self.is_sound and kind == "head":
                self._heads.append(str(value))
            elif self.is_sound:
                self._add_receipt(str(value))
        for kind in _ORDER[stage:]:
            self._end_of(kind)

    def _split(self, lines: Iterable[bytes]) -> Iterator[tuple[str, bytes, Any]]:
        """(kind, text, value) of each line after the first."""
        rows = (line.rstrip(b"\r\n") for line in lines)
        self.instance = _instance_of(next(rows, b""))
        for number, text in enumerate(rows, 2):
            if not text.startswith((b'{"key":', b'{"head":', b'{"receipt":')):
                yield "entry", text, None
                continue
            try:
                [(name, value)] = json.loads(text).items()
            except (ValueError, RecursionError):
                raise InvalidProof(f"Line {number} is not of a ledger's export.") from None
            yield name, text, value

    def _end_of(self, kind: str) -> None:
        if kind == "key" and self._trusts_itself:
            self._trusted |= self._known
        elif kind == "entry":
            self._end_of_entries()
        elif kind == "head" and self.is_sound:
            self._end_of_heads()
        elif kind == "receipt" and self.is_sound:
            self._end_of_receipts()

    # Entries

    def _add_entry(self, text: bytes) -> None:
        if self._broken is not None:
            return
        try:
            entry = parse_entry(text)
        except InvalidProof as error:
            self._broken = f"Entry {self.size} cannot be read: {error.message}"
            return
        if self._suspect is not None:
            at_fault = self._suspect if self._follows(entry) else self._suspect + 1
            self._broken = f"Entry {at_fault} was changed."
            return
        if entry.seq != self.size:
            self._broken = f"Entry {self.size} is missing: entry {entry.seq} stands in its place."
            return
        if not self._follows(entry):
            self._suspect = self.size - 1
            if not self.size:
                self._broken = "Entry 0 was changed."
        self._last = entry
        self._leaves.append(entry.leaf)
        self._note_acts(entry)

    def _follows(self, entry: Entry) -> bool:
        return entry.prev_hash == (ENTRY_FIRST_PREV if self._last is None else self._last.leaf)

    def _note_acts(self, entry: Entry) -> None:
        body = entry.body
        if entry.kind == RECEIPT_KIND and entry.deletion_id is not None:
            if entry.deletion_id in self._receipt_hashes:
                self._broken = f"Entry {entry.seq} names a second receipt of {entry.deletion_id}."
            self._receipt_hashes[entry.deletion_id] = (entry.seq, str(body.get("receipt_hash")))
        elif entry.kind == KEY_KIND:
            try:
                key = PublicKey(from_base64url(str(body.get("public"))))
            except InvalidProof as error:
                self._broken = f"Entry {entry.seq} names no key: {error.message}"
                return
            self._known[key.key_id] = key
            self._rotations.append((entry.seq, key.key_id, str(body.get("replaces"))))

    def _end_of_entries(self) -> None:
        if self._broken is None and self._suspect is not None:
            self._broken = (
                f"Entry {self._suspect} or {self._suspect + 1} was changed: the one does not follow the other."
            )
        self.found.note(
            "entries", self.is_sound, f"All {self.size} entries are there, unchanged and in order.", self._broken or ""
        )

    # Keys and heads

    def _end_of_heads(self) -> None:
        self._trust_successors()
        problem = next((said for jws in self._heads if (said := self._head_problem(jws)) is not None), None)
        source = "in the export itself: compare them with keys you trust" if self._trusts_itself else "joined to yours"
        reach = 0 if problem is not None else max((self._read(jws)[0].size for jws in self._heads), default=0)
        unsigned = "" if reach == self.size else f"; the last {self.size - reach} are under no head yet"
        self.found.note(
            "heads",
            problem is None,
            f"{len(self._heads)} signed heads fit the entries{unsigned}. The keys are {source}.",
            problem or "",
        )

    def _trust_successors(self) -> None:
        """A key is trusted with another when a trusted key signed a head over the entry that joins the two."""
        pending = list(self._rotations)
        while pending:
            joined = [each for each in pending if {each[1], each[2]} & set(self._trusted) and self._is_covered(each[0])]
            if not joined:
                return
            for _, new, old in joined:
                self._trusted |= {key_id: self._known[key_id] for key_id in (new, old) if key_id in self._known}
            pending = [each for each in pending if each not in joined]

    def _is_covered(self, seq: int) -> bool:
        return any(self._head_problem(jws) is None and self._read(jws)[0].size > seq for jws in self._heads)

    def _read(self, jws: str) -> tuple[SignedHead, str]:
        return read_head(jws, self._trusted.values())

    def _head_problem(self, jws: str) -> str | None:
        """What is wrong with a head; None: nothing."""
        try:
            head, key_id = self._read(jws)
        except InvalidProof as error:
            return f"A signed head cannot be believed: {error.message}"
        if head.instance != self.instance:
            return f"The head of {head.size} entries comes from another installation."
        if head.size > self.size:
            return f"Entries were taken away: a head was signed over {head.size}, and {self.size} are here."
        if root_at(self._nodes, head.size) != head.root:
            return f"One of the first {head.size} entries was changed: they are not what the head was signed over."
        return self._retirement_problem(key_id, head.size)

    def _retirement_problem(self, key_id: str, size: int) -> str | None:
        retired = next((seq for seq, _, old in self._rotations if old == key_id), None)
        if retired is None or size <= retired + 1:
            return None
        return f"The key {key_id} was retired by entry {retired} and signed something later, over {size} entries."

    def check_pinned(self, jws: str) -> None:
        """Check a head that was kept elsewhere: is this ledger its continuation?"""
        problem = self._head_problem(jws)
        self.found.note("pinned_head", problem is None, "The ledger continues the head you kept.", problem or "")

    # Receipts

    def _add_receipt(self, jws: str) -> None:
        problem = self._receipt_problem_of(jws)
        if problem is None:
            self._receipts_good += 1
        elif self._receipt_problem is None:
            self._receipt_problem = problem

    def _receipt_problem_of(self, jws: str) -> str | None:
        findings = check_receipt(jws, list(self._trusted.values()))
        failure = findings.first_failure()
        if failure is not None or findings.payload is None:
            return f"A receipt does not hold: {failure.said if failure else ''}"
        deletion_id, place = findings.payload["deletion_id"], findings.payload["ledger"]
        if findings.payload["instance"] != self.instance:
            return f"The receipt of {deletion_id} comes from another installation."
        if place["size"] > self.size or root_at(self._nodes, place["size"]) != hash_from_hex(place["root"]):
            return f"The receipt of {deletion_id} was signed over other entries than these."
        named = self._receipt_hashes.pop(deletion_id, None)
        if named is None or named[1] != hashlib.sha256(jws.encode()).hexdigest():
            return f"The receipt of {deletion_id} is not the one that the ledger names."
        return self._retirement_problem(str(findings.key_id), place["size"])

    def _end_of_receipts(self) -> None:
        problem = self._receipt_problem
        if problem is None and self._receipt_hashes:
            deletion_id, (seq, _) = min(self._receipt_hashes.items(), key=lambda item: item[1][0])
            problem = f"The receipt of {deletion_id}, named by entry {seq}, is missing."
        self.found.note(
            "receipts",
            problem is None,
            f"{self._receipts_good} receipts hold, and each is the only one of its deletion.",
            problem or "",
        )


def _instance_of(line: bytes) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or set(value) != {"instance", "version"} or value["version"] != LOG_VERSION:
        raise InvalidProof(f"This is no ledger of version {LOG_VERSION}.")
    return str(value["instance"])


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
