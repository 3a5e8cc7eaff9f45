"""What a canary is: a read route, and the questions that would make it show a needle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from clearspan.testing.wire import Wire

from .planting import Planted, named_in


class Question(NamedTuple):
    """One request that may show something."""

    query: str = ""
    body: Any = None
    path: Mapping[str, str] = {}  # path parameters

    def words(self) -> set[str]:
        """What the question itself names: an answer that repeats it shows nothing."""
        text = f"{self.query} {self.body} {self.path}"
        return named_in(text)


class Canary(NamedTuple):
    """How a route is asked.

    Attributes:
        questions: every way in which it might show a needle.
        shows: whether it shows what is visible, so that asking before the deletion must find something.
        counts: numbers of its answer that count traces, by path: they must be 0 afterwards.
        lasts: it answers until the deletion is over, so it is asked beside the others.
    """

    questions: Callable[[Wire, Planted], Iterable[Question]]
    shows: bool = True
    counts: tuple[str, ...] = ()
    lasts: bool = False


def default_session(wire: Wire) -> str:
    default = wire.catalog.find_project(wire.catalog.first_org.id, "default")
    assert default is not None
    return default.uuid
