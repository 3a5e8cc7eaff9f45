"""Experiments of LangSmith's clients that nobody ended: an hour after their last trace they count as completed.

`evaluate()` says that it is through (catalog.experiments.CLOSED_KEY). A process that died says nothing, nor does a
program that sends runs by itself.
"""

from __future__ import annotations

from typing import Final

from clearspan.catalog.experiments import Experiment, ExperimentStatus
from clearspan.model.trace import Scope, Window
from clearspan.store.sessions import SessionReader, TraceOrder

QUIET_NS: Final = 3_600 * 10**9
_NEWEST: Final = 20
"""Traces whose end is looked at: those that started last need not end last."""


def settled(reader: SessionReader, experiment: Experiment, now_ns: int) -> Experiment:
    """The experiment as it is shown: completed with its last trace's end if that is an hour ago. Blocks; some 0.2 ms,
    and nothing for experiments of the server's own or younger ones."""
    is_open = not experiment.managed and experiment.status is ExperimentStatus.RUNNING
    if not is_open or experiment.created_at_ns + QUIET_NS > now_ns:
        return experiment
    scope = Scope((experiment.project_id,))
    rows = reader.walk_traces(scope, None, Window(), order=TraceOrder.START_DESC, limit=_NEWEST).rows
    last_ns = max([experiment.created_at_ns, *(row.summary.end_ns for row in rows)])
    if last_ns + QUIET_NS > now_ns:
        return experiment
    return experiment._replace(status=ExperimentStatus.COMPLETED, completed_at_ns=last_ns)
