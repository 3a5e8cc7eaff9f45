"""Event streams without a server: one look for all of them, heartbeats, bounds, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from clearspan.api.native.events import EventHub, Mark, Sight, parse_mark
from clearspan.model.errors import Overloaded

QUICK_S = 0.002


async def valid() -> bool:
    return True


async def revoked() -> bool:
    return False


class World:
    """One deletion, as the hub gets to see it."""

    def __init__(self) -> None:
        self.mark = Mark(1, 0)
        self.has_ended = False
        self.is_broken = False
        self.looks: list[list[str]] = []

    def sight(self) -> Sight:
        return Sight(self.mark, self.has_ended, {"state": "verified" if self.has_ended else "hidden"})

    async def look(self, deletion_ids: list[str]) -> dict[str, Sight]:
        self.looks.append(deletion_ids)
        if self.is_broken:
            raise RuntimeError("the store is busy")
        return {each: self.sight() for each in deletion_ids}

    async def moves(self, deletion_id: str, seen: int) -> list[tuple[int, dict[str, Any]]]:
        return [(number, {"move": number}) for number in range(seen + 1, self.mark.moves + 1)]

    def hub(self, **rest: Any) -> EventHub:
        return EventHub(self.look, self.moves, **{"look_s": QUICK_S, "heartbeat_s": 60.0} | rest)


async def names(stream: AsyncIterator[bytes], count: int | None = None) -> list[str]:
    """`event id` of the next events; comments as `:`, the first line as `retry`."""
    found: list[str] = []
    async for text in stream:
        lines = dict(line.partition(": ")[::2] for line in text.decode().strip().splitlines())
        found.append(" ".join((lines["event"], lines["id"])) if "event" in lines else next(iter(lines)) or ":")
        if len(found) == count:
            break
    return found


def test_each_move_once_then_the_figures_then_the_end() -> None:
    async def story() -> None:
        world = World()
        hub = world.hub()
        stream = hub.stream("d", "k", world.sight(), None, is_valid=valid)
        assert await names(stream, 4) == ["retry", "state 0.0", "state 1.0", "progress 1.0"]
        world.mark = Mark(1, 7)
        assert await names(stream, 1) == ["progress 1.7"]
        world.mark, world.has_ended = Mark(3, 9), True
        assert await names(stream) == ["state 2.0", "state 3.9", "progress 3.9", "end 3.9"]
        assert hub.open_streams == 0

    asyncio.run(story())


def test_who_comes_back_gets_what_was_missed() -> None:
    async def story() -> None:
        world = World()
        world.mark, world.has_ended = Mark(3, 9), True
        stream = world.hub().stream("d", "k", world.sight(), Mark(2, 4), is_valid=valid)
        assert await names(stream) == ["retry", "state 3.9", "progress 3.9", "end 3.9"]

    asyncio.run(story())


def test_a_hundred_watchers_cost_one_look() -> None:
    async def story() -> None:
        world = World()
        hub = world.hub(streams_max=101, key_streams_max=100)
        streams = [hub.stream("d", "k", world.sight(), None, is_valid=valid) for _ in range(100)]
        for stream in streams:
            await names(stream, 4)
        with pytest.raises(Overloaded):
            hub.stream("e", "k", world.sight(), None, is_valid=valid)
        other = hub.stream("e", "other", world.sight(), None, is_valid=valid)
        await names(other, 1)
        with pytest.raises(Overloaded):
            hub.stream("e", "third", world.sight(), None, is_valid=valid)
        await other.aclose()  # type: ignore[attr-defined]
        world.mark, world.has_ended = Mark(2, 0), True
        for stream in streams:
            assert (await names(stream))[-1] == "end 2.0"
        assert all(set(each) <= {"d", "e"} and len(each) <= 2 for each in world.looks)
        hub.stream("e", "k", world.sight(), None, is_valid=valid)  # never begun: it takes no place
        assert hub.open_streams == 0

    asyncio.run(story())


def test_silence_is_filled_and_does_not_last_for_ever() -> None:
    async def story() -> None:
        world = World()
        hub = world.hub(heartbeat_s=QUICK_S)
        assert (await names(hub.stream("d", "k", world.sight(), Mark(1, 0), is_valid=valid), 3)) == ["retry", ":", ":"]
        short = world.hub(heartbeat_s=QUICK_S, lifetime_s=5 * QUICK_S)
        told = await names(short.stream("d", "k", world.sight(), Mark(1, 0), is_valid=valid))
        assert set(told) == {"retry", ":"}

    asyncio.run(story())


def test_a_store_that_cannot_be_read_is_looked_at_again() -> None:
    async def story() -> None:
        world = World()
        world.is_broken = True
        stream = world.hub().stream("d", "k", world.sight(), Mark(1, 0), is_valid=valid)
        assert await names(stream, 1) == ["retry"]
        waiting = asyncio.ensure_future(names(stream, 1))
        while len(world.looks) < 3:
            await asyncio.sleep(QUICK_S)
        world.is_broken, world.mark = False, Mark(2, 0)
        assert await waiting == ["state 2.0"]

    asyncio.run(story())


def test_a_stream_ends_with_its_key() -> None:
    async def story() -> None:
        world = World()
        hub = world.hub(check_s=0.0)
        stream = hub.stream("d", "k", world.sight(), None, is_valid=revoked)
        assert await names(stream) == ["retry"]
        assert hub.open_streams == 0
        again = hub.stream("d", "k", world.sight(), Mark(1, 0), is_valid=valid)
        assert await names(again, 1) == ["retry"]
        world.mark = Mark(2, 0)
        assert await names(again, 1) == ["state 2.0"]

    asyncio.run(story())


def test_closing_ends_every_stream() -> None:
    async def story() -> None:
        world = World()
        hub = world.hub()
        stream = hub.stream("d", "k", world.sight(), None, is_valid=valid)
        await names(stream, 4)
        hub.close()
        assert await names(stream) == []
        with pytest.raises(Overloaded):
            hub.stream("d", "k", world.sight(), None, is_valid=valid)

    asyncio.run(story())


@pytest.mark.parametrize("text", [None, "", "x", "1", "1.", ".1", "1.x", "-1.2", "1.2.3", "١.١", "9" * 10 + ".0"])
def test_an_event_id_that_is_not_ours_means_from_the_beginning(text: str | None) -> None:
    assert parse_mark(text) is None


def test_event_ids_are_read_as_they_were_written() -> None:
    assert parse_mark(Mark(12, 345).render()) == Mark(12, 345)
