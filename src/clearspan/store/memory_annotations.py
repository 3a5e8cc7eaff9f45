"""Annotations of the in-memory store: obvious, not fast. store/memory.py holds the lock around every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import orjson

from clearspan.model.annotation import Annotation, AnnotationTarget
from clearspan.model.trace import Scope
from clearspan.store.annotations import (
    CHANGEABLE,
    EXPIRE_MAX,
    NEW_PROJECTS,
    AnnotationChange,
    AnnotationFigures,
    AnnotationOutcome,
    AnnotationQuery,
    AnnotationRow,
    AnnotationWrite,
    ScoreRow,
)
from clearspan.store.memory_trace import Trace
from clearspan.store.span_deletion import render_name

_T = AnnotationTarget
Key = tuple[int, AnnotationTarget, str | None, str | None, str | None, int | None, str, str]


class _Row(NamedTuple):
    row_no: int
    project_id: int
    annotation: Annotation
    trace_pk: int | None = None
    waits_ns: int | None = None
    waits_in: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        a = self.annotation
        return (
            self.project_id, a.target, a.trace_id, a.span_id, a.session_id, a.document_position, a.name, a.identifier
        )  # fmt: skip

    @property
    def told(self) -> AnnotationRow:
        return AnnotationRow(self.row_no, self.project_id, self.annotation, self.waits_ns is not None)


class MemoryAnnotations:
    """The annotations beside the traces of a store, whose dictionaries it looks into."""

    def __init__(self, traces: Mapping[int, Trace], hidden: Mapping[int, str]) -> None:
        self._traces = traces
        self._hidden = hidden  # trace_pk → deletion_id
        self.hidden_by: dict[int, str] = {}  # row number → the deletion that took it by itself
        self._rows: dict[int, _Row] = {}
        self._next_no = 1
        self._expired = 0
        self.home_of: Callable[[int, str], int] = lambda project_id, _: project_id
        """(project, trace id) → the project that data of the trace belongs to which was sent there."""
        self.homes_of: Callable[[int, str], Sequence[int]] = lambda project_id, _: [project_id]
        """(project, trace id) → the project that a trace is in, and those that it was in before."""

    # -- writing ----------------------------------------------------------------------------------------------

    def put(
        self, writes: Sequence[AnnotationWrite], received_ns: int, refuse: Callable[[int, str], str | None]
    ) -> list[tuple[AnnotationOutcome, str | None]]:
        """See AnnotationWriter.put_annotations.

        Args:
            refuse: (project, trace_id) → the deletion whose tombstone refuses it.
        Returns:
            Each outcome, with the deletion that refused it.
        """
        writes = [self._followed(write) for write in writes]
        places = [self._place(write, received_ns, refuse) for write in writes]
        void = any(
            write.must_exist and (isinstance(place, str) or place.waits_ns is not None)
            for write, place in zip(writes, places, strict=True)
        )
        outcomes: list[tuple[AnnotationOutcome, str | None]] = []
        for write, place in zip(writes, places, strict=True):
            annotation_id = write.annotation.annotation_id
            if isinstance(place, str):
                outcomes.append((AnnotationOutcome(annotation_id, None, deletion_id=place), place))
            elif void:
                missing = write.must_exist and place.waits_ns is not None
                outcomes.append((AnnotationOutcome(annotation_id, None, is_missing=missing), None))
            else:
                stored = self._store(place, write.project_ids)
                outcomes.append((AnnotationOutcome(stored, place.project_id, place.waits_ns is not None), None))
        return outcomes

    def _followed(self, write: AnnotationWrite) -> AnnotationWrite:
        """The write in the projects that data of its trace belongs to by now."""
        trace_id = write.annotation.trace_id
        if trace_id is None:
            return write
        homes = [self.home_of(project_id, trace_id) for project_id in write.project_ids]
        return write._replace(project_ids=tuple(dict.fromkeys(homes)))

    def _place(self, write: AnnotationWrite, received_ns: int, refuse: Callable[[int, str], str | None]) -> _Row | str:
        """Where it belongs now, or the deletion that refuses it."""
        a, projects = write.annotation, write.project_ids
        waiting = _Row(0, projects[0], a, None, received_ns, projects)
        if a.target is _T.PROJECT:
            return _Row(0, projects[0], a)
        if a.target is _T.SESSION:
            of = [(p, t) for p in projects for t in self._traces_of(p, session_id=a.session_id)]
            shown = [p for p, trace in of if trace.trace_pk not in self._hidden]
            if shown:
                return _Row(0, shown[0], a)
            return self._hidden[of[0][1].trace_pk] if of else waiting
        if a.trace_id is None:
            return waiting
        halves, refused = [], []
        for project_id in projects:
            name = render_name(a.trace_id, a.span_id or "")
            names = [(project_id, a.trace_id), *((home, name) for home in self.homes_of(project_id, a.trace_id))]
            refused_by = [by for each in names if (by := refuse(*each)) is not None]
            for trace in self._traces_of(project_id, trace_id=a.trace_id):
                if trace.trace_pk in self._hidden:
                    refused.append(self._hidden[trace.trace_pk])
                elif a.target is _T.TRACE or a.span_id in trace.spans:
                    return _Row(0, project_id, a, trace.trace_pk)
                elif not refused_by:
                    halves.append(_Row(0, project_id, a, trace.trace_pk, received_ns, projects))
            refused += refused_by
        if halves:
            return halves[0]
        return refused[0] if refused else waiting

    def _traces_of(
        self, project_id: int, *, trace_id: str | None = None, session_id: str | None = None
    ) -> Iterator[Trace]:
        for trace in self._traces.values():
            if trace.project_id == project_id and (
                trace.trace_id == trace_id or (session_id is not None and trace.summary.session_id == session_id)
            ):
                yield trace

    def _store(self, row: _Row, projects: Sequence[int]) -> str:
        shown = [
            old for old in self._rows.values() if old.row_no not in self.hidden_by and old.trace_pk not in self._hidden
        ]
        olds = [old for old in shown if old.key == row.key] or [
            old
            for old in shown
            if old.annotation.annotation_id == row.annotation.annotation_id and old.project_id in projects
        ]
        if not olds:
            self._rows[self._next_no] = row._replace(row_no=self._next_no)
            self._next_no += 1
            return row.annotation.annotation_id
        self._replace(olds[0], row)
        return olds[0].annotation.annotation_id

    def _replace(self, old: _Row, new: _Row) -> None:
        kept = new.annotation._replace(annotation_id=old.annotation.annotation_id, created_ns=old.annotation.created_ns)
        self._rows[old.row_no] = new._replace(row_no=old.row_no, annotation=kept)

    def written(self, old: Trace | None, trace: Trace, now_ns: int) -> None:
        """A trace was written: what waited for it is its own; what was said of a session it has left may wait."""
        if old is not None and old.summary.session_id is not None:
            session_id = old.summary.session_id
            if not any(self._traces_of(old.project_id, session_id=session_id)):
                for row in self._of_session(old.project_id, session_id):
                    if row.waits_ns is None:
                        self._rows[row.row_no] = row._replace(waits_ns=now_ns, waits_in=(old.project_id,))
        homes = set(self.homes_of(trace.project_id, trace.trace_id))
        for row_no in list(self._rows):
            waiting = self._rows.get(row_no)  # gone if one before it had its key
            if (
                waiting is not None
                and row_no not in self.hidden_by
                and waiting.waits_ns is not None
                and not homes.isdisjoint(waiting.waits_in)
            ):
                self._attach(waiting, trace)

    def hides_of(self, trace_pk: int) -> bool:
        """Whether a deletion has hidden one of the trace's annotations by itself."""
        return any(row_no in self.hidden_by for row_no, row in self._rows.items() if row.trace_pk == trace_pk)

    def row_is_of(self, row_no: int, trace_pk: int) -> bool:
        """Whether a row is there and is about that trace."""
        return row_no in self._rows and self._rows[row_no].trace_pk == trace_pk

    def moved(self, old: Trace, new: Trace, now_ns: int) -> None:
        """A trace went to another project: what was said of it goes along; of two that say the same the later stays."""
        for row in [row for row in self._rows.values() if row.trace_pk == new.trace_pk]:
            there = row._replace(project_id=new.project_id)
            rivals = self._rivals(there)
            if rivals and row.annotation.updated_ns < rivals[0].annotation.updated_ns:
                del self._rows[row.row_no]
                continue
            for rival in rivals:
                del self._rows[rival.row_no]
            self._rows[row.row_no] = there
        self.written(old, new, now_ns)

    def _may_attach(self, row: _Row) -> bool:
        return row.waits_ns is not None and row.row_no not in self.hidden_by

    def _attach(self, row: _Row, trace: Trace) -> None:
        a = row.annotation
        if a.target is _T.SESSION:
            if a.session_id != trace.summary.session_id:
                return
            new = row._replace(project_id=trace.project_id, waits_ns=None, waits_in=())
        elif a.trace_id == trace.trace_id or (a.trace_id is None and a.span_id in trace.spans):
            new = row._replace(
                project_id=trace.project_id,
                trace_pk=trace.trace_pk,
                annotation=a._replace(trace_id=trace.trace_id),
            )
            if a.target is _T.TRACE or a.span_id in trace.spans:
                new = new._replace(waits_ns=None, waits_in=())
        else:
            return
        rivals = self._rivals(new)
        if not rivals:
            self._rows[row.row_no] = new
            return
        del self._rows[row.row_no]
        if a.updated_ns >= rivals[0].annotation.updated_ns:
            self._replace(rivals[0], new)

    def _rivals(self, row: _Row) -> list[_Row]:
        return [
            each
            for each in self._rows.values()
            if each.key == row.key
            and each.row_no != row.row_no
            and each.row_no not in self.hidden_by
            and each.trace_pk not in self._hidden
        ]

    def patch(self, scope: Scope, annotation_id: str, change: AnnotationChange) -> AnnotationRow | None:
        """See AnnotationWriter.patch_annotation."""
        found = self.rows(scope, AnnotationQuery(annotation_ids=(annotation_id,)), None, 0, 1)
        if not found:
            return None
        if unknown := change.fields.keys() - CHANGEABLE:
            raise ValueError(f"fields that cannot be changed: {sorted(unknown)}")
        row = self._rows[found[0].row_no]
        extra = {**orjson.loads(row.annotation.extra or b"{}"), **change.extra}
        left = {name: value for name, value in extra.items() if value is not None}
        annotation = row.annotation._replace(
            **dict(change.fields),  # type: ignore[arg-type]
            extra=orjson.dumps(left) if left else None,
            updated_ns=change.updated_ns,
            key_id=change.key_id,
            user_id=change.user_id,
        )
        self._rows[row.row_no] = row._replace(annotation=annotation)
        return self._rows[row.row_no].told

    def widen(self, project_ids: Sequence[int]) -> int:
        """See AnnotationWriter.widen_waiting."""
        waits_in = (*project_ids, NEW_PROJECTS)
        news = [
            row
            for row in self._rows.values()
            if row.waits_ns is not None and row.trace_pk is None and NEW_PROJECTS in row.waits_in
            and row.project_id in project_ids and row.waits_in != waits_in
        ]  # fmt: skip
        for row in news:
            self._rows[row.row_no] = row._replace(waits_in=waits_in)
        for trace in list(self._traces.values()):
            for row in news:
                waiting = self._rows.get(row.row_no)
                if (
                    row.row_no not in self.hidden_by
                    and waiting is not None
                    and waiting.waits_ns is not None
                    and trace.project_id in project_ids
                ):
                    self._attach(waiting, trace)
        return len(news)

    def purge_of_project(self, project_id: int) -> int:
        """See AnnotationWriter.purge_project_annotations."""
        gone = [row.row_no for row in self._rows.values() if row.project_id == project_id and row.trace_pk is None]
        for row_no in gone:
            del self._rows[row_no]
        return len(gone)

    def expire(self, before_ns: int) -> int:
        """See AnnotationWriter.expire_annotations."""
        gone = [row.row_no for row in self._rows.values() if row.waits_ns is not None and row.waits_ns < before_ns]
        for row_no in gone[:EXPIRE_MAX]:
            del self._rows[row_no]
        self._expired += len(gone[:EXPIRE_MAX])
        return len(gone[:EXPIRE_MAX])

    # -- reading ----------------------------------------------------------------------------------------------

    def rows(
        self, scope: Scope, query: AnnotationQuery, before_row: int | None, offset: int, limit: int
    ) -> list[AnnotationRow]:
        """See AnnotationReader.list_annotations."""
        found = [
            row.told
            for row in sorted(self._rows.values(), key=lambda row: -row.row_no)
            if self._is_visible(row, scope)
            and (before_row is None or row.row_no < before_row)
            and (query.annotation_ids or row.waits_ns is None)
            and _matches(row.annotation, query)
        ]
        return found[offset : offset + limit]

    def _is_visible(self, row: _Row, scope: Scope) -> bool:
        if row.project_id not in scope.project_ids or row.row_no in self.hidden_by:
            return False
        if row.annotation.target is _T.PROJECT:
            return scope.environment is None
        if row.annotation.target is _T.SESSION:
            traces = list(self._traces_of(row.project_id, session_id=row.annotation.session_id))
        else:
            traces = [] if row.trace_pk is None else [self._traces[row.trace_pk]]
        if row.waits_ns is not None and not traces:
            return scope.environment is None
        return any(
            trace.trace_pk not in self._hidden and scope.environment in (None, trace.summary.environment)
            for trace in traces
        )

    def by_traces(self, trace_pks: Sequence[int]) -> dict[int, list[AnnotationRow]]:
        """See AnnotationReader.annotations_of."""
        found: dict[int, list[AnnotationRow]] = {}
        for row in self._rows.values():
            if row.trace_pk is None or row.trace_pk not in trace_pks or row.waits_ns is not None:
                continue
            if row.trace_pk not in self._hidden and row.row_no not in self.hidden_by:
                found.setdefault(row.trace_pk, []).append(row.told)
        return found

    def figures(self) -> AnnotationFigures:
        """See AnnotationReader.annotation_figures."""
        shown = [row for row in self._rows.values() if row.row_no not in self.hidden_by]
        return AnnotationFigures(sum(row.waits_ns is not None for row in shown), self._expired)

    # -- deleting ---------------------------------------------------------------------------------------------

    def count(self, trace_pks: Iterable[int]) -> int:
        """Rows that go with those traces: theirs, and those of sessions that have no other."""
        return len(self._of_traces(set(trace_pks)))

    def purge(self, trace_pks: Iterable[int]) -> None:
        """Remove them. Call while the traces are there."""
        for row_no in self._of_traces(set(trace_pks)):
            del self._rows[row_no]

    def _of_traces(self, trace_pks: set[int]) -> list[int]:
        theirs = [row.row_no for row in self._rows.values() if row.trace_pk in trace_pks]
        for row in self._rows.values():
            if row.annotation.target is _T.SESSION:
                traces = self._traces_of(row.project_id, session_id=row.annotation.session_id)
                pks = {trace.trace_pk for trace in traces}
                theirs += [row.row_no] if pks and pks <= trace_pks else []
        return theirs

    # -- of spans that are cut out: see memory_span_deleting.py -----------------------------------------------------

    def give(self, from_pk: int, to_pk: int, span_id: str) -> None:
        """What was said of a span of one trace is said of another trace."""
        for row in list(self._rows.values()):
            if row.trace_pk == from_pk and row.annotation.span_id == span_id:
                self._rows[row.row_no] = row._replace(trace_pk=to_pk)

    def take_along(self, trace_pk: int) -> None:
        """The last span of a trace goes: what waits for others of it goes on waiting."""
        for row in list(self._rows.values()):
            if row.trace_pk == trace_pk and row.waits_ns is not None:
                self._rows[row.row_no] = row._replace(trace_pk=None)

    def give_back(self, from_pk: int, trace: Trace) -> None:
        """What was said of a part is said of the trace; where the same was said anew, the later word stays."""
        for row in [row for row in self._rows.values() if row.trace_pk == from_pk]:
            new = row._replace(trace_pk=trace.trace_pk, annotation=row.annotation._replace(trace_id=trace.trace_id))
            rivals = self._rivals(new) if self._is_settled(new) else []
            if not rivals:
                self._rows[row.row_no] = new
                continue
            del self._rows[row.row_no]
            if row.annotation.updated_ns >= rivals[0].annotation.updated_ns:
                self._replace(rivals[0], new)

    def _is_settled(self, row: _Row) -> bool:
        return row.waits_ns is None and row.row_no not in self.hidden_by

    # -- deleting annotations by themselves: see memory_annotation_deleting.py -------------------------------------

    def selected(self, scope: Scope, query: AnnotationQuery) -> list[AnnotationRow]:
        """Those that match and show, those that wait included, by row number."""
        return [
            row.told
            for row in sorted(self._rows.values(), key=lambda row: row.row_no)
            if self._is_visible(row, scope) and _matches(row.annotation, query)
        ]

    def shows(self, row_no: int) -> bool:
        """Whether any read of its project may show it."""
        row = self._rows.get(row_no)
        return row is not None and row_no not in self.hidden_by and (
            row.trace_pk is None or row.trace_pk not in self._hidden
        )  # fmt: skip

    def exists(self, row_no: int) -> bool:
        """Whether the row is there, hidden or not."""
        return row_no in self._rows

    def row(self, row_no: int) -> AnnotationRow:
        """A row that is there."""
        return self._rows[row_no].told

    def traces_of(self, row_no: int) -> list[int]:
        """The traces that it is about: its own, or those of its session."""
        row = self._rows[row_no]
        if row.trace_pk is not None:
            return [row.trace_pk]
        session_id = row.annotation.session_id
        found = self._traces_of(row.project_id, session_id=session_id) if session_id is not None else ()
        return [trace.trace_pk for trace in found]

    def remove(self, row_no: int) -> bool:
        """Purge one; False: it was gone."""
        self.hidden_by.pop(row_no, None)
        return self._rows.pop(row_no, None) is not None

    def show_again(self, row_no: int) -> None:
        """Take a hide back. If the same thing was said anew meanwhile that stays, and this row goes."""
        del self.hidden_by[row_no]
        row = self._rows.get(row_no)
        if row is None:
            return
        if self._rivals(row):
            del self._rows[row_no]
            return
        for trace in self._traces.values():
            waiting = self._rows.get(row_no)
            if waiting is not None and waiting.waits_ns is not None and trace.project_id in waiting.waits_in:
                self._attach(waiting, trace)

    def _of_session(self, project_id: int, session_id: str) -> list[_Row]:
        return [
            row
            for row in self._rows.values()
            if row.project_id == project_id and row.annotation.session_id == session_id
        ]


def _matches(a: Annotation, query: AnnotationQuery) -> bool:
    lists = (
        (query.targets, a.target),
        (query.annotation_ids, a.annotation_id),
        (query.trace_ids, a.trace_id),
        (query.span_ids, a.span_id),
        (query.session_ids, a.session_id),
        (query.names, a.name),
        (query.identifiers, a.identifier),
        (query.kinds, a.kind),
        (query.sources, a.source),
        (query.user_ids, a.user_id),
        (query.key_ids, a.key_id),
    )
    since, until = query.created
    return (
        all(not wanted or value in wanted for wanted, value in lists)
        and a.name not in query.names_not
        and query.has_comment in (None, a.explanation is not None)
        and query.has_score in (None, a.score is not None)
        and (since is None or a.created_ns >= since)
        and (until is None or a.created_ns < until)
    )


def newest_scores(
    by_trace: Mapping[int, Sequence[AnnotationRow]], roots: Mapping[int, str | None], name: str | None
) -> list[ScoreRow]:
    """The newest score of each name, of the annotations of some traces; see FigureReader.score_columns.

    Args:
        roots: trace_pk → its root span.
    """
    newest: dict[tuple[int, str], ScoreRow] = {}
    for trace_pk, rows in by_trace.items():
        for row in sorted(rows, key=lambda row: (row.annotation.updated_ns, row.row_no)):
            said = row.annotation
            is_of_root = said.target is AnnotationTarget.SPAN and said.span_id == roots[trace_pk]
            says = said.score is not None or said.label is not None or said.value is not None
            if says and (said.target is AnnotationTarget.TRACE or is_of_root) and name in (None, said.name):
                newest[trace_pk, said.name] = ScoreRow(
                    trace_pk, said.name, said.score, said.label, said.value, said.metadata
                )
    return [newest[key] for key in sorted(newest)]
