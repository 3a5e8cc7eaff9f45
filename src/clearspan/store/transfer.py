"""The store contract for moving traces from one project to another (Phoenix's transfer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from clearspan.model.trace import Scope

TRANSFER_MAX: Final = 1_000
"""Traces that one call moves at most: it is one transaction of the writer."""


class TransferOrder(NamedTuple):
    """Who asked for a transfer, under an id that was never used."""

    transfer_id: str
    org_id: int
    by: str  # public id of the API key


class OpenTransfer(NamedTuple):
    """A transfer that took place, and of which not everybody knows who must."""

    transfer_id: str
    org_id: int
    by: str
    from_project_id: int
    to_project_id: int
    trace_ids: tuple[str, ...]  # sorted: those that moved


class TransferStore(Protocol):
    """Moves traces. What is sent to the old project and comes late goes to the new one, without end: spans, logs, files
    and annotations, those that waited in the old project included."""

    def transfer(
        self, scope: Scope, trace_ids: Sequence[str], to_project_id: int, *, moved_ns: int, order: TransferOrder
    ) -> int:
        """Move traces with all that belongs to them, annotations included, in one durable transaction: all or none.

        The same transaction notes what moved, if anything did, until `close_transfer`.
        What was said of a session goes with the last trace of the old project that is part of it.
        Args:
            scope: where they are looked for.
            trace_ids: at most TRANSFER_MAX, in normal form; a repeat counts once.
            to_project_id: of the same organisation, which the caller sees to.
        Returns:
            How many traces were moved or were in that project already.
        Raises:
            NotFound: at least one is not there for this scope.
            Conflict: `several_projects`: they lie in more than one project; `held`: a hold keeps one, which must not
                get out of the hold's reach; `being_deleted`: an annotation or a span of one is hidden by a deletion,
                or one that waits for a hold's release lists something of it; `taken`: the new project has a trace of
                one of these ids, has deleted it or a span that it has, or has let it move on to a third project.
        """
        ...

    def open_transfers(self) -> list[OpenTransfer]:
        """What was noted and not closed, in the order in which it took place."""
        ...

    def close_transfer(self, transfer_id: str) -> None:
        """Erase a note, durably; safe to repeat."""
        ...
