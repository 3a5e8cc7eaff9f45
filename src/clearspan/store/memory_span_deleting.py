"""Cutting spans out of traces in the in-memory store, and putting them back: see span_deletion.py."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from clearspan.model.span import LogRecord, Span
from clearspan.store.memory_annotations import MemoryAnnotations
from clearspan.store.memory_trace import Block, Trace
from clearspan.store.port import PlannedTrace
from clearspan.store.span_deletion import SpanName, parse_name, render_name


def without_spans(trace: Trace, span_ids: Collection[str]) -> Trace:
    """The trace as if those spans had never come."""
    spans = {key: each for key, each in trace.spans.items() if key not in span_ids}
    logs = {key: each for key, each in trace.logs.items() if each[0].span_id not in span_ids}
    gone = {*span_ids, *(trace.logs.keys() - logs.keys())}
    rows: list[tuple[Span | LogRecord, int]] = [*spans.values(), *logs.values()]
    return replace(
        trace,
        spans=spans,
        logs=logs,
        contexts={key: trace.contexts[key] for key in {row.context_key for row, _ in rows}},
        blocks={
            number: Block({key: record for key, record in block.records.items() if key not in gone})
            for number, block in trace.blocks.items()
            if number in {number for _, number in rows}
        },
        attachments={key: each for key, each in trace.attachments.items() if key[0] not in span_ids},
    )


def part_of(trace: Trace, span_id: str, trace_pk: int) -> Trace:
    """One span of a trace, with all that is its own, as a trace."""
    span, block_no = trace.spans[span_id]
    logs = {key: each for key, each in trace.logs.items() if each[0].span_id == span_id}
    records: dict[str | int, bytes] = {span_id: trace.blocks[block_no].records[span_id]}
    records |= {key: trace.blocks[number].records[key] for key, (_, number) in logs.items()}
    return Trace(
        trace_pk,
        trace.project_id,
        render_name(trace.trace_id, span_id),
        trace.received_ns,
        {span_id: (span, 0)},
        {key: (log, 0) for key, (log, _) in logs.items()},
        {key: trace.contexts[key] for key in {span.context_key, *(log.context_key for log, _ in logs.values())}},
        {0: Block(records)},
        {key: each for key, each in trace.attachments.items() if key[0] == span_id},
    )


def joined(trace: Trace, part: Trace) -> Trace:
    """A trace and what was cut out of it."""
    first = max(trace.blocks, default=-1) + 1
    return replace(
        trace,
        spans={**trace.spans, **{key: (span, first + number) for key, (span, number) in part.spans.items()}},
        logs={**trace.logs, **{key: (log, first + number) for key, (log, number) in part.logs.items()}},
        contexts={**trace.contexts, **part.contexts},
        blocks={**trace.blocks, **{first + number: block for number, block in part.blocks.items()}},
        attachments={**trace.attachments, **part.attachments},
    )


class SpanCutting:
    """The traces and annotations of a store, of which spans are cut out. Its lock is held around every call."""

    def __init__(
        self,
        traces: dict[int, Trace],
        pk_of: dict[tuple[int, str], int],
        annotations: MemoryAnnotations,
        new_pk: Callable[[], int],
    ) -> None:
        """
        Args:
            new_pk: a number that no trace has had.
        """
        self._traces = traces
        self._pk_of = pk_of
        self._annotations = annotations
        self._new_pk = new_pk

    def find(self, line: PlannedTrace) -> Trace | None:
        """The trace that a span is in, if it is there."""
        name = parse_name(line.trace_id)
        trace = None if name is None else self._whole(line.project_id, name)
        return trace if trace is not None and name is not None and name.span_id in trace.spans else None

    def whole_of(self, part: Trace) -> Trace | None:
        """What is left of the trace that a part came from."""
        name = parse_name(part.trace_id)
        return None if name is None else self._whole(part.project_id, name)

    def _whole(self, project_id: int, name: SpanName) -> Trace | None:
        pk = self._pk_of.get((project_id, name.trace_id))
        return None if pk is None else self._traces[pk]

    def cut(self, lines: Sequence[PlannedTrace], now_ns: int) -> list[PlannedTrace]:
        """As sqlite.span_cutting.cut, line by line."""
        made = []
        for line in lines:
            name, trace = parse_name(line.trace_id), self.find(line)
            if name is None or trace is None:
                made.append(line)
            elif len(trace.spans) == 1:
                self._annotations.take_along(trace.trace_pk)
                self._put(trace, replace(trace, trace_id=line.trace_id), now_ns)
                made.append(line._replace(trace_pk=trace.trace_pk))
            else:
                part = part_of(trace, name.span_id, self._new_pk())
                self._annotations.give(trace.trace_pk, part.trace_pk, name.span_id)
                self._put(None, part, now_ns)
                self._put(trace, without_spans(trace, {name.span_id}), now_ns)
                made.append(line._replace(trace_pk=part.trace_pk))
        return made

    def number(self, lines: Iterable[PlannedTrace]) -> list[PlannedTrace]:
        """As sqlite.span_cutting.number."""
        return [line if parse_name(line.trace_id) is None else line._replace(trace_pk=self._new_pk()) for line in lines]

    def put_back(self, lines: Sequence[PlannedTrace], now_ns: int) -> None:
        """As sqlite.span_cutting.put_back."""
        for line in lines:
            part, name = self._traces[line.trace_pk], parse_name(line.trace_id)
            if name is None:
                continue
            trace = self._whole(line.project_id, name)
            if trace is None:
                self._put(part, replace(part, trace_id=name.trace_id), now_ns)
            else:
                del self._traces[part.trace_pk], self._pk_of[part.project_id, part.trace_id]
                self._put(trace, joined(trace, part), now_ns)
            home = self._traces[part.trace_pk if trace is None else trace.trace_pk]
            self._annotations.written(part, home, now_ns)
            self._annotations.give_back(part.trace_pk, home)

    def _put(self, old: Trace | None, new: Trace, now_ns: int) -> None:
        if old is not None:
            del self._pk_of[old.project_id, old.trace_id]
        self._traces[new.trace_pk] = new
        self._pk_of[new.project_id, new.trace_id] = new.trace_pk
        self._annotations.written(old, new, now_ns)
