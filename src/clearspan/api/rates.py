"""How many requests a minute a key may make; off unless the settings ask for it."""

from __future__ import annotations

from clearspan.api.auth import Permission
from clearspan.model.clock import Clock
from clearspan.model.errors import Overloaded
from clearspan.settings import Settings

KEYS_MAX = 10_000


class RateLimited(Overloaded):
    """This API key makes too many requests."""

    code = "rate_limited"


class RateLimits:
    """A budget for each key and kind of request that fills up evenly over a minute.

    A key that was quiet may spend a whole minute's requests at once.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        reading = settings.rate_limit_read
        self._per_minute = {
            Permission.INGEST: settings.rate_limit_ingest,
            Permission.READ: reading,
            Permission.ANNOTATE: reading,
            Permission.DELETE: settings.rate_limit_delete,
        }
        self._clock = clock
        self._spent: dict[tuple[str, Permission], tuple[float, float]] = {}  # → (requests still counted, when)

    def spend(self, key_id: str, permission: Permission) -> None:
        """Count one request. Raises RateLimited, with the seconds until the next one, when the budget is used up."""
        per_minute = self._per_minute.get(permission)
        if per_minute is None:
            return
        now = self._clock.monotonic_s()
        level, at = self._spent.get((key_id, permission), (0.0, now))
        level = max(0.0, level - (now - at) * per_minute / 60)
        if level + 1 > per_minute:
            wait_s = (level + 1 - per_minute) * 60 / per_minute
            raise RateLimited(retry_after_s=max(1, round(wait_s + 0.5)))
        if len(self._spent) >= KEYS_MAX:
            self._spent.clear()
        self._spent[key_id, permission] = (level + 1, now)
