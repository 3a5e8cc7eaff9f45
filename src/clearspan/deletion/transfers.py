"""Traces that move to another project: the act in the store, what the Catalog says of it, and a crash between the two.

Not a deletion, but what deletions count on: that the public links of a trace name the project it is in, or they would
not be found when it goes. The traces move in the store's transaction, which also notes what moved. Then the Catalog
moves the links and adds the entry to the ledger, in one transaction of its own, and the note is erased. Whoever comes
upon a note does the rest: the call itself, the next start, a round once a minute, a deletion before it removes links.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from clearspan.catalog import Catalog
from clearspan.faults import fault
from clearspan.model.clock import Clock, IdSource
from clearspan.model.trace import Scope
from clearspan.proof.manifest import manifest_leaves, manifest_root
from clearspan.store.tombstone import manifest_salt_of
from clearspan.store.transfer import OpenTransfer, TransferOrder, TransferStore


class Transfers:
    """Moves traces between projects. Safe to call from many threads."""

    def __init__(self, store: TransferStore, catalog: Catalog, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._ids = ids
        self._lock = threading.Lock()  # links that move twice do so in the order in which their traces did

    def transfer(self, org_id: int, scope: Scope, trace_ids: Sequence[str], to_project_id: int, *, by: str) -> int:
        """Move traces with all that belongs to them, public links included; see TransferStore.transfer.

        Args:
            by: public id of the API key that asks.
        Returns:
            How many were moved or were in that project already.
        Raises:
            NotFound, Conflict: see there; nothing moved.
            Others: the links and the ledger follow by themselves, within a minute or at the next start.
        """
        order = TransferOrder(self._ids.new_id("mov"), org_id, by)
        moved_ns = self._clock.now_ns()
        count = self._store.transfer(scope, trace_ids, to_project_id, moved_ns=moved_ns, order=order)
        fault("transfer.after_move")
        self.finish()
        return count

    def finish(self) -> None:
        """Move the links of every transfer that took place and record it, oldest first; safe to repeat."""
        with self._lock:
            for each in self._store.open_transfers():
                self._catalog.record_transfer(each, self._root_of(each))
                fault("transfer.after_record")
                self._store.close_transfer(each.transfer_id)

    def _root_of(self, transfer: OpenTransfer) -> str:
        """Commits to the traces, as they were named before; the salt is worked out from the installation's secret."""
        salt = manifest_salt_of(self._catalog.tombstone_secret, transfer.transfer_id)
        lines = ((transfer.from_project_id, trace_id) for trace_id in transfer.trace_ids)
        return manifest_root(manifest_leaves(salt, lines)).hex()
