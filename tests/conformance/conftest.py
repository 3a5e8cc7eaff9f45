"""One suite, every store. A new store is one more line in FACTORIES."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearspan.store.memory import MemoryStore
from clearspan.testing.local_store import open_local_store
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores


def make_memory_store(_: Path) -> Stores:
    store = MemoryStore(TOMBSTONE_SECRET)
    return Stores.of_memory(store)


def make_sqlite_store(folder: Path) -> Stores:
    store = open_local_store(folder, TOMBSTONE_SECRET)
    return Stores.of_sqlite(store)


def make_staging_store(folder: Path) -> Stores:
    """The same store, with every hide in many short transactions, as large ones are."""
    store = open_local_store(folder, TOMBSTONE_SECRET)
    store.deletions.direct_max = 0
    return Stores.of_sqlite(store)


FACTORIES: dict[str, Callable[[Path], Stores]] = {
    "memory": make_memory_store,
    "sqlite": make_sqlite_store,
    "sqlite, staged": make_staging_store,
}


@pytest.fixture(params=sorted(FACTORIES))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """An empty store."""
    made = FACTORIES[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture(params=sorted(FACTORIES))
def make_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Stores]]:
    """As many empty stores as a test asks for."""
    made: list[Stores] = []

    def make() -> Stores:
        data = tmp_path / str(len(made))
        data.mkdir()
        made.append(FACTORIES[request.param](data))
        return made[-1]

    yield make
    for each in made:
        each.close()
