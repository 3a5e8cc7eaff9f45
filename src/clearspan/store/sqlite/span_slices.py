"""Which traces may hold spans of a slice of time, without an index of spans by time.

Every span lies within its trace's first start and last end. So the spans of a slice [low, high) are in traces that
begin before `high` and end at `low` or later: a range of the index `trace_by_start`, which holds both times, from the
longest duration before `low` on. A few traces that last for days would make that range the whole index: the
`LONG_TRACES` longest are kept aside, and the range is as long as the longest of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import apsw
import orjson

from clearspan.model.trace import Scope

LONG_TRACES = 100
"""So many of a project's longest traces are looked at one by one."""

BEGINNING = -(2**63)
END = 2**63
"""Before and after every time that a span can have."""


class Lasting(NamedTuple):
    """When a trace began and ended."""

    start_ns: int
    end_ns: int
    trace_pk: int


class Traces(Protocol):
    """Traces in order of time."""

    def begun_below(self, high_ns: int, count: int) -> int | None:
        """The start of the `count`-th newest trace of those that begin before a time; None: there are fewer."""
        ...

    def begun_from(self, low_ns: int, count: int) -> int | None:
        """The start of the `count`-th oldest trace of those that begin then or later; None: there are fewer."""
        ...

    def lasting(self, low_ns: int, high_ns: int) -> list[int]:
        """trace_pks of all that may hold spans that start within [low, high)."""
        ...


def as_bound(ns: int) -> int | float:
    """A time as SQL compares it: outside 64 bits a float does, exactly."""
    return ns if BEGINNING <= ns < END else float(ns)


class GivenTraces:
    """A few traces that are known already."""

    def __init__(self, traces: Sequence[Lasting]) -> None:
        self._traces = traces
        self._starts = sorted(trace.start_ns for trace in traces)

    def begun_below(self, high_ns: int, count: int) -> int | None:
        below = [start for start in self._starts if start < high_ns]
        return below[-count] if len(below) >= count else None

    def begun_from(self, low_ns: int, count: int) -> int | None:
        later = [start for start in self._starts if start >= low_ns]
        return later[count - 1] if len(later) >= count else None

    def lasting(self, low_ns: int, high_ns: int) -> list[int]:
        return [each.trace_pk for each in self._traces if each.start_ns < high_ns and each.end_ns >= low_ns]


class IndexedTraces:
    """All visible traces of a scope, out of the index by start."""

    def __init__(self, conn: apsw.Connection, scope: Scope) -> None:
        self._conn = conn
        self._projects = [
            _Project(conn, project_id, scope.environment) for project_id in dict.fromkeys(scope.project_ids)
        ]

    def begun_below(self, high_ns: int, count: int) -> int | None:
        starts = [start for each in self._projects for start in each.starts("t.start_ns < ?", high_ns, count, "DESC")]
        return sorted(starts, reverse=True)[count - 1] if len(starts) >= count else None

    def begun_from(self, low_ns: int, count: int) -> int | None:
        starts = [start for each in self._projects for start in each.starts("t.start_ns >= ?", low_ns, count, "ASC")]
        return sorted(starts)[count - 1] if len(starts) >= count else None

    def lasting(self, low_ns: int, high_ns: int) -> list[int]:
        return [pk for each in self._projects for pk in each.lasting(low_ns, high_ns)]


class _Project:
    def __init__(self, conn: apsw.Connection, project_id: int, environment: str | None) -> None:
        self._conn = conn
        self._where, self._params = visible(environment)
        self._params = [project_id, *self._params]
        self._duration_ns: int = (
            conn.execute(
                "SELECT duration_ns FROM trace INDEXED BY trace_by_duration WHERE project_id = ? "
                "ORDER BY duration_ns DESC LIMIT 1 OFFSET ?",
                (project_id, LONG_TRACES),
            ).get
            or 0
        )
        self._long = list(self._longer_than(self._duration_ns))

    def _longer_than(self, duration_ns: int) -> Iterator[Lasting]:
        rows: Any = self._conn.execute(
            "SELECT t.start_ns, t.end_ns, t.trace_pk FROM trace t INDEXED BY trace_by_duration "
            f"WHERE t.project_id = ? AND {self._where} AND t.duration_ns > ?",
            (*self._params, duration_ns),
        )
        return map(Lasting._make, rows)

    def starts(self, bound: str, ns: int, count: int, direction: str) -> list[int]:
        rows = self._conn.execute(
            f"SELECT t.start_ns FROM trace t INDEXED BY trace_by_start WHERE t.project_id = ? AND {self._where} "
            f"AND {bound} ORDER BY t.start_ns {direction} LIMIT ?",
            (*self._params, as_bound(ns), count),
        )
        return [start for (start,) in rows]

    def lasting(self, low_ns: int, high_ns: int) -> list[int]:
        first_ns = low_ns - self._duration_ns
        found = [
            pk
            for (pk,) in self._conn.execute(
                f"SELECT t.trace_pk FROM trace t INDEXED BY trace_by_start WHERE t.project_id = ? AND {self._where} "
                "AND t.start_ns >= ? AND t.start_ns < ? AND t.end_ns >= ?",
                (*self._params, as_bound(first_ns), as_bound(high_ns), as_bound(low_ns)),
            )
        ]
        # Of the long ones those that began even earlier; the others are in the range.
        found += [each.trace_pk for each in self._long if each.start_ns < first_ns and each.end_ns >= low_ns]
        return found


def visible(environment: str | None) -> tuple[str, list[Any]]:
    """What every query of spans asks of alias `t`, beside its project: (condition, parameters)."""
    parts, params = ["t.trace_pk NOT IN (SELECT trace_pk FROM hidden)"], []
    if environment is not None:
        parts.append("t.environment = ?")
        params.append(environment)
    return " AND ".join(parts), params


def given_traces(conn: apsw.Connection, scope: Scope, trace_pks: Sequence[int]) -> GivenTraces:
    """The visible ones of some traces. Cost: 2 µs each."""
    where, params = visible(scope.environment)
    rows: Any = conn.execute(
        "SELECT t.start_ns, t.end_ns, t.trace_pk FROM json_each(?) g CROSS JOIN trace t NOT INDEXED "
        f"ON t.trace_pk = g.value WHERE t.project_id IN (SELECT value FROM json_each(?)) AND {where}",
        (orjson.dumps(list(trace_pks)).decode(), orjson.dumps(scope.project_ids).decode(), *params),
    )
    return GivenTraces([Lasting._make(row) for row in rows])
