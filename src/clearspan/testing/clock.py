"""A clock and an id source that tests own: same run, same times, same ids."""

from __future__ import annotations

import hashlib
import threading

DEFAULT_NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


class FixedClock:
    """Stands still until `advance` moves it. A clock of its own for each test."""

    def __init__(self, now_ns: int = DEFAULT_NOW_NS) -> None:
        self._now_ns = now_ns
        self._monotonic_s = 0.0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        self._now_ns += round(seconds * 1e9)
        self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock off by `seconds` (either way) as an administrator or NTP would; time itself does not."""
        self._now_ns += round(seconds * 1e9)


class CountingIds:
    """Ids `del_000…01`, `del_000…02`; secrets that are the same in every run. Safe to share between threads."""

    def __init__(self, seed: bytes = b"") -> None:
        self._seed = seed
        self._count = 0
        self._lock = threading.Lock()

    def _next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def token_bytes(self, n: int) -> bytes:
        return hashlib.shake_256(self._seed + self._next().to_bytes(8, "big")).digest(n)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{self._next():032x}"
