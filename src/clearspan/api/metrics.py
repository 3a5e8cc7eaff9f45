"""Prometheus figures: counts and durations only, labelled by route template, never by an id or a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from clearspan.experiments.runner import ExperimentFigures
from clearspan.store.annotations import AnnotationFigures

CONTENT_TYPE = CONTENT_TYPE_LATEST

# A second series for each counter, of use to nobody here.
disable_created_metrics()  # type: ignore[no-untyped-call]


class DeletionFigures(NamedTuple):
    """Deletions by state, and what of them somebody may want to be woken for."""

    by_state: dict[str, int]
    oldest_unfinished_s: float  # age of the oldest that has not ended
    overdue: int  # blocked, stuck or too old
    purged_rows: dict[str, int]  # target → rows that verified deletions removed


class _DeletionCollector(Collector):
    """Asks for the figures when somebody scrapes: a counter kept beside the ledger could disagree with it."""

    def __init__(self, figures: Callable[[], DeletionFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        states = GaugeMetricFamily("clearspan_deletions", "Deletions by state.", labels=["state"])
        for state, count in sorted(figures.by_state.items()):
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "clearspan_deletions_oldest_unfinished_seconds",
            "Age of the oldest deletion that has not ended; 0 without one.",
            value=figures.oldest_unfinished_s,
        )
        yield GaugeMetricFamily(
            "clearspan_deletions_overdue", "Deletions that are blocked, stuck or too old.", value=figures.overdue
        )
        rows = CounterMetricFamily(
            "clearspan_deletion_purged_rows", "Rows that verified deletions removed.", labels=["target"]
        )
        for target, count in sorted(figures.purged_rows.items()):
            rows.add_metric([target], count)
        yield rows


class _AnnotationCollector(Collector):
    """Asks the store, which counts for good: what was removed unseen must not be forgotten by a restart."""

    def __init__(self, figures: Callable[[], AnnotationFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield GaugeMetricFamily(
            "clearspan_annotations_waiting", "Annotations whose target has not come yet.", value=figures.waiting
        )
        yield CounterMetricFamily(
            "clearspan_annotations_expired",
            "Annotations that were removed because their target did not come in time.",
            value=figures.expired,
        )


class _ExperimentCollector(Collector):
    """Asks the runner, which asks the catalog for the jobs that nobody works on."""

    def __init__(self, figures: Callable[[], ExperimentFigures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield GaugeMetricFamily("clearspan_experiments_at_work", "Experiments being run.", value=figures.at_work)
        yield GaugeMetricFamily(
            "clearspan_experiment_items_running", "Items of experiments at work.", value=figures.items_running
        )
        yield GaugeMetricFamily(
            "clearspan_experiments_stuck",
            "Experiments of which no item has ended for long, or that nobody works on.",
            value=figures.stuck,
        )
        items = CounterMetricFamily(
            "clearspan_experiment_items", "Items of experiments by outcome, since the start.", labels=["outcome"]
        )
        for outcome, count in sorted(figures.outcomes.items()):
            items.add_metric([outcome], count)
        yield items


class Metrics:
    """The server's figures, in a registry of their own so that two servers in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "clearspan_http_requests", "Requests by route template.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.grpc_requests = Counter(
            "clearspan_grpc_requests", "Calls over gRPC by method and status.", ["method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.spans = Counter(
            "clearspan_ingest_spans",
            "Spans and logs: accepted, repeated, rejected as invalid, refused because their trace was deleted.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("accepted", "repeated", "rejected", "refused"):
            self.spans.labels(outcome)
        self.rejections = Counter(
            "clearspan_ingest_rejections",
            "What LangSmith requests held and was not stored: runs, feedback and attachments by reason.",
            ["kind", "reason"],
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "clearspan_ingest_commit_seconds",
            "From hand-over to durable, waiting for the group included.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.late_refused = Counter(
            "clearspan_deletion_late_refused", "Late spans and logs that tombstones refused, since the start.",
            registry=self.registry,
        )  # fmt: skip
        self._queue = Gauge(
            "clearspan_ingest_queue_bytes", "Bytes of requests that are not answered yet.", registry=self.registry
        )

    def watch_queue(self, queued_bytes: Callable[[], int]) -> None:
        """Show this function's value as the queue's size."""
        self._queue.set_function(queued_bytes)

    def watch_annotations(self, figures: Callable[[], AnnotationFigures]) -> None:
        """Show these figures of the store."""
        self.registry.register(_AnnotationCollector(figures))

    def watch_deletions(self, figures: Callable[[], DeletionFigures]) -> None:
        """Show these figures of the ledger."""
        self.registry.register(_DeletionCollector(figures))

    def watch_experiments(self, figures: Callable[[], ExperimentFigures]) -> None:
        """Show these figures of the runner."""
        self.registry.register(_ExperimentCollector(figures))

    def render(self) -> bytes:
        """The exposition text. May read the catalog: run it in a thread."""
        return generate_latest(self.registry)
