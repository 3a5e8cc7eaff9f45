"""What the endpoints work with, in one frozen value that the app carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from clearspan.api.gateway import IngestGateway, ThreadPool
from clearspan.api.metrics import Metrics
from clearspan.api.native.events import EventHub
from clearspan.catalog import Catalog
from clearspan.deletion.execute import Deleter
from clearspan.deletion.holds import Holds
from clearspan.deletion.projects import ProjectRemoval
from clearspan.deletion.transfers import Transfers
from clearspan.experiments.items import Items
from clearspan.experiments.runner import Runner
from clearspan.ingest.pricing import PriceBook
from clearspan.model.clock import Clock, IdSource
from clearspan.settings import Settings
from clearspan.store.annotations import AnnotationReader, AnnotationWriter
from clearspan.store.port import TraceReader


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that endpoints share.

    Attributes:
        reads: threads for the store's reader and the catalog, each with a connection of its own.
        deletes: threads that wait for deletions; apart from the readers', which they would block for seconds.
        status: one thread for readiness and figures, which must answer while every reader is busy.
        is_writing: whether the writer can take batches now.
        items: what datasets hold.
        runner: runs experiments; belongs to the event loop of the server.
        events: streams of those who watch deletions.
        end_reads: ends the event streams, and the reads that still run after so many seconds.
        prices: what a model call costs; None: costs are what the sources say.
    """

    settings: Settings
    catalog: Catalog
    reader: TraceReader
    annotations: AnnotationReader
    annotating: AnnotationWriter
    transfers: Transfers
    gateway: IngestGateway
    deleter: Deleter
    holds: Holds
    removal: ProjectRemoval
    items: Items
    runner: Runner
    events: EventHub
    clock: Clock
    ids: IdSource
    metrics: Metrics
    reads: ThreadPool
    deletes: ThreadPool
    status: ThreadPool
    is_writing: Callable[[], bool]
    end_reads: Callable[[float], None]
    prices: PriceBook | None = None


def services_of(connection: HTTPConnection) -> Services:
    """The services of the app that handles a request."""
    services = connection.app.state.services
    assert isinstance(services, Services)
    return services
