"""The Merkle tree over the ledger, kept as the hashes of its complete subtrees: one row an entry on average."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, insert, select

from clearspan.catalog.tables import ledger_entry, ledger_node
from clearspan.model.errors import InvalidInput, StoreDamaged
from clearspan.proof import merkle

# Built once: putting a statement together costs more than running it.
_LEAF = select(ledger_entry.c.entry_hash).where(ledger_entry.c.seq == bindparam("seq"))
_NODE = select(ledger_node.c.hash).where(
    ledger_node.c.level == bindparam("level"), ledger_node.c.position == bindparam("position")
)


class StoredNodes:
    """proof.merkle.Nodes of an open connection: each look-up one row by its key, asked for once."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._known: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes:
        known = self._known.get((level, index))
        if known is not None:
            return known
        if level == 0:
            found = self._db.execute(_LEAF, {"seq": index}).scalar()
        else:
            found = self._db.execute(_NODE, {"level": level, "position": index}).scalar()
        if found is None:
            raise StoreDamaged(f"The ledger's tree lacks node {index} of level {level}.")
        self._known[level, index] = bytes(found)
        return bytes(found)


def grow(db: Connection, seq: int, entry_hash: bytes) -> None:
    """Store the subtrees that entry `seq` completes. Cost: O(log seq) at worst, one row on average."""
    made = merkle.new_nodes(seq, entry_hash, StoredNodes(db).get)
    if made:
        rows = [{"level": level, "position": position, "hash": hash_} for level, position, hash_ in made]
        db.execute(insert(ledger_node), rows)


def size(db: Connection) -> int:
    """How many entries the ledger has."""
    last = db.execute(select(func.max(ledger_entry.c.seq))).scalar()
    return 0 if last is None else int(last) + 1


def root(db: Connection, of_size: int) -> bytes:
    """Root over the first `of_size` entries. Raises InvalidInput when there are not so many. Cost: O(log n)."""
    _check_size(db, of_size)
    return merkle.root_at(StoredNodes(db), of_size)


def inclusion(db: Connection, index: int, of_size: int) -> list[bytes]:
    """The proof that entry `index` is among the first `of_size`. Raises InvalidInput. Cost: O(log n)."""
    return place(db, index, of_size)[1]


def place(db: Connection, index: int, of_size: int) -> tuple[bytes, list[bytes]]:
    """(root over the first `of_size` entries, the proof that entry `index` is among them). Raises InvalidInput.

    Cost: O(log n) look-ups, those of root and path shared.
    """
    _check_size(db, of_size)
    if not 0 <= index < of_size:
        raise InvalidInput(f"A tree of {of_size} entries has no entry {index}.", fields=("index",))
    nodes = StoredNodes(db)
    return merkle.root_at(nodes, of_size), merkle.inclusion_at(nodes, index, of_size)


def consistency(db: Connection, old_size: int, of_size: int) -> list[bytes]:
    """The proof that the tree of `of_size` begins with that of `old_size`. Raises InvalidInput. Cost: O(log n)."""
    _check_size(db, of_size)
    if not 0 <= old_size <= of_size:
        raise InvalidInput(f"A tree of {of_size} entries does not begin with {old_size}.", fields=("from",))
    return merkle.consistency_at(StoredNodes(db), old_size, of_size)


def _check_size(db: Connection, of_size: int) -> None:
    if not 0 <= of_size <= size(db):
        raise InvalidInput(f"The ledger has no {of_size} entries.", fields=("size",))
