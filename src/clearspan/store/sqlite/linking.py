"""Finding the traces whose metadata names runs of other traces: reads in the caller's snapshot.

There are two ways: from the runs of the given traces to what may name them, and from what names runs to the traces of
those. Both find the same; which is shorter depends on whether there are more runs or more names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import apsw
import orjson

from clearspan.model.runs import is_hashed, may_be_hashed, run_id_of, run_id_spelt, run_ids_of_trace, spellings_of
from clearspan.model.trace import Scope
from clearspan.store.port import PlannedTrace
from clearspan.store.sqlite.attachments import VISIBLE, visible_params
from clearspan.store.sqlite.span_finding import NOT_HEX32, derived_places

AT_ONCE: Final = 500
"""Traces or links that one statement is about."""

_PROBES_A_LINK: Final = 10
"""How many projects can be searched for a root in the time that the rest of a link takes."""

Use = tuple[int, str]
"""A project and a key that some trace of it has."""

_HEX16: Final = "(length(s.span_id) = 16 AND s.span_id NOT GLOB '*[^0-9a-f]*')"


class Given(NamedTuple):
    """How much the given traces are."""

    spans: int
    projects: list[int]


def naming(
    conn: apsw.Connection, scope: Scope, trace_pks: Sequence[int], keys: Sequence[str], *, limit: int
) -> list[PlannedTrace]:
    """See port.DeletionStore.naming.

    Cost: one index probe for each project and key, 0.4 ms for a thousand projects. Where one is used, the shorter way:
    some 15 µs for each span of the given traces, or as much for each link; 1 µs for each given trace to know which.
    """
    used = uses(conn, scope, keys)
    if not used or not trace_pks:
        return []
    given = measure(conn, trace_pks)
    if count_links(conn, used, given.spans) * (1 + len(given.projects) // _PROBES_A_LINK) < given.spans:
        found = from_links(conn, used, trace_pks, given.projects)
    else:
        found = from_runs(conn, used, trace_pks)
    return _visible(conn, scope, found, limit)


def naming_runs(
    conn: apsw.Connection, scope: Scope, run_ids: Sequence[str], keys: Sequence[str], *, limit: int
) -> list[PlannedTrace]:
    """See port.DeletionStore.naming_runs. Cost: one index probe for each project and key; where one is used, four more
    for each run."""
    used = uses(conn, scope, keys) if run_ids else []
    if not used:
        return []
    spellings = sorted({text for run_id in run_ids for text in spellings_of(run_id)})
    return _visible(conn, scope, _named(conn, used, spellings), limit)


def uses(conn: apsw.Connection, scope: Scope, keys: Sequence[str]) -> list[Use]:
    """Which projects of a scope have traces with which of the keys."""
    rows = conn.execute(
        "SELECT p.value, k.value FROM json_each(?) AS p CROSS JOIN json_each(?) AS k WHERE EXISTS "
        "(SELECT 1 FROM metadata m WHERE m.project_id = p.value AND m.key = k.value)",
        (orjson.dumps(scope.project_ids).decode(), orjson.dumps(list(keys)).decode()),
    )
    return [(project_id, key) for project_id, key in rows]


def measure(conn: apsw.Connection, trace_pks: Sequence[int]) -> Given:
    """How many spans those traces have, and in which projects they are."""
    spans: dict[int, int] = {}
    for part in _parts(trace_pks):
        for project_id, count in conn.execute(
            "SELECT t.project_id, sum(t.span_count) FROM json_each(?) AS w "
            "CROSS JOIN trace t ON t.trace_pk = w.value GROUP BY 1",
            (part,),
        ):
            spans[project_id] = spans.get(project_id, 0) + count
    return Given(sum(spans.values()), sorted(spans))


def count_links(conn: apsw.Connection, used: Sequence[Use], limit: int) -> int:
    """How many entries of metadata name runs, or `limit` if there are more."""
    count = 0
    for project_id, key in used:
        if count < limit:
            sql = "SELECT count(*) FROM (SELECT 1 FROM metadata WHERE project_id = ? AND key = ? LIMIT ?)"
            count += int(conn.execute(sql, (project_id, key, limit - count)).get)
    return count


def from_runs(conn: apsw.Connection, used: Sequence[Use], trace_pks: Sequence[int]) -> set[int]:
    """The traces, hidden ones too, that name runs of the given ones: each run is looked up as a name."""
    given = set(trace_pks)
    found: set[int] = set()
    for part in _parts(trace_pks):
        found |= _named(conn, used, sorted(_spellings(conn, part)))
    return found - given


def _named(conn: apsw.Connection, used: Sequence[Use], spellings: Sequence[str]) -> set[int]:
    """The traces that have one of these values under a used key."""
    values = orjson.dumps(list(spellings)).decode()
    found: set[int] = set()
    for project_id, key in used:
        found.update(
            pk
            for (pk,) in conn.execute(
                "SELECT m.trace_pk FROM json_each(?) AS v CROSS JOIN metadata m "
                "ON m.project_id = ? AND m.key = ? AND m.value = v.value",
                (values, project_id, key),
            )
        )
    return found


def from_links(
    conn: apsw.Connection, used: Sequence[Use], trace_pks: Sequence[int], projects: Sequence[int]
) -> set[int]:
    """As `from_runs`: each name is looked up as a run.

    Args:
        projects: those of the given traces.
    Cost: about 15 µs a link; where one may be a UUIDv5 of ours, the given spans' ids are read once, 1 µs each.
    """
    given = set(trace_pks)
    found: set[int] = set()
    hashed: dict[str, list[int]] = {}
    for project_id, key in used:
        rows = conn.execute("SELECT value, trace_pk FROM metadata WHERE project_id = ? AND key = ?", (project_id, key))
        while links := list(islice(rows, AT_ONCE)):
            by_run: dict[str, list[int]] = {}
            for value, trace_pk in links:
                if trace_pk not in given and (run_id := run_id_spelt(value)) is not None:
                    by_run.setdefault(run_id, []).append(trace_pk)
            for run_id in _runs_among(conn, given, by_run, projects):
                found.update(by_run.pop(run_id, ()))
            for run_id in filter(may_be_hashed, by_run):
                hashed.setdefault(run_id, []).extend(by_run[run_id])
    for run_id in _hashed_runs(conn, trace_pks) if hashed else ():
        found.update(hashed.get(run_id, ()))
    return found


def _runs_among(
    conn: apsw.Connection, given: set[int], run_ids: Sequence[str] | dict[str, list[int]], projects: Sequence[int]
) -> set[str]:
    """Which of the run ids are runs of the given traces; but for UUIDv5, which say nothing of their place."""
    wanted, within = orjson.dumps(list(run_ids)).decode(), orjson.dumps(list(projects)).decode()
    places = conn.execute(
        "SELECT s.trace_pk, s.span_id FROM json_each(?) AS w CROSS JOIN span s INDEXED BY span_by_id "
        "ON s.span_id = w.value AND length(s.span_id) <> 16",
        (wanted,),
    )
    runs = {run_id for trace_pk, run_id in places if trace_pk in given}
    roots = conn.execute(
        "SELECT t.trace_pk, t.trace_id FROM json_each(?) AS p CROSS JOIN json_each(?) AS w "
        "CROSS JOIN trace t INDEXED BY trace_by_id ON t.project_id = p.value AND t.trace_id = w.value",
        (within, wanted),
    )
    runs |= {run_id for trace_pk, run_id in roots if trace_pk in given}
    return runs | {
        run_id
        for run_id in run_ids
        if run_id not in runs and any(trace_pk in given for trace_pk, _ in derived_places(conn, within, run_id))
    }


def _hashed_runs(conn: apsw.Connection, trace_pks: Sequence[int]) -> Iterator[str]:
    """The run ids of those traces that are UUIDv5."""
    for part in _parts(trace_pks):
        for trace_id, root_id, span_id in conn.execute(
            "SELECT t.trace_id, t.root_span_id, s.span_id FROM json_each(?) AS w CROSS JOIN trace t "
            "ON t.trace_pk = w.value CROSS JOIN span s ON s.trace_pk = t.trace_pk "
            f"WHERE {NOT_HEX32.format('s.span_id')} AND ({NOT_HEX32.format('t.trace_id')} OR NOT {_HEX16})",
            (part,),
        ):
            if is_hashed(trace_id, span_id, span_id == root_id):
                yield run_id_of(trace_id, span_id, span_id == root_id)


def _spellings(conn: apsw.Connection, trace_pks: str) -> Iterator[str]:
    spans: dict[tuple[str, str | None], list[str]] = {}
    for trace_id, root_id, span_id in conn.execute(
        "SELECT t.trace_id, t.root_span_id, s.span_id FROM json_each(?) AS w "
        "CROSS JOIN trace t ON t.trace_pk = w.value LEFT JOIN span s ON s.trace_pk = t.trace_pk",
        (trace_pks,),
    ):
        of_trace = spans.setdefault((trace_id, root_id), [])
        if span_id is not None:
            of_trace.append(span_id)
    for (trace_id, root_id), span_ids in spans.items():
        for run_id in run_ids_of_trace(trace_id, span_ids, root_id):
            yield from spellings_of(run_id)


def _parts(trace_pks: Sequence[int]) -> Iterator[str]:
    """The traces as JSON lists of AT_ONCE."""
    for start in range(0, len(trace_pks), AT_ONCE):
        yield orjson.dumps(list(trace_pks[start : start + AT_ONCE])).decode()


def _visible(conn: apsw.Connection, scope: Scope, pks: set[int], limit: int) -> list[PlannedTrace]:
    rows = conn.execute(
        "SELECT t.trace_pk, t.project_id, t.trace_id FROM trace t "
        f"WHERE t.trace_pk IN (SELECT value FROM json_each(?)) AND {VISIBLE} ORDER BY t.trace_pk LIMIT ?",
        (orjson.dumps(sorted(pks)).decode(), *visible_params(scope), limit + 1),
    )
    return [PlannedTrace._make(row) for row in rows]
