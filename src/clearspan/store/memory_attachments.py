"""Attachments and look-ups by run id in the in-memory store: obvious, not fast."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from clearspan.model.errors import NotFound
from clearspan.model.runs import run_id_of
from clearspan.model.span import Attachment
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.store.memory_trace import Trace
from clearspan.store.port import WAITING_NS_MAX, SpanDetail
from clearspan.store.spans import PIECE_BYTES, AttachmentInfo, SpanRow, pieces_of


def with_attachments(trace: Trace, given: Iterable[Attachment]) -> tuple[Trace, int]:
    """The trace with attachments laid over its own, and how many that changed."""
    kept = dict(trace.attachments)
    changed = _lay(kept, given)
    return replace(trace, attachments=kept), changed


def _lay(kept: dict[tuple[str, str], Attachment], given: Iterable[Attachment]) -> int:
    changed = 0
    for each in given:
        known = kept.get((each.span_id, each.name))
        if known is None or _rank(each) > _rank(known):
            kept[each.span_id, each.name] = each
            changed += 1
    return changed


def _rank(each: Attachment) -> tuple[bytes, str]:
    return hashlib.sha256(each.data).digest(), each.mime_type


@dataclass
class Waiting:
    """Attachments whose runs have not come, by project."""

    projects: dict[int, dict[tuple[str, str], Attachment]] = field(default_factory=dict)
    received_ns: dict[Attachment, int] = field(default_factory=dict)

    def add(self, project_id: int, given: Sequence[Attachment], received_ns: int) -> int:
        """How many were new or won."""
        kept = self.projects.setdefault(project_id, {})
        changed = 0
        for each in given:
            if _lay(kept, [each]):
                self.received_ns[each] = received_ns
                changed += 1
        return changed

    def take(self, project_id: int, span_ids: Iterable[str]) -> list[Attachment]:
        """What waited for those runs; it waits no more."""
        kept, wanted = self.projects.get(project_id, {}), set(span_ids)
        return [kept.pop(key) for key in list(kept) if key[0] in wanted]

    def sweep(self, now_ns: int) -> None:
        """Drop what has waited for WAITING_NS_MAX."""
        for project_id, kept in self.projects.items():
            self.projects[project_id] = {
                key: each for key, each in kept.items() if self.received_ns[each] > now_ns - WAITING_NS_MAX
            }


class AttachmentMemory:
    """Mixed into memory.MemoryStore: spans.SpanReader without lists and figures."""

    _lock: threading.RLock
    _traces: dict[int, Trace]
    _matching: Callable[[Scope, Expr | None, Window], Iterator[Trace]]

    def find_spans(self, scope: Scope, span_ids: Sequence[str]) -> list[SpanRow]:
        wanted = set(span_ids)
        with self._lock:
            found = [
                SpanRow(trace.row, span_detail(trace, span_id))
                for trace in self._matching(scope, None, Window())
                for span_id in trace.spans
                if span_id in wanted
                or run_id_of(trace.trace_id, span_id, span_id == trace.summary.root_span_id) in wanted
            ]
        return sorted(found, key=lambda row: (row.trace.trace_pk, row.detail.span.span_id))

    def list_attachments(
        self, scope: Scope, keys: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], list[AttachmentInfo]]:
        found: dict[tuple[int, str], list[AttachmentInfo]] = {}
        with self._lock:
            for trace in self._matching(scope, None, Window()):
                for (span_id, _), each in sorted(trace.attachments.items()):
                    if (trace.trace_pk, span_id) in keys:
                        found.setdefault((trace.trace_pk, span_id), []).append(_info(each))
        return found

    def read_attachment(
        self, scope: Scope, trace_id: str, span_id: str, name: str
    ) -> tuple[AttachmentInfo, Iterator[bytes]] | None:
        with self._lock:
            copies = [
                trace
                for trace in self._matching(scope, None, Window())
                if trace.trace_id == trace_id and (span_id, name) in trace.attachments
            ]
        if not copies:
            return None
        trace = max(copies, key=lambda each: (each.received_ns, each.trace_pk))
        found = trace.attachments[span_id, name]
        return _info(found), self._pieces(scope, trace.trace_pk, found.data)

    def _pieces(self, scope: Scope, trace_pk: int, data: bytes) -> Iterator[bytes]:
        for number in range(pieces_of(len(data))):
            with self._lock:
                if all(trace.trace_pk != trace_pk for trace in self._matching(scope, None, Window())):
                    raise NotFound("This attachment is not there any more.")
            yield data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]


def span_detail(trace: Trace, span_id: str) -> SpanDetail:
    """One span of a trace with its context and record."""
    span, block_no = trace.spans[span_id]
    return SpanDetail(span, trace.contexts[span.context_key], trace.blocks[block_no].records[span_id])


def _info(each: Attachment) -> AttachmentInfo:
    return AttachmentInfo(each.name, each.mime_type, len(each.data), hashlib.sha256(each.data).digest())
