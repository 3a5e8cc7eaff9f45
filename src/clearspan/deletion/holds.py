"""Holds: what may not be deleted, now and later, until somebody releases it.

A hold lies in the trace store and is evaluated there, inside the transactions that hide and purge, so it beats every
deletion, also one that is under way. The ledger has one row for its creation and one for its release, without values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from clearspan.deletion.request import ANY_TIME, ByFilter, ByIds
from clearspan.model.trace import Scope, Window


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """What to keep, for whom, and why. Selection, window and reason may hold personal data."""

    org_id: int
    created_by: str  # public id of the key, or the name of a command
    scope: Scope
    selection: ByFilter | ByIds = field(repr=False)  # ByFilter(None): everything in scope and window
    window: Window = ANY_TIME  # on the trace's start time
    reason: str | None = field(default=None, repr=False)
