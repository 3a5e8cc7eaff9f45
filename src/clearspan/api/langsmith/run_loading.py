"""Loading what runs are shown from: pages of spans, and for each the parts that its columns ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from clearspan.api.langsmith.attachments import attachment_url
from clearspan.api.langsmith.inputs import Json
from clearspan.api.langsmith.run_content import read_content
from clearspan.api.langsmith.run_tree import RunTree
from clearspan.api.langsmith.run_views import Needs, RunFacts
from clearspan.api.langsmith.session_stats import feedback_stats
from clearspan.api.services import Services
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.errors import InvalidInput, PayloadTooLarge
from clearspan.model.span import Span
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition
from clearspan.store.annotations import AnnotationRow
from clearspan.store.spans import SpanOrder, SpanPage, SpanPosition, SpanReader, SpanRow

PAGE_BYTES_MAX: Final = 32 * 2**20
"""A page ends early once the records behind it are this large; the next one goes on from there."""
ROWS_AT_ONCE: Final = 50
SPANS_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Loader:
    """Reads runs for one request. Every method blocks.

    Attributes:
        projects: project → UUID (32 hex digits); a project that is not in it is not told.
        tenant: the organisation's UUID; None: not told.
        share_root: address before `/public/…`.
    """

    services: Services
    scope: Scope
    projects: dict[int, str]
    tenant: str | None = None
    share_root: str = ""

    @property
    def spans(self) -> SpanReader:
        """The store."""
        return cast(SpanReader, self.services.reader)

    def page(
        self,
        where: Expr | None,
        window: Window,
        order: SpanOrder,
        after: SpanPosition | None,
        limit: int,
        *,
        records: bool,
    ) -> SpanPage:
        """At most `limit` spans, and where to go on. Fewer, if their records are large."""
        rows: list[SpanRow] = []
        size = 0
        while len(rows) < limit and size < PAGE_BYTES_MAX:
            step = min(limit - len(rows), ROWS_AT_ONCE) if records else limit - len(rows)
            found = self.spans.list_spans(
                self.scope, where, window, order=order, after=after, limit=step, records=records
            )
            rows += found.rows
            after = found.after
            if after is None:
                break
            size += sum(len(row.detail.record) for row in found.rows)
        return SpanPage(rows, after)

    def scan(self, where: Expr | None, window: Window, *, rows_max: int, refusal: InvalidInput) -> Iterator[SpanRow]:
        """The spans that match, newest first, without their records.

        Raises:
            InvalidInput: `refusal`, after about `rows_max` spans, when there are more.
        """
        after: SpanPosition | None = None
        seen = 0
        while True:
            page = self.page(where, window, SpanOrder.START_DESC, after, SPANS_AT_ONCE, records=False)
            yield from page.rows
            seen += len(page.rows)
            after = page.after
            if after is None:
                return
            if seen >= rows_max:
                raise refusal

    def every(self, where: Expr | None, window: Window, order: SpanOrder, *, records: bool) -> list[SpanRow]:
        """Every span that matches.

        Raises:
            PayloadTooLarge: their records are too large for one answer.
        """
        rows: list[SpanRow] = []
        after: SpanPosition | None = None
        size = 0
        while True:
            page = self.page(where, window, order, after, SPANS_AT_ONCE, records=records)
            rows += page.rows
            size += sum(len(row.detail.record) for row in page.rows)
            after = page.after
            if after is None:
                return rows
            if size >= PAGE_BYTES_MAX:
                raise PayloadTooLarge("These runs are too large for one answer; select less, or narrow the time.")

    def facts(self, rows: Sequence[SpanRow], needs: Needs) -> list[RunFacts]:
        """What each span is shown from. Cost: some queries for all of them, and the decoding of each record."""
        contents = [read_content(row.detail) if needs.content else None for row in rows]
        orphaned = {
            row.trace.trace_pk: row
            for row, content in zip(rows, contents, strict=True)
            if needs.tree or (needs.ancestors and not _is_placed(row, content is not None and content.dotted_order))
        }
        trees = self._trees(list(orphaned.values()))
        said = self._feedback(rows) if needs.feedback else {}
        links = self._attachments(rows) if needs.attachments else {}
        shares = self._shares(rows) if needs.shares else {}
        return [
            RunFacts(
                row,
                self.projects.get(row.trace.project_id),
                self.tenant,
                content,
                trees.get(row.trace.trace_pk),
                said.get((row.trace.trace_pk, row.detail.span.span_id)),
                links.get((row.trace.trace_pk, row.detail.span.span_id)),
                shares.get((row.trace.project_id, row.trace.summary.trace_id)),
                self.share_root,
            )
            for row, content in zip(rows, contents, strict=True)
        ]

    def _trees(self, rows: Sequence[SpanRow]) -> dict[int, RunTree]:
        """trace_pk → tree, of the traces of some spans."""
        if not rows:
            return {}
        ids = sorted({row.trace.summary.trace_id for row in rows})
        field = field_named("trace_unique_id")
        where = make_condition("trace_unique_id", field, Operator.IN, ids)
        spans: dict[int, list[Span]] = defaultdict(list)
        after: SpanPosition | None = None
        while True:
            page = self.spans.list_spans(
                self.scope,
                where,
                Window(),
                order=SpanOrder.ARRIVAL_ASC,
                after=after,
                limit=SPANS_AT_ONCE,
                records=False,
            )
            for row in page.rows:
                spans[row.trace.trace_pk].append(row.detail.span)
            after = page.after
            if after is None:
                break
        summaries = {row.trace.trace_pk: row.trace.summary for row in rows}
        return {pk: RunTree(summary, spans[pk]) for pk, summary in summaries.items() if pk in spans}

    def _feedback(self, rows: Sequence[SpanRow]) -> dict[tuple[int, str], Json]:
        """(trace_pk, span_id) → stats of what was said about it; of a root also about its trace."""
        roots = {row.trace.trace_pk: row.trace.summary.root_span_id for row in rows}
        found: dict[tuple[int, str], list[AnnotationRow]] = defaultdict(list)
        for pk, said in self.services.annotations.annotations_of(list(roots)).items():
            for each in said:
                target = each.annotation.target
                span_id = each.annotation.span_id if target is AnnotationTarget.SPAN else roots.get(pk)
                if target in (AnnotationTarget.SPAN, AnnotationTarget.TRACE) and span_id is not None:
                    found[pk, span_id].append(each)
        return {key: feedback_stats(said) for key, said in found.items()}

    def _attachments(self, rows: Sequence[SpanRow]) -> dict[tuple[int, str], dict[str, tuple[str, str]]]:
        by_key = {(row.trace.trace_pk, row.detail.span.span_id): row.trace for row in rows}
        listed = self.spans.list_attachments(self.scope, list(by_key))
        return {
            key: {each.name: (self._link(by_key[key].project_id, row_id, each.name), each.mime_type) for each in infos}
            for key, infos in listed.items()
            for row_id in [(by_key[key].summary.trace_id, key[1])]
        }

    def _link(self, project_id: int, span: tuple[str, str], name: str) -> str:
        return attachment_url(self.services, project_id, self.scope.environment, *span, name)

    def _shares(self, rows: Sequence[SpanRow]) -> dict[tuple[int, str], str]:
        by_project: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            by_project[row.trace.project_id].add(row.trace.summary.trace_id)
        return {
            (project_id, trace_id): token
            for project_id, trace_ids in by_project.items()
            for trace_id, token, _ in self.services.catalog.run_shares.links_of(project_id, sorted(trace_ids))
        }


def _is_placed(row: SpanRow, dotted_order: object) -> bool:
    """Whether a run's place is known without its trace's other spans."""
    return bool(dotted_order) or row.detail.span.span_id == row.trace.summary.root_span_id
