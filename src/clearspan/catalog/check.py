"""The ledger of a data directory, checked from its first entry: what is stored, and what an export of it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, and_, func, or_, select

from clearspan.catalog import ledger
from clearspan.catalog.database import FILE_NAME, Database
from clearspan.catalog.export import export_lines
from clearspan.catalog.ledger import NO_HASH, LedgerEntry
from clearspan.catalog.tables import ledger_node
from clearspan.model.errors import StoreDamaged
from clearspan.proof.findings import Findings
from clearspan.proof.log import check_log
from clearspan.proof.merkle import new_nodes
from clearspan.proof.signing import PublicKey

_AT_ONCE = 1000


def check_ledger(data: Path, *, keys: Sequence[PublicKey] = (), head: str | None = None) -> Findings:
    """Check the ledger of a data directory; reads only, and the server may run.

    Args:
        keys, head: as check_log's.
    Returns:
        The points: chain and tree as stored, then those of check_log.
    Raises:
        StoreDamaged: the file was written by another version of the program, or is damaged.
    Cost: one read of the ledger, some 50 µs an entry.
    """
    database = Database(data / FILE_NAME)
    try:
        if database.is_behind():
            raise StoreDamaged("catalog.db has another version's schema; start the server once to bring it up to date.")
        with database.read() as db:
            found = check_log(export_lines(db), keys=keys, head=head)
            stored = Findings()
            check_stored(db, stored)
    finally:
        database.close()
    found.checks = stored.checks + found.checks
    return found


def check_stored(db: Connection, found: Findings) -> int:
    """Note whether the chain and the tree are as stored; how many entries follow one another."""
    chain = _Stored(db)
    chain.read()
    found.note("chain", chain.broken is None, "Each entry follows the one before.", chain.broken or "")
    if chain.broken is None:
        found.note("tree", chain.wrong_node is None, "The stored tree is that of the entries.", chain.wrong_node or "")
    return chain.size


class _Stored:
    """One pass over the entries, a thousand at a time, beside the nodes they complete."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self.size = 0
        self.broken: str | None = None
        self.wrong_node: str | None = None
        self._newest: dict[int, bytes] = {}  # level → hash of the newest complete subtree
        self._nodes = 0

    def read(self) -> None:
        prev_hash = NO_HASH
        while found := ledger.entries(self._db, after_seq=self.size - 1, limit=_AT_ONCE):
            try:
                ledger.check_chain(found, seq=self.size, prev_hash=prev_hash)
            except StoreDamaged as error:
                self.broken = error.message
                return
            if self.wrong_node is None:
                self.wrong_node = self._first_wrong(found)
            self.size, prev_hash = found[-1].seq + 1, found[-1].entry_hash
        stored = self._db.execute(select(func.count()).select_from(ledger_node)).scalar_one()
        if self.wrong_node is None and stored != self._nodes:
            self.wrong_node = f"The stored tree has {stored} nodes where the entries make {self._nodes}."

    def _first_wrong(self, found: list[LedgerEntry]) -> str | None:
        expected = dict(self._completed(found))
        self._nodes += len(expected)
        stored = self._stored_nodes(expected)
        for place, node in expected.items():
            if stored.get(place) != node:
                return f"Node {place[1]} of level {place[0]} of the stored tree is wrong."
        return None

    def _completed(self, found: list[LedgerEntry]) -> Iterator[tuple[tuple[int, int], bytes]]:
        for entry in found:
            made = new_nodes(entry.seq, entry.entry_hash, lambda level, _: self._newest[level])
            self._newest[0] = entry.entry_hash
            self._newest.update({level: node for level, _, node in made})
            yield from (((level, position), node) for level, position, node in made)

    def _stored_nodes(self, expected: dict[tuple[int, int], bytes]) -> dict[tuple[int, int], bytes]:
        by_level: dict[int, list[int]] = {}
        for level, position in expected:
            by_level.setdefault(level, []).append(position)
        if not by_level:
            return {}
        ranges = [
            and_(ledger_node.c.level == level, ledger_node.c.position.between(min(positions), max(positions)))
            for level, positions in by_level.items()
        ]
        columns = (ledger_node.c.level, ledger_node.c.position, ledger_node.c.hash)
        return {
            (row.level, row.position): bytes(row.hash) for row in self._db.execute(select(*columns).where(or_(*ranges)))
        }
