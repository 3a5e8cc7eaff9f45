"""Dataset items over both stores: what goes in comes out, and every version is read as of its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from clearspan.catalog import Catalog
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.item_documents import ITEM_ID_KEY
from clearspan.experiments.items import Item, ItemChange, Items, NewAttachment, NewItem
from clearspan.model.errors import Conflict
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Window
from clearspan.query.ast import Condition
from clearspan.query.fields import METADATA
from clearspan.query.operators import Operator
from clearspan.store.memory import MemoryStore
from clearspan.store.port import TraceWriter, WriteOutcome
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import Stores

P = ParamSpec("P")
T = TypeVar("T")

FAST = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


class Straight:
    """A gateway and threads without any of their own."""

    def __init__(self, writer: TraceWriter, clock: FixedClock) -> None:
        self._writer = writer
        self._clock = clock

    async def submit(self, batches: Sequence[TraceBatch]) -> list[WriteOutcome]:
        await asyncio.sleep(0)
        return self._writer.write(batches, received_ns=self._clock.now_ns())

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return work(*args, **kwargs)


class Bench(NamedTuple):
    """Items over a store, and as many empty datasets as a test asks for."""

    items: Items
    catalog: Catalog
    clock: FixedClock
    stores: Stores
    numbers: Iterator[int]

    def dataset(self) -> Dataset:
        return self.catalog.datasets.create(self.catalog.first_org.id, f"d{next(self.numbers)}")

    def add(self, dataset: Dataset, *new: NewItem) -> list[Item]:
        return asyncio.run(self.items.add("key_1", dataset, new))

    def change(self, dataset: Dataset, *changes: ItemChange) -> list[Item]:
        return asyncio.run(self.items.update(dataset, changes))


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    clock, ids = FixedClock(), CountingIds()
    with ExitStack() as stack:
        lay_catalog(tmp_path / "data")
        catalog = stack.enter_context(Catalog.open(tmp_path / "data", clock=clock, ids=ids))
        if request.param == "memory":
            stores = Stores.of_memory(MemoryStore(catalog.tombstone_secret))
        else:
            stores = Stores.of_sqlite(open_local_store(tmp_path / "data", catalog.tombstone_secret))
        stack.callback(stores.close)
        straight = Straight(stores.writer, clock)
        yield Bench(
            Items(stores.reader, straight, catalog, clock, ids, None, straight), catalog, clock, stores, count()
        )


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal kinds: 1, 1.0 and True are three values."""
    return json.dumps(a) == json.dumps(b)


@FAST
@given(VALUES, VALUES, VALUES, OBJECTS, OBJECTS)
def test_any_json_comes_back_as_it_went_in(
    bench: Bench, inputs: Any, outputs: Any, observed: Any, metadata: dict[str, Any], metrics: dict[str, Any]
) -> None:
    dataset = bench.dataset()
    new = NewItem(inputs, outputs, metadata, ("train",), observed=observed, metrics=metrics)
    [added] = bench.add(dataset, new)
    [read] = bench.items.list(dataset).items
    assert read == added
    for found, said in (
        (read.inputs, inputs), (read.outputs, outputs), (read.observed, observed), (read.metadata, metadata),
        (read.metrics, metrics),
    ):  # fmt: skip
        assert same(found, said)


def test_texts_keep_their_digits(bench: Bench) -> None:
    dataset = bench.dataset()
    text = b'{"price":1.10,"long":0.12345678901234567890123,"big":123456789012345678901234567890,"half":"\\ud83d"}'
    bench.add(dataset, NewItem(Raw(text), Raw(b"[1.0, 1e2]"), Raw(b'{"v": 2.50}')))
    [item] = bench.items.list(dataset).items
    assert bytes(item.raw("inputs")) == text.replace(b"\\ud83d", b"\\ufffd")
    assert (bytes(item.raw("outputs")), bytes(item.raw("metadata"))) == (b"[1.0, 1e2]", b'{"v": 2.50}')
    assert bytes(item.raw("observed")) == b"null"
    [changed] = bench.change(dataset, ItemChange(item.id, outputs="x"))
    assert bytes(bench.items.list(dataset).items[0].raw("inputs")) == bytes(item.raw("inputs"))
    assert changed.outputs == "x"


class Said(NamedTuple):
    """An item of the model, as of some time."""

    inputs: Any
    splits: tuple[str, ...]
    metadata: dict[str, Any]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "change", "add", "change", "wait"]),
        st.integers(0, 4),
        st.sampled_from([(), ("train",), ("train", "test"), ("tr",)]),
        st.sampled_from([{}, {"k": 1}, {"k": "a", "deep": {"x": [1, 2]}}]),
    ),
    max_size=10,
)


@settings(FAST, max_examples=8)
@given(STEPS)
def test_every_time_has_its_versions(bench: Bench, steps: list[Any]) -> None:
    """A model of dictionaries beside it: at every moment that was, the items are those of the model then."""
    dataset = bench.dataset()
    model: dict[str, Said] = {}
    history: list[tuple[int, dict[str, Said]]] = []
    for number, (what, which, splits, metadata) in enumerate(steps):
        bench.clock.advance(1.0)
        said = Said({"n": number}, splits, metadata)
        if what == "add":
            [item] = bench.add(dataset, NewItem(said.inputs, None, said.metadata, said.splits))
            model[item.id] = said
        elif what == "change" and model:
            item_id = sorted(model)[which % len(model)]
            bench.change(dataset, ItemChange(item_id, inputs=said.inputs, metadata=said.metadata, splits=said.splits))
            model[item_id] = said
        history.append((bench.clock.now_ns(), dict(model)))
    for at_ns, then in history:
        _compare(bench, dataset, then, at_ns + 999_999_999)
    _compare(bench, dataset, model, None)


def _compare(bench: Bench, dataset: Dataset, then: dict[str, Said], at_ns: int | None) -> None:
    page = bench.items.list(dataset, as_of_ns=at_ns)
    assert {item.id: Said(item.inputs, item.splits, item.metadata) for item in page.items} == then
    assert page.total == len(then) == len(page.items) == bench.items.count(dataset, as_of_ns=at_ns)
    for split in ("train", "tr"):
        listed = bench.items.list(dataset, as_of_ns=at_ns, splits=[split])
        assert {item.id for item in listed.items} == {key for key, said in then.items() if split in said.splits}
    deep = bench.items.list(dataset, as_of_ns=at_ns, metadata={"deep": {"x": [1, 2]}})
    assert {item.id for item in deep.items} == {key for key, said in then.items() if "deep" in said.metadata}
    for key, said in list(then.items())[:1]:
        found = bench.items.find(dataset.org_id, key, as_of_ns=at_ns)
        assert found is not None
        assert (found[0].uuid, found[1].inputs) == (dataset.uuid, said.inputs)


@FAST
@given(st.integers(0, 12), st.integers(0, 14), st.integers(1, 6))
def test_pages_begin_anywhere_and_end(bench: Bench, items: int, offset: int, limit: int) -> None:
    dataset = bench.dataset()
    bench.add(dataset, *(NewItem(number) for number in range(items)))
    page = bench.items.list(dataset, offset=offset, limit=limit)
    assert [item.inputs for item in page.items] == list(range(items))[offset : offset + limit]
    assert page.total == items
    part = bench.items.part(dataset, offset=offset, limit=limit)
    assert (part.items, part.after is None) == (page.items, offset + limit >= items)
    assert len(bench.items.list_ids(dataset, limit=limit)) == min(items, limit)


def test_pages_after_one_another_miss_nothing_when_items_go(bench: Bench) -> None:
    dataset = bench.dataset()
    ids = [each.id for each in bench.add(dataset, *[NewItem({"n": n}) for n in range(7)])]
    first = bench.items.part(dataset, limit=3)
    assert [each.id for each in first.items] == ids[:3]
    scope, gone = bench.items.scope_of(dataset), Condition(METADATA, Operator.IN, tuple(ids[:2]), ITEM_ID_KEY)
    planned = bench.stores.deletions.plan(scope, gone, Window(), received_before_ns=2**62, limit=10)
    bench.stores.deletions.hide("del_1", scope, gone, Window(), planned, b"{}")
    second = bench.items.part(dataset, after=first.after, limit=3)
    assert [each.id for each in second.items] == ids[3:6]
    last = bench.items.part(dataset, after=second.after, limit=3)
    assert ([each.id for each in last.items], last.after) == (ids[6:], None)
    assert [each.id for each in bench.items.part(dataset, offset=2, limit=2).items] == ids[4:6]
    assert bench.items.part(dataset, ids=[], limit=1) == ([], None)


def test_many_metadata_values_do_not_hide_that_a_version_ended(bench: Bench) -> None:
    dataset = bench.dataset()
    many = {f"k{number:03}": number for number in range(200)} | {"dataset_item_id": "mine", "source_run_id": "mine"}
    [item] = bench.add(dataset, NewItem(1, None, many, ("a", "b"), source_run_id="0" * 31 + "7"))
    bench.change(dataset, ItemChange(item.id, inputs=2))
    page = bench.items.list(dataset, metadata={"k003": 3})
    assert [each.inputs for each in page.items] == [2]
    assert page.items[0].metadata == many
    assert page.items[0].source_run_id == "0" * 31 + "7"


def test_changes_at_one_moment_are_versions_one_after_the_other(bench: Bench) -> None:
    dataset = bench.dataset()
    [item] = bench.add(dataset, NewItem(0))

    async def both() -> None:
        await asyncio.gather(*(bench.items.update(dataset, [ItemChange(item.id, inputs=n)]) for n in range(1, 6)))

    asyncio.run(both())
    page = bench.items.list(dataset)
    assert (page.total, len({each.trace_id for each in page.items})) == (1, 1)
    times = [page.items[0].modified_ns - 1000 * back for back in range(6)]
    found = [bench.items.list(dataset, as_of_ns=at).items[0].inputs for at in times]
    assert sorted(found) == [0, 1, 2, 3, 4, 5]


def test_of_two_items_of_one_id_one_is_stored(bench: Bench) -> None:
    dataset, item_id = bench.dataset(), "0" * 31 + "7"

    async def both() -> list[Any]:
        adds = (bench.items.add(None, dataset, [NewItem(n, id=item_id)]) for n in range(2))
        return await asyncio.gather(*adds, return_exceptions=True)

    first, second = asyncio.run(both())
    assert [each.inputs for each in first] == [each.inputs for each in bench.items.list(dataset).items] == [0]
    assert isinstance(second, Conflict)


def test_attachments_stay_with_the_versions(bench: Bench) -> None:
    dataset = bench.dataset()
    files = [NewAttachment("a", "text/plain", b"aa"), NewAttachment("b", "text/plain", b"bb")]
    [item] = bench.add(dataset, NewItem(1, attachments=files))
    assert [each.name for each in bench.items.list(dataset).items[0].attachments] == ["a", "b"]
    bench.change(dataset, ItemChange(item.id, inputs=2))
    change = ItemChange(item.id, kept={"a": "c"}, attachments=[NewAttachment("d", "image/png", b"dd")])
    [changed] = bench.change(dataset, change)
    [read] = bench.items.list(dataset).items
    assert read.attachments == changed.attachments == (("c", "text/plain", 2), ("d", "image/png", 2))
    assert len(bench.items.list(dataset, as_of_ns=changed.modified_ns - 1000).items[0].attachments) == 2
