"""The time window of a Respan request: `start_time`, `end_time`, and the hour that stands in for a missing start."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from clearspan.model.clock import ns_from_datetime
from clearspan.model.errors import InvalidTime
from clearspan.model.trace import Window

DEFAULT_WINDOW_NS = 3600 * 1_000_000_000
HEADER = "Clearspan-Effective-Window"

_NS_MAX = 2**63 - 1
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
_FORM = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,](\d{1,9}))?\s*(Z|z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)


class EffectiveWindow(NamedTuple):
    """The window a request is really answered for."""

    window: Window
    is_default: bool  # the start was not said: the hour before the end

    def header(self) -> str:
        """The value of the `Clearspan-Effective-Window` header: `start/end; source=default|request`."""
        source = "default" if self.is_default else "request"
        return f"{render_time(self.window.start_ns) or '..'}/{render_time(self.window.end_ns) or '..'}; source={source}"

    def sentence(self) -> str:
        """The same for people."""
        start, end = render_time(self.window.start_ns), render_time(self.window.end_ns)
        if self.is_default:
            return f"No start_time was given, so only traces that started from {start} to {end} were considered."
        if start is None and end is None:
            return "All times were considered."
        return f"Only traces that started from {start or 'the beginning'} to {end or 'now'} were considered."


def parse_time(text: str, key: str) -> int:
    """ISO 8601 text → Unix nanoseconds.

    Accepts a date alone (its midnight), seconds or minutes, up to nine digits of fraction, `Z` or an offset; without
    either it is UTC. A `+` that arrived unescaped in a query string, and so became a blank, is read as the `+`.

    Raises:
        InvalidTime: anything else, naming `key`.
    """
    match = _FORM.fullmatch(_restore_plus(text.strip()))
    if match is None:
        raise _unreadable(key)
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        at = datetime.fromisoformat(f"{date}T{clock or '00:00'}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise _unreadable(key) from None
    ns = ns_from_datetime(at) + int((fraction or "").ljust(9, "0"))
    if not -_NS_MAX <= ns <= _NS_MAX:
        raise _unreadable(key)
    return ns


def _restore_plus(text: str) -> str:
    return re.sub(r"(?<=\d) (\d{2}:?\d{2})$", r"+\1", text) if text.count(":") > 1 else text


def _unreadable(key: str) -> InvalidTime:
    return InvalidTime(f"{key} must be an ISO 8601 date or time, such as 2026-01-31T23:59:59Z.", fields=(key,))


def render_time(ns: int | None) -> str | None:
    """Unix nanoseconds → `2026-01-31T23:59:59.123456Z`, cut to microseconds; None stays None."""
    if ns is None:
        return None
    seconds, micros = divmod(ns // 1000, 1_000_000)
    return f"{_to_the_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    """Most of the 2,000 times in a trace of 1,000 spans lie in a few seconds."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def default_window(start_time: str | None, end_time: str | None, now_ns: int) -> EffectiveWindow:
    """The window of a list or a bulk delete: the end defaults to now, the start to an hour before the end.

    Raises:
        InvalidTime: a time that cannot be read, or an end before the start.
    """
    end_ns = parse_time(end_time, "end_time") if end_time else now_ns
    start_ns = parse_time(start_time, "start_time") if start_time else max(end_ns - DEFAULT_WINDOW_NS, -_NS_MAX)
    return EffectiveWindow(_ordered(start_ns, end_ns), is_default=not start_time)


def open_window(start_time: str | None, end_time: str | None) -> EffectiveWindow:
    """The window of a delete by id: a bound that is not said is open.

    Raises:
        InvalidTime: as `default_window`.
    """
    start_ns = parse_time(start_time, "start_time") if start_time else None
    end_ns = parse_time(end_time, "end_time") if end_time else None
    return EffectiveWindow(_ordered(start_ns, end_ns), is_default=False)


def _ordered(start_ns: int | None, end_ns: int | None) -> Window:
    if start_ns is not None and end_ns is not None and end_ns < start_ns:
        raise InvalidTime("end_time must not be before start_time.", fields=("end_time",))
    return Window(start_ns, end_ns)
