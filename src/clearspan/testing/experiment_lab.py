"""An experiment laboratory: the runner in one process over the embedded store, with a clock and a stub to hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from clearspan.api.runtime import assemble
from clearspan.api.services import Services
from clearspan.catalog import Catalog
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment, ExperimentDefinition
from clearspan.deletion.request import ByIds, DeletionRequest
from clearspan.experiments.item_documents import Item, NewItem
from clearspan.experiments.result_runs import NEWEST, ResultId
from clearspan.experiments.runner import Progress
from clearspan.ingest.payload import decode_record
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_document import run_values
from clearspan.ingest.run_promotion import REFERENCE_EXAMPLE_KEY
from clearspan.model.trace import Scope, Window
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.settings import Settings
from clearspan.store.port import TraceDetail
from clearspan.testing.llm_stub import LlmStub
from clearspan.testing.local_store import open_local_store

CALL = {"type": "completion", "config": {"model": "gpt-4o-mini", "template": "{{q}}"}}
WAIT = {"type": "wait", "config": {}}
DUPLICATE = {"type": "duplicate", "config": {}}
END_S = 20.0


class Lab:
    """A server's services without the server, and short ways to run an experiment on them."""

    def __init__(self, services: Services, catalog: Catalog) -> None:
        self.services, self.catalog, self.runner = services, catalog, services.runner
        self.org_id = catalog.first_org.id
        self.experiment: Experiment
        self.dataset: Dataset
        self.items: list[Item] = []

    async def prepare(
        self, count: int, *workflow: dict[str, Any], evaluators: tuple[str, ...] = (), **said: Any
    ) -> None:
        """A dataset of items `item-0`, `item-1`, … and a pending experiment on it."""
        self.dataset = self.catalog.datasets.create(self.org_id, "questions")
        new = [
            NewItem({"q": f"say item-{number}"}, f"echo: say item-{number}", {"n": number % 2})
            for number in range(count)
        ]
        self.items = list(await self.services.items.add("key_test", self.dataset, new)) if new else []
        known = {each.slug: each.uuid for each in self.catalog.evaluators.listed(self.org_id)}
        definition = ExperimentDefinition(
            "first", self.dataset.uuid, workflow, self.services.clock.now_ns(),
            evaluator_ids=[known[slug] for slug in evaluators], **said,
        )  # fmt: skip
        self.experiment = self.catalog.experiments.create(self.org_id, definition)

    async def run(self, count: int, *workflow: dict[str, Any], **said: Any) -> None:
        """Prepare, start, and wait for the end."""
        await self.prepare(count, *workflow, **said)
        await self.runner.start(self.experiment)
        await self.ended()

    def read(self) -> Experiment:
        found = self.catalog.experiments.find(self.org_id, self.experiment.public_id)
        assert found is not None
        return found

    async def ended(self) -> Experiment:
        """Wait until nothing is at work."""
        async with asyncio.timeout(END_S):
            while self.runner.figures().at_work:
                await asyncio.sleep(0.005)
        return self.read()

    def evaluator(self, slug: str, kind: str = "exact", score_type: str = "boolean", **config: Any) -> None:
        self.catalog.evaluators.create(
            self.org_id, slug=slug, name=slug, kind=kind, config=config, score_type=score_type
        )

    @property
    def scope(self) -> Scope:
        return Scope((self.experiment.project_id,))

    def progress(self) -> Progress:
        return self.runner.progress(self.read())

    def results(self, *, all_attempts: bool = False) -> dict[str, list[TraceDetail]]:
        """item id → its results."""
        where = None if all_attempts else NEWEST
        rows = self.services.reader.list_traces(self.scope, where, Window(), NEWEST_FIRST, OffsetPage(1, 1000)).rows
        found: dict[str, list[TraceDetail]] = {}
        for row in rows:
            detail = self.services.reader.get_trace(self.scope, row.summary.trace_id)
            assert detail is not None
            item_id = dict(row.summary.metadata)[REFERENCE_EXAMPLE_KEY].replace("-", "")
            found.setdefault(item_id, []).append(detail)
        return found

    def scores(self, detail: TraceDetail) -> dict[str, float | None]:
        rows = self.services.annotations.annotations_of([detail.row.trace_pk]).get(detail.row.trace_pk, [])
        return {row.annotation.name: row.annotation.score for row in rows}

    def trace_of(self, number: int, attempt: int = 1) -> str:
        return ResultId(self.experiment.uuid, self.items[number].id, attempt).trace_id

    def delete(self, project_id: int, *trace_ids: str) -> None:
        request = DeletionRequest(
            org_id=self.org_id, requested_by="key_test", dialect="native", scope=Scope((project_id,)),
            selection=ByIds(tuple(trace_ids)), reach=Scope((self.dataset.project_id, self.experiment.project_id)),
        )  # fmt: skip
        self.services.deleter.delete(request, wait_s=10.0)


def values(detail: TraceDetail, span_id: str | None = None) -> dict[str, Any]:
    """A run of a result as it was stored; the root unless another is named."""
    wanted = span_id or detail.row.summary.trace_id
    (record,) = [each.record for each in detail.spans if each.span.span_id == wanted]
    return run_values(decode_record(record).raw)


@contextmanager
def open_lab(data: Path, stub: LlmStub | None = None) -> Iterator[Lab]:
    data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        catalog = stack.enter_context(Catalog.open(data))
        opened = open_local_store(data, catalog.tombstone_secret)
        stack.callback(opened.close)
        settings = Settings(
            data=data,
            reserve_bytes=0,
            llm_base_url=None if stub is None else stub.url,
            llm_api_key=None if stub is None else SecretStr("sk-test"),
            llm_allow_private=True,
            llm_retries_max=0,
        )
        services = stack.enter_context(
            assemble(
                settings,
                catalog,
                reader=opened.reader,
                annotations=opened.reader,
                annotating=opened.annotations,
                deletions=opened.deletions,
                transfers=opened.transfers,
                writer=opened.writer,
                prices=PriceBook(),
            )
        )
        yield Lab(services, catalog)


def in_lab(data: Path, stub: LlmStub | None, story: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    """Tell a story on the services, and close the runner as the server does."""

    async def told(lab: Lab) -> None:
        try:
            await story(lab)
        finally:
            await lab.runner.close()

    if stub is not None:
        stub.heal()
    with open_lab(data, stub) as lab:
        asyncio.run(told(lab))
