"""Holds: what may not be deleted, now and later, until somebody releases it.

A hold lies in the trace store and is evaluated there, inside the transactions that hide and purge, so it beats every
deletion, also one that is under way. The ledger has one row for its creation and one for its release, without values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clearspan.deletion.execute import Deleter
from clearspan.deletion.guard import is_always_true
from clearspan.deletion.job import Audit, DeletionCatalog
from clearspan.deletion.notes import SALT_BYTES, keyed_hash, read_note, write_note
from clearspan.deletion.request import ANY_TIME, ByFilter, ByIds
from clearspan.faults import fault
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidFilter, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.query.codec import encode_expr
from clearspan.store.port import DeletionStore, HoldOutcome, HoldRow

ACTIVE_MAX = 1000
CREATED = "hold.created"
RELEASED = "hold.released"


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """What to keep, for whom, and why. Selection, window and reason may hold personal data."""

    org_id: int
    created_by: str  # public id of the key, or the name of a command
    scope: Scope
    selection: ByFilter | ByIds = field(repr=False)  # ByFilter(None): everything in scope and window
    window: Window = ANY_TIME  # on the trace's start time
    reason: str | None = field(default=None, repr=False)


class Holds:
    """Sets, releases and lists holds. Safe to call from many threads."""

    def __init__(
        self,
        store: DeletionStore,
        catalog: DeletionCatalog,
        deleter: Deleter,
        clock: Clock,
        ids: IdSource,
        *,
        active_max: int = ACTIVE_MAX,
    ) -> None:
        """
        Args:
            active_max: of one organisation, not released: every hide and every batch of a purge asks all of them.
        """
        self._store = store
        self._catalog = catalog
        self._deleter = deleter
        self._clock = clock
        self._ids = ids
        self._active_max = active_max
        self._owed: set[str] = set()  # holds whose audit row may be missing
        deleter.add_chore(self.catch_up)

    def create(self, request: HoldRequest) -> tuple[HoldRow, HoldOutcome]:
        """Set a hold. It counts from the store's transaction on, before anything else is written down.

        Raises:
            InvalidFilter: no ids, or a filter of groups without conditions; ByFilter(None) is meant to be everything.
            Conflict: `too_many_holds`: the organisation has as many active holds as it may.
        """
        where, trace_ids = _chosen(request.selection)
        hold = HoldRow(
            hold_id=self._ids.new_id("hold"),
            org_id=request.org_id,
            scope=request.scope,
            where=where,
            trace_ids=trace_ids,
            window=request.window,
            reason=request.reason,
            created_ns=self._clock.now_ns(),
            created_by=request.created_by,
        )
        self._check_room(hold.org_id)
        return hold, self._add(hold)

    def _check_room(self, org_id: int) -> None:
        """Without a lock: one hold more is harmless, a hold that waits for the counting of another one is not."""
        if len(self._store.holds(org_id)) >= self._active_max:
            raise Conflict(
                f"There are {self._active_max:,} active holds, the most there may be (setting holds_active_max); "
                "release one, or let one hold keep what several do. Nothing is held.",
                code="too_many_holds",
            )

    def _add(self, hold: HoldRow) -> HoldOutcome:
        audit = write_note(
            self._store, self._ids, _note_ref(hold.hold_id, CREATED), hold.created_by, {"reason": hold.reason}
        )
        fault("hold.before_add")
        with self._owing(hold.hold_id):
            outcome = self._store.add_hold(hold)
            fault("hold.after_add")
            self._record_created(hold, audit)
        return outcome

    def release(self, hold_id: str, *, org_id: int, by: str, reason: str | None = None) -> HoldRow:
        """End a hold and erase what it said; deletions that waited for it go on. Repeating it changes nothing.

        Raises:
            NotFound: the organisation has no such hold.
        """
        hold = self.get(hold_id, org_id=org_id)
        if hold.released_ns is None:
            audit = write_note(self._store, self._ids, _note_ref(hold_id, RELEASED), by, {"by": by, "reason": reason})
            fault("hold.before_release")
            with self._owing(hold_id):
                self._store.release_hold(hold_id, self._clock.now_ns())
                fault("hold.after_release")
                self._record_released(hold, audit)
                self._store.erase_note(_note_ref(hold_id, CREATED))
            self._deleter.wake_held()
        return self.get(hold_id, org_id=org_id)

    def get(self, hold_id: str, *, org_id: int) -> HoldRow:
        """One hold, released or not. Raises NotFound."""
        hold = self._store.get_hold(hold_id)
        if hold is None or hold.org_id != org_id:
            raise NotFound("There is no such hold.")
        return hold

    def list_holds(self, *, org_id: int, released: bool = False) -> list[HoldRow]:
        """The holds of an organisation, oldest first; released ones only if asked for."""
        return self._store.holds(org_id, released)

    def reconcile(self) -> None:
        """Write the audit rows that a crash kept from being written; call once at start-up. Cost O(holds)."""
        for hold in self._store.holds(None, True):
            self._reconcile(hold)

    def catch_up(self) -> None:
        """The same for what failed while this process ran: the hold stands, its row follows. Called now and then."""
        for hold_id in tuple(self._owed):
            hold = self._store.get_hold(hold_id)
            if hold is not None:
                self._reconcile(hold)
            self._owed.discard(hold_id)
            self._deleter.wake_held()

    @contextmanager
    def _owing(self, hold_id: str) -> Iterator[None]:
        """Should something inside fail, the hold may have changed without its audit row: it is looked at again."""
        try:
            yield
        except Exception:
            self._owed.add(hold_id)
            raise

    def _reconcile(self, hold: HoldRow) -> None:
        created = _note_ref(hold.hold_id, CREATED)
        if hold.released_ns is None:
            self._record_created(hold, read_note(self._store, created, hold.created_by))
        else:
            self._record_released(hold, read_note(self._store, _note_ref(hold.hold_id, RELEASED), "unknown"))
            self._store.erase_note(created)

    # -- audit ----------------------------------------------------------------------------------------------------

    def _record_created(self, hold: HoldRow, audit: Audit) -> None:
        """The scope's hash is keyed with the note's salt, and goes with it."""
        found = self._store.get_note(audit.private_ref) if audit.private_ref else None
        salt = found[0] if found is not None else self._ids.token_bytes(SALT_BYTES)
        body = _audit_body(audit) | {
            "project_ids": sorted(hold.scope.project_ids),
            "selection": "ids" if hold.trace_ids is not None else "all" if hold.where is None else "filter",
            "scope_hash": keyed_hash(salt, _plain_scope(hold)),
        }
        self._catalog.record_event(hold.org_id, CREATED, hold.hold_id, "", body)

    def _record_released(self, hold: HoldRow, audit: Audit) -> None:
        self._catalog.record_event(hold.org_id, RELEASED, hold.hold_id, "", _audit_body(audit))


def _chosen(selection: ByFilter | ByIds) -> tuple[Any, tuple[str, ...] | None]:
    match selection:
        case ByIds(()):
            raise InvalidFilter("A hold by id needs at least one trace id; nothing is held.", code="empty_ids")
        case ByIds(trace_ids):
            return None, trace_ids
        case ByFilter(where):
            if where is not None and is_always_true(where):
                raise InvalidFilter(
                    "A hold's filter needs at least one condition; nothing is held.",
                    code="empty_filter",
                    fields=("filters",),
                )
            return where, None


def _note_ref(hold_id: str, kind: str) -> str:
    return f"{hold_id}.{kind}"


def _audit_body(audit: Audit) -> dict[str, object]:
    return {"by": audit.by, "private_ref": audit.private_ref, "private_hash": audit.private_hash}


def _plain_scope(hold: HoldRow) -> dict[str, Any]:
    """What the scope's hash is taken of; times as text, which no JSON reader rounds."""
    return {
        "projects": sorted(hold.scope.project_ids),
        "environment": hold.scope.environment,
        "filter": None if hold.where is None else encode_expr(hold.where),
        "trace_ids": None if hold.trace_ids is None else sorted(hold.trace_ids),
        "window": [None if bound is None else str(bound) for bound in hold.window],
    }
