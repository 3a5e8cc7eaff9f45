"""Figures of deletions for /metrics, from the Catalog alone: a counter of our own could disagree with the ledger."""

from __future__ import annotations

import threading
from collections import Counter

from sqlalchemy import func, select

from clearspan.api.metrics import DeletionFigures
from clearspan.catalog import Catalog
from clearspan.catalog.tables import job
from clearspan.deletion.execute import Deleter
from clearspan.deletion.records import KIND, CatalogRecords
from clearspan.deletion.state import DeletionState
from clearspan.deletion.targets import NAMES
from clearspan.model.clock import Clock

PAGE_ENTRIES = 1000
PAGES_MAX = 50
"""Of the ledger, in one scrape: a long ledger is caught up with in a few."""


class DeletionReport:
    """The figures of one server. Safe from any thread."""

    def __init__(self, catalog: Catalog, records: CatalogRecords, deleter: Deleter, clock: Clock) -> None:
        self._catalog = catalog
        self._records = records
        self._deleter = deleter
        self._clock = clock
        self._lock = threading.Lock()
        self._read_up_to = -1  # sequence number in the ledger
        self._purged: Counter[str] = Counter(dict.fromkeys(NAMES, 0))

    def read(self) -> DeletionFigures:
        """Everything as it is now."""
        unfinished = self._records.unfinished_deletions()
        by_state = dict.fromkeys(map(str, DeletionState), 0) | self._ended()
        by_state |= Counter(str(each.state) for each in unfinished)
        since = min((min(each.times_ns.values()) for each in unfinished if each.times_ns), default=None)
        return DeletionFigures(
            by_state=by_state,
            oldest_unfinished_s=0.0 if since is None else max(0.0, (self._clock.now_ns() - since) / 1e9),
            overdue=len(self._deleter.overdue()),
            purged_rows=self._purged_rows(),
        )

    def _ended(self) -> dict[str, int]:
        query = select(job.c.state, func.count().label("n")).where(job.c.kind == KIND).group_by(job.c.state)
        with self._catalog.database.read() as db:
            ended = {row.state: row.n for row in db.execute(query)}
        return {
            str(DeletionState.VERIFIED): ended.get("done", 0),
            str(DeletionState.FAILED): ended.get("failed", 0),
            str(DeletionState.CANCELLED): ended.get("cancelled", 0),
        }

    def _purged_rows(self) -> dict[str, int]:
        """Rows that verified deletions removed, by target. A deletion is verified once, so each row counts once, over
        retries and restarts alike."""
        with self._lock:
            for _ in range(PAGES_MAX):
                page = self._catalog.ledger(after_seq=self._read_up_to, limit=PAGE_ENTRIES)
                for entry in page:
                    if entry.kind == KIND and entry.body.get("after") == DeletionState.VERIFIED:
                        self._purged.update(entry.body["purged"])
                    self._read_up_to = entry.seq
                if len(page) < PAGE_ENTRIES:
                    break
            return dict(self._purged)
