"""Transfers between projects: the call as the server makes it, and as the writer process carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import apsw

from clearspan.model.trace import Scope
from clearspan.store.sqlite import annotating, transferring
from clearspan.store.sqlite.annotations import Caller
from clearspan.store.transfer import TRANSFER_MAX

if TYPE_CHECKING:
    from clearspan.store.sqlite.writer import Writer


class SqliteTransfers:
    """transfer.TransferStore; safe to call from many threads."""

    def __init__(self, writer: Caller) -> None:
        self._writer = writer

    def transfer(self, scope: Scope, trace_ids: Sequence[str], to_project_id: int, *, moved_ns: int) -> int:
        assert len(trace_ids) <= TRANSFER_MAX, "the caller bounds it"
        count: int = self._writer.call("transfer", scope, list(trace_ids), to_project_id, moved_ns)
        return count


class TransferCalls:
    """Mixed into process.Service, which sets these."""

    conn: apsw.Connection
    _secret: bytes
    _writer: Writer

    def refuse_on_full_disk(self) -> None:
        """Raise Overloaded while what is left of the disk is kept for deletions."""

    def transfer(self, scope: Scope, trace_ids: Sequence[str], to_project_id: int, moved_ns: int) -> int:
        """See TransferStore.transfer."""
        self.refuse_on_full_disk()
        with self.conn:
            moved, count = transferring.transfer(self.conn, self._secret, scope, trace_ids, to_project_id, moved_ns)
        if moved:
            self._writer.moves_exist = True
            self._writer.annotations_wait = annotating.any_waiting(self.conn)
        if self._writer.touched is not None:  # a hide in the making judges them again
            self._writer.touched.update(moved)
        return count
