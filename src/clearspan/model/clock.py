"""Time and identity behind two small protocols, so that tests can own both."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now_ns(self) -> int:
        """Unix time in nanoseconds, UTC. May jump; never use it to measure a duration."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back. For leases, deadlines and durations."""
        ...


class IdSource(Protocol):
    """Where new ids and secrets come from."""

    def token_bytes(self, n: int) -> bytes:
        """`n` random bytes, good enough for secrets."""
        ...

    def new_id(self, prefix: str) -> str:
        """A new opaque id such as `del_3f9c…`: the prefix, an underscore, 32 hex digits."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


class SystemIds:
    """Ids and secrets from the operating system's random source."""

    def token_bytes(self, n: int) -> bytes:
        return os.urandom(n)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{os.urandom(16).hex()}"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def datetime_from_ns(ns: int) -> datetime:
    """Unix nanoseconds → aware UTC datetime, cut to whole microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def ns_from_datetime(at: datetime) -> int:
    """Aware or naive datetime → Unix nanoseconds; a naive one is read as UTC. Exact to the microsecond."""
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    delta = aware - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000
