"""Server-sent events of deletions: who watches costs no thread, and not more for the hundredth watcher of one.

One task looks at every deletion that somebody watches, a few times a second, in one short read in a thread. A stream
gets an event when moves or batches have changed since its last one. Its id is `moves.batches`, so a client that comes
back with `Last-Event-ID` gets every state it has missed (the ledger has them) and then the present figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from clearspan.api.errors import dump_json
from clearspan.model.errors import Overloaded

STREAMS_MAX: Final = 100
KEY_STREAMS_MAX: Final = 25
"""Of one API key, so that no tenant can take them all."""
LOOK_S: Final = 0.2
HEARTBEAT_S: Final = 15.0
LIFETIME_S: Final = 3600.0
"""Then a stream ends and its client comes back: a forgotten one does not stay for ever."""
CHECK_S: Final = 1.0
"""A stream whose key was last looked at before that looks again before it says anything more."""
_RECONNECT_MS: Final = 1000


class Mark(NamedTuple):
    """How far a deletion has come; the id of an event."""

    moves: int
    batches: int

    def render(self) -> str:
        return f"{self.moves}.{self.batches}"


class Sight(NamedTuple):
    """A watched deletion at one moment."""

    mark: Mark
    has_ended: bool
    body: dict[str, Any]  # of a `progress` event


Look = Callable[[list[str]], Awaitable[dict[str, Sight]]]
Moves = Callable[[str, int], Awaitable[list[tuple[int, dict[str, Any]]]]]
IsValid = Callable[[], Awaitable[bool]]


@dataclass(eq=False, slots=True)
class _Stream:
    deletion_id: str
    key_id: str
    is_valid: IsValid
    latest: Sight
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class EventHub:
    """All open streams of a server. Use from the event loop only."""

    def __init__(
        self,
        look: Look,
        moves: Moves,
        *,
        streams_max: int = STREAMS_MAX,
        key_streams_max: int = KEY_STREAMS_MAX,
        look_s: float = LOOK_S,
        heartbeat_s: float = HEARTBEAT_S,
        lifetime_s: float = LIFETIME_S,
        check_s: float = CHECK_S,
    ) -> None:
        """
        Args:
            look: the deletions of these ids as they are now.
            moves: (number of the move, body of its `state` event) for each move of a deletion after a number.
        """
        self._look = look
        self._moves = moves
        self._streams_max = streams_max
        self._key_streams_max = key_streams_max
        self._look_s = look_s
        self._heartbeat_s = heartbeat_s
        self._lifetime_s = lifetime_s
        self._check_s = check_s
        self._streams: set[_Stream] = set()
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def open_streams(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def close(self) -> None:
        """End every stream, so that the server can stop; its clients come back to the next one."""
        self._is_closed = True
        for stream in self._streams:
            stream.changed.set()
        if self._watching is not None:
            self._watching.cancel()

    def stream(
        self, deletion_id: str, key_id: str, now: Sight, seen: Mark | None, *, is_valid: IsValid
    ) -> AsyncIterator[bytes]:
        """The events of a deletion until it ends: text of `text/event-stream`.

        Args:
            key_id: who watches.
            is_valid: whether that key still opens anything; a stream ends with its key.
            seen: the last event that the client has.
        Raises:
            Overloaded: too many streams are open, in all or of this key.
        """
        if self._is_closed or self._is_full(key_id):
            raise Overloaded("Too many event streams are open; ask for the deletion itself instead.", retry_after_s=5)
        return self._events(_Stream(deletion_id, key_id, is_valid, now), seen or Mark(-1, -1))

    def _is_full(self, key_id: str) -> bool:
        of_key = sum(stream.key_id == key_id for stream in self._streams)
        return len(self._streams) >= self._streams_max or of_key >= self._key_streams_max

    async def _events(self, stream: _Stream, seen: Mark) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._lifetime_s
        check_at = loop.time() + self._check_s
        if self._is_full(stream.key_id):
            return  # others were faster; the client comes back
        self._streams.add(stream)  # not before: of a stream that is never begun, nobody would hear the end
        try:
            if self._watching is None or self._watching.done():
                self._watching = loop.create_task(self._watch())
            yield b"retry: %d\n\n" % _RECONNECT_MS
            while not self._is_closed and loop.time() < ends_at:
                if loop.time() >= check_at:
                    if not await stream.is_valid():
                        return
                    check_at = loop.time() + self._check_s
                stream.changed.clear()
                now = stream.latest
                if now.mark != seen:
                    for number, body in await self._moves(stream.deletion_id, seen.moves):
                        yield _event("state", Mark(number, 0 if number < now.mark.moves else now.mark.batches), body)
                    yield _event("progress", now.mark, now.body)
                    seen = now.mark
                if now.has_ended:
                    yield _event("end", now.mark, {"id": stream.deletion_id, "state": now.body["state"]})
                    return
                try:
                    await asyncio.wait_for(stream.changed.wait(), self._heartbeat_s)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._streams.discard(stream)

    async def _watch(self) -> None:
        """Look at what is watched until nothing is."""
        while self._streams and not self._is_closed:
            await asyncio.sleep(self._look_s)
            try:
                found = await self._look(sorted({stream.deletion_id for stream in self._streams}))
            except Exception:  # a store that cannot be read just now: streams keep their heartbeat, and we look again
                continue
            for stream in self._streams:
                sight = found.get(stream.deletion_id)
                if sight is not None and sight.mark != stream.latest.mark:
                    stream.latest = sight
                    stream.changed.set()


def parse_mark(text: str | None) -> Mark | None:
    """`Last-Event-ID`; None for none and for what is not one of ours, which begins anew."""
    moves, _, batches = (text or "").partition(".")
    if not (moves.isascii() and moves.isdigit() and batches.isascii() and batches.isdigit()):
        return None
    if len(moves) > 9 or len(batches) > 12:
        return None
    return Mark(int(moves), int(batches))


def _event(name: str, mark: Mark, body: dict[str, Any]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), mark.render().encode(), dump_json(body))
