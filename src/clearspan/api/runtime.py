"""Opening everything a server needs, in order, and closing it in the reverse of that order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import cast

from clearspan.api.figures import DeletionReport
from clearspan.api.gateway import IngestGateway, ThreadPool, WriterClient
from clearspan.api.intake import ingest_limits
from clearspan.api.metrics import DeletionFigures, Metrics
from clearspan.api.native.events import EventHub, Sight
from clearspan.api.native.views import moves_after, sight_of
from clearspan.api.services import Services
from clearspan.catalog import Catalog
from clearspan.deletion.execute import Deleter
from clearspan.deletion.holds import Holds
from clearspan.deletion.projects import ProjectRemoval
from clearspan.deletion.records import CatalogRecords
from clearspan.deletion.transfers import Transfers
from clearspan.experiments.item_runs import Parts
from clearspan.experiments.items import Items
from clearspan.experiments.llm import LlmClient
from clearspan.experiments.redaction import ItemRedactor
from clearspan.experiments.result_states import StoreReader
from clearspan.experiments.runner import Runner
from clearspan.ingest.pricing import PriceBook
from clearspan.model.clock import Clock, IdSource, SystemClock, SystemIds
from clearspan.settings import Settings
from clearspan.store.annotations import EXPIRE_MAX, AnnotationReader, AnnotationWriter
from clearspan.store.port import DeletionStore, TraceReader
from clearspan.store.sqlite.open import open_store
from clearspan.store.transfer import TransferStore

DELETE_THREADS = 8
RUN_THREADS = 4
"""For reads and scores of experiments, so that they do not take the threads of those who ask for pages."""


@contextmanager
def open_services(settings: Settings, catalog: Catalog) -> Iterator[Services]:
    """The services over the embedded store in `settings.data`; unfinished deletions go on at once.

    Args:
        catalog: open, and left open: the caller's.
    Raises:
        DataDirectoryLocked: another server uses the data directory.
        StoreDamaged: the store is not ours or newer than this program.
        InvalidInput: the price file cannot be read.
    """
    prices = PriceBook(settings.prices_file)
    store = open_store(
        settings.data,
        catalog.tombstone_secret,
        group_spans_max=settings.commit_spans_max,
        checkpoint_bytes=settings.wal_checkpoint_bytes,
        reserve_bytes=settings.reserve_bytes,
        disk_free_min_bytes=settings.disk_free_min_bytes,
        is_priced=True,
        prices_file=settings.prices_file,
    )
    store.reader.seconds_max = settings.read_seconds_max
    with ExitStack() as stack:
        stack.callback(store.close)
        warming = Thread(target=prices.warm, name="prices", daemon=True)  # else the first priced span waits for it
        warming.start()
        stack.callback(warming.join)
        yield stack.enter_context(
            assemble(
                settings,
                catalog,
                reader=store.reader,
                annotations=store.reader,
                annotating=store.annotations,
                deletions=store.deletions,
                transfers=store.transfers,
                writer=store.writer,
                is_writing=lambda: store.writer.is_alive,
                end_reads=store.reader.end_reads,
                prices=prices,
            )
        )


@contextmanager
def assemble(
    settings: Settings,
    catalog: Catalog,
    *,
    reader: TraceReader,
    annotations: AnnotationReader,
    annotating: AnnotationWriter,
    deletions: DeletionStore,
    transfers: TransferStore,
    writer: WriterClient,
    is_writing: Callable[[], bool] = lambda: True,
    end_reads: Callable[[float], None] = lambda grace_s: None,
    prices: PriceBook | None = None,
    clock: Clock | None = None,
    ids: IdSource | None = None,
) -> Iterator[Services]:
    """Services over any store. Threads started here end with the `with` block; the store is the caller's."""
    clock, ids, metrics = clock or SystemClock(), ids or SystemIds(), Metrics()
    gateway = IngestGateway(
        writer, clock, queue_bytes_max=settings.queue_bytes_max, on_commit=metrics.commit_seconds.observe
    )
    records = CatalogRecords(catalog, clock, ids)
    deleter = Deleter(
        deletions,
        records,
        clock,
        ids,
        secret=catalog.tombstone_secret,
        is_ingest_waiting=lambda: gateway.queued_bytes > 0,
        previews_max=settings.plans_open_max,
    )
    reads, deletes = ThreadPool(settings.read_threads, "read"), ThreadPool(DELETE_THREADS, "delete")
    runs, status = ThreadPool(RUN_THREADS, "experiment"), ThreadPool(1, "status")
    _watch(metrics, gateway, annotations, DeletionReport(catalog, records, deleter, clock).read)
    _add_chores(deleter, annotating, catalog, clock, settings.annotation_wait_days)
    holds = Holds(deletions, records, deleter, clock, ids, active_max=settings.holds_active_max)
    moving = _make_transfers(Transfers(transfers, catalog, clock, ids), deleter)
    removal = ProjectRemoval(catalog, deleter, reader, annotating, clock)
    limits, store = ingest_limits(settings), cast(StoreReader, reader)
    items = _make_items(settings, reader, gateway, catalog, clock, ids, prices, reads, deleter)
    parts = Parts(catalog, store, annotations, annotating, gateway, items, deleter, runs, clock, ids, prices, limits)
    runner = _make_runner(parts, settings, metrics)
    events = event_hub(catalog, deleter, clock, status)

    def end(grace_s: float) -> None:
        events.close()
        end_reads(grace_s)

    with ExitStack() as stack:
        for part in (status, reads, runs, gateway, deleter, deletes):
            stack.callback(part.close)
        moving.finish()
        holds.reconcile()
        deleter.resume()
        deleter.start()
        yield Services(
            settings=settings,
            catalog=catalog,
            reader=reader,
            annotations=annotations,
            annotating=annotating,
            transfers=moving,
            gateway=gateway,
            deleter=deleter,
            holds=holds,
            removal=removal,
            items=items,
            runner=runner,
            events=events,
            clock=clock,
            ids=ids,
            metrics=metrics,
            reads=reads,
            deletes=deletes,
            status=status,
            is_writing=is_writing,
            end_reads=end,
            prices=prices,
        )


def _make_items(
    settings: Settings,
    reader: TraceReader,
    gateway: IngestGateway,
    catalog: Catalog,
    clock: Clock,
    ids: IdSource,
    prices: PriceBook | None,
    threads: ThreadPool,
    deleter: Deleter,
) -> Items:
    deleter.redact_with(ItemRedactor(reader, gateway.submit_now, catalog, clock))
    return Items(
        reader,
        gateway,
        catalog,
        clock,
        ids,
        prices,
        threads,
        deleter=deleter,
        limits=ingest_limits(settings),
        attachment_bytes_max=settings.attachment_bytes_max,
    )


def _make_transfers(transfers: Transfers, deleter: Deleter) -> Transfers:
    deleter.settle_links_with(transfers.finish)
    deleter.add_chore(transfers.finish)
    return transfers


def _make_runner(parts: Parts, settings: Settings, metrics: Metrics) -> Runner:
    llm = LlmClient(settings, parts.prices, parts.clock)
    runner = Runner(parts, llm, default_model=settings.llm_model, provider=settings.llm_provider)
    metrics.watch_experiments(runner.figures)
    return runner


def _watch(
    metrics: Metrics, gateway: IngestGateway, annotations: AnnotationReader, deletions: Callable[[], DeletionFigures]
) -> None:
    metrics.watch_queue(lambda: gateway.queued_bytes)
    metrics.watch_annotations(annotations.annotation_figures)
    metrics.watch_deletions(deletions)


def _add_chores(deleter: Deleter, annotating: AnnotationWriter, catalog: Catalog, clock: Clock, wait_days: int) -> None:
    deleter.add_chore(lambda: widen_waiting(annotating, catalog))
    deleter.add_chore(lambda: expire_annotations(annotating, clock, wait_days))


def widen_waiting(annotating: AnnotationWriter, catalog: Catalog) -> None:
    """What waits may be about a trace in a project that was made since."""
    for organisation in catalog.organisations():
        annotating.widen_waiting([project.id for project in catalog.projects(organisation.id)])


def expire_annotations(annotating: AnnotationWriter, clock: Clock, wait_days: int) -> None:
    """Remove the annotations that have waited for their target for too long."""
    before_ns = clock.now_ns() - wait_days * 86_400 * 1_000_000_000
    while annotating.expire_annotations(before_ns) == EXPIRE_MAX:
        pass


def event_hub(catalog: Catalog, deleter: Deleter, clock: Clock, threads: ThreadPool) -> EventHub:
    """Streams of those who watch deletions, over short reads in these threads."""

    def look(deletion_ids: list[str]) -> dict[str, Sight]:
        now_ns = clock.now_ns()
        return {each: sight_of(deleter.status(each), now_ns) for each in deletion_ids}

    return EventHub(
        lambda deletion_ids: threads.run(look, deletion_ids),
        lambda deletion_id, seen: threads.run(moves_after, catalog, deletion_id, seen),
    )
