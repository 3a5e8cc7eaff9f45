"""The newest scores of many traces as columns: out of the index of scores alone where that tells everything.

That index has no times. It is enough for a name of which it holds every annotation, and none twice for a trace; any
other name is read from the annotations themselves. Of a few traces, theirs are read instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import apsw
import numpy as np
import orjson

from clearspan.query.compile_condition import HIDDEN_ANNOTATION, HIDDEN_OF_MANY
from clearspan.store.annotations import ScoreRow
from clearspan.store.figures import Floats, Ints, Said, ScoreColumn, columns_of, words_said

FEW_TRACES: Final = 2_000
NAMES_MAX: Final = 1_000
"""With more names than this in a project each trace is asked for its own."""
CHUNK: Final = 20_000
_ABOUT = "(a.target = 'trace' OR a.of_root = 1)"
_IN_INDEX = f"{_ABOUT} AND a.score IS NOT NULL AND a.trace_pk IS NOT NULL AND a.waits_ns IS NULL"
_SAYS = "(a.score IS NOT NULL OR a.label IS NOT NULL OR a.value IS NOT NULL)"
_OF_NAME = "WHERE a.project_id = ? AND a.name = ?"


def score_columns(
    conn: apsw.Connection, project_ids: Sequence[int], trace_pks: Ints, traces: int, name: str | None, *, in_words: bool
) -> list[ScoreColumn]:
    """See FigureReader.score_columns. Cost: 1 µs a score of the projects, 3 µs where annotations are read; of few
    traces 5 µs an annotation of theirs.

    Args:
        trace_pks: those that match, ascending.
        traces: how many there are in the projects.
    """
    if len(trace_pks) > FEW_TRACES and len(trace_pks) * 10 >= traces:
        scans = [_Scan(conn, project_id, trace_pks, in_words=in_words) for project_id in project_ids]
        names = [[name] if name is not None else scan.names() for scan in scans]
        if all(len(each) <= NAMES_MAX for each in names):
            found = [column for scan, each in zip(scans, names, strict=True) for column in scan.columns(each)]
            return _joined(found, in_words=in_words)
    return columns_of(_of_traces(conn, trace_pks, name), in_words=in_words)


def _of_traces(conn: apsw.Connection, trace_pks: Ints, name: str | None) -> Iterator[ScoreRow]:
    for start in range(0, len(trace_pks), CHUNK):
        rows: Any = conn.execute(
            "SELECT a.trace_pk, a.name, a.score, a.label, a.value, a.metadata "
            "FROM json_each(?) g CROSS JOIN annotation a INDEXED BY annotation_by_trace ON a.trace_pk = g.value "
            f"WHERE a.waits_ns IS NULL AND {_ABOUT} AND {_SAYS} AND (?2 IS NULL OR a.name = ?2) "
            f"AND NOT {HIDDEN_ANNOTATION} ORDER BY a.updated_ns, a.annotation_no",
            (orjson.dumps(trace_pks[start : start + CHUNK].tolist()).decode(), name),
        )
        newest = {(row[0], row[1]): row for row in rows}
        yield from map(ScoreRow._make, newest.values())


class _Scan:
    """All annotations of one project, a name at a time."""

    def __init__(self, conn: apsw.Connection, project_id: int, trace_pks: Ints, *, in_words: bool) -> None:
        self._conn = conn
        self._project_id = project_id
        self._trace_pks = trace_pks
        self._in_words = in_words

    def names(self) -> list[str]:
        """The names of the project's annotations, NAMES_MAX + 1 at most. Cost: a step into the index each."""
        next_name = "SELECT min(a.name) FROM annotation a INDEXED BY annotation_by_name WHERE a.project_id = ?1"
        rows = self._conn.execute(
            f"WITH RECURSIVE each(name) AS ({next_name} UNION ALL SELECT ({next_name} AND a.name > each.name) "
            "FROM each WHERE each.name IS NOT NULL) SELECT name FROM each WHERE name IS NOT NULL LIMIT ?2",
            (self._project_id, NAMES_MAX + 1),
        )
        return [name for (name,) in rows]

    def columns(self, names: Sequence[str]) -> Iterator[ScoreColumn]:
        """Those of the names that some trace has."""
        for name in names:
            found = None if self._in_words or not self._is_in_index(name) else self._indexed(name)
            if found is None:
                found = self._read(name)
            if len(found.trace_pks):
                yield found

    def _is_in_index(self, name: str) -> bool:
        every, indexed = (
            self._conn.execute(f"SELECT count(*) FROM annotation a INDEXED BY {index}", (self._project_id, name)).get
            for index in (f"annotation_by_name {_OF_NAME}", f"annotation_by_score {_OF_NAME} AND {_IN_INDEX}")
        )
        return bool(every == indexed)

    def _indexed(self, name: str) -> ScoreColumn | None:
        """Out of the index; None: some trace has several, and it does not say which is the newest."""
        rows = self._conn.execute(
            "SELECT a.trace_pk, a.score FROM annotation a INDEXED BY annotation_by_score "
            f"{_OF_NAME} AND {_IN_INDEX} AND NOT {HIDDEN_OF_MANY} ORDER BY a.trace_pk",
            (self._project_id, name),
        )
        pks, scores = _arrays(rows, (np.int64, np.float64))
        if (pks[1:] == pks[:-1]).any():
            return None
        kept = self._matching(pks)
        pks, scores = pks[kept], scores[kept]
        row_no = 0
        if len(pks):
            row_no = self._conn.execute(
                "SELECT a.annotation_no FROM annotation a INDEXED BY annotation_by_score "
                f"{_OF_NAME} AND a.trace_pk = ? AND {_IN_INDEX} AND NOT {HIDDEN_ANNOTATION}",
                (self._project_id, name, int(pks[-1])),
            ).get
        return self._column(name, pks, scores, row_no)

    def _read(self, name: str) -> ScoreColumn:
        numbers: dict[Said, int] = {}
        words = ", a.label, a.value" if self._in_words else ""
        rows: Iterator[Any] = self._conn.execute(
            f"SELECT a.trace_pk, a.score, a.annotation_no, a.updated_ns{words} "
            f"FROM annotation a INDEXED BY annotation_by_name {_OF_NAME} AND a.trace_pk IS NOT NULL "
            f"AND a.waits_ns IS NULL AND {_ABOUT} AND {_SAYS} AND NOT {HIDDEN_OF_MANY}",
            (self._project_id, name),
        )
        if self._in_words:
            rows = ((*row[:4], numbers.setdefault(words_said(*row[4:]), len(numbers))) for row in rows)
        types: tuple[Any, ...] = (np.int64, np.float64, np.int64, np.int64)
        pks, scores, row_nos, updated, *said = _arrays(rows, (*types, np.int64) if self._in_words else types)
        order = np.lexsort((row_nos, updated, pks))
        ordered = pks[order]
        is_last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, bool)
        newest = order[is_last & self._matching(ordered)]
        row_no = int(row_nos[newest[-1]]) if len(newest) else 0
        found = self._column(name, pks[newest], scores[newest], row_no)
        return found._replace(said=tuple(numbers), said_nos=said[0][newest]) if said else found

    def _matching(self, pks: Ints) -> Any:
        """Which of some traces match."""
        if not len(self._trace_pks):
            return np.zeros(len(pks), bool)
        at = np.searchsorted(self._trace_pks, pks)
        return self._trace_pks[np.minimum(at, len(self._trace_pks) - 1)] == pks

    def _column(self, name: str, pks: Ints, scores: Floats, row_no: int) -> ScoreColumn:
        """
        Args:
            row_no: of the last of them; 0: there are none.
        """
        last: Any = self._conn.execute(
            "SELECT trace_pk, name, score, label, value, metadata FROM annotation WHERE annotation_no = ?", (row_no,)
        ).fetchone()
        return ScoreColumn(name, pks, scores, ScoreRow._make(last or (0, name, None, None, None, None)))


def _arrays(rows: Iterator[Any], types: Sequence[Any]) -> list[Any]:
    """The columns of some rows, NULL as NaN."""
    parts: list[list[Any]] = [[np.empty(0, each)] for each in types]
    while chunk := list(islice(rows, CHUNK)):
        for part, values, each in zip(parts, zip(*chunk, strict=True), types, strict=True):
            try:
                part.append(np.fromiter(values, each, len(values)))
            except TypeError:  # some are NULL
                part.append(np.array(values, each))
    return [np.concatenate(part) for part in parts]


def _joined(columns: list[ScoreColumn], *, in_words: bool) -> list[ScoreColumn]:
    """By name; those of several projects as one."""
    by_name: dict[str, list[ScoreColumn]] = {}
    for column in columns:
        by_name.setdefault(column.name, []).append(column)
    return [_one(by_name[name], in_words=in_words) for name in sorted(by_name)]


def _one(parts: list[ScoreColumn], *, in_words: bool) -> ScoreColumn:
    if len(parts) == 1:
        return parts[0]
    pks = np.concatenate([part.trace_pks for part in parts])
    order = np.argsort(pks)
    found = ScoreColumn(
        parts[0].name,
        pks[order],
        np.concatenate([part.scores for part in parts])[order],
        max((part.last for part in parts), key=lambda row: row.trace_pk),
    )
    if not in_words:
        return found
    numbers: dict[Said, int] = {}
    nos = [
        np.array([numbers.setdefault(each, len(numbers)) for each in part.said], np.int64)[part.said_nos]
        for part in parts
    ]
    return found._replace(said=tuple(numbers), said_nos=np.concatenate(nos)[order])
