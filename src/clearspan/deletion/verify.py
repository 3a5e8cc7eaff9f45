"""Recounting what is left: separate from purging, target by target. Unknown is not zero.

The only place that may find a deletion `verified`. It asks the stores to look for rows by manifest key in base
tables; it never reads what the purge wrote about itself.
"""

from __future__ import annotations

from typing import NamedTuple

from clearspan.deletion.job import DeletionCatalog, DeletionJob
from clearspan.deletion.spans import with_shares
from clearspan.deletion.targets import NAMES
from clearspan.store.port import DeletionStore


class Recount(NamedTuple):
    """Rows left per registered target; None where nobody could say."""

    remaining: dict[str, int | None]

    @property
    def survivors(self) -> list[str]:
        """Targets that still hold rows of the manifest."""
        return [name for name, count in self.remaining.items() if count]

    @property
    def uncounted(self) -> list[str]:
        """Targets of which it is not known whether they hold any."""
        return [name for name, count in self.remaining.items() if count is None]

    @property
    def is_clean(self) -> bool:
        """Every registered target was counted, and every count is zero."""
        return not self.survivors and not self.uncounted


def recount(store: DeletionStore, catalog: DeletionCatalog, job: DeletionJob) -> Recount:
    """Count what is left of a deletion's manifest in every registered target.

    Before `settle` the manifest still names the traces, so the Catalog's targets are counted by id as well; after it
    only trace_pks are left, and those targets are known to have been empty when settle was allowed.

    A target that a store does not mention counts as unknown. Errors are the caller's to handle: a recount that
    could not be made is not a recount.
    """
    counted: dict[str, int | None] = dict(store.remaining(job.deletion_id))
    counted["share"] = catalog.count_shares(job, with_shares(store, store.manifest(job.deletion_id)))
    return Recount({name: counted.get(name) for name in NAMES} | _unregistered(counted))


def _unregistered(counted: dict[str, int | None]) -> dict[str, int | None]:
    """A store that counts more than the registry knows is believed when it finds something, or cannot tell; that
    nothing is left where nothing was registered says no more."""
    return {name: count for name, count in counted.items() if name not in NAMES and count != 0}
