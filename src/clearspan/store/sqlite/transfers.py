"""Transfers between projects: the call as the server makes it, and as the writer process carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw

from clearspan.model.trace import Scope
from clearspan.store.sqlite import annotating, transferring
from clearspan.store.sqlite.annotations import Caller
from clearspan.store.transfer import TRANSFER_MAX, OpenTransfer, TransferOrder

if TYPE_CHECKING:
    from clearspan.store.sqlite.writer import Writer


class SqliteTransfers:
    """transfer.TransferStore; safe to call from many threads."""

    def __init__(self, writer: Caller) -> None:
        self._writer = writer

    def transfer(
        self, scope: Scope, trace_ids: Sequence[str], to_project_id: int, *, moved_ns: int, order: TransferOrder
    ) -> int:
        assert len(trace_ids) <= TRANSFER_MAX, "the caller bounds it"
        count: int = self._writer.call("transfer", scope, list(trace_ids), to_project_id, moved_ns, order)
        return count

    def open_transfers(self) -> list[OpenTransfer]:
        found: list[OpenTransfer] = self._writer.call("open_transfers")
        return found

    def close_transfer(self, transfer_id: str) -> None:
        self._writer.call("close_transfer", transfer_id)


class TransferCalls:
    """Mixed into process.Service, which sets these."""

    conn: apsw.Connection
    _secret: bytes
    _writer: Writer

    if TYPE_CHECKING:
        _owes_empty_log: bool

    def refuse_on_full_disk(self) -> None:
        """Raise Overloaded while what is left of the disk is kept for deletions."""

    def transfer(
        self, scope: Scope, trace_ids: Sequence[str], to_project_id: int, moved_ns: int, order: TransferOrder
    ) -> int:
        """See TransferStore.transfer."""
        self.refuse_on_full_disk()
        with self.conn:
            moved, count = transferring.transfer(
                self.conn, self._secret, scope, trace_ids, to_project_id, moved_ns, order
            )
        if moved:
            self._writer.moves_exist = True
            self._writer.annotations_wait = annotating.any_waiting(self.conn)
        if self._writer.touched is not None:  # a hide in the making judges them again
            self._writer.touched.update(moved)
        return count

    def open_transfers(self) -> list[OpenTransfer]:
        """See TransferStore.open_transfers."""
        return transferring.open_transfers(self.conn)

    def close_transfer(self, transfer_id: str) -> None:
        """See TransferStore.close_transfer."""
        with self.conn:
            closed = transferring.close_transfer(self.conn, transfer_id)
        self._owes_empty_log = self._owes_empty_log or closed
