"""What a check found: named points, each held or not, each with a sentence for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from clearspan.model.errors import InvalidProof


class Check(NamedTuple):
    """One point of a check."""

    name: str  # stable, snake_case
    ok: bool
    said: str  # what holds, or what does not


class Findings:
    """The points of one check, in order."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.payload: dict[str, Any] | None = None
        """What the checked text says; None when its signature or form is wrong, for then it says nothing."""
        self.key_id: str | None = None
        """Which key signed it."""

    @property
    def ok(self) -> bool:
        """Whether something was checked and all of it holds."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def note(self, name: str, ok: bool, held: str, failed: str) -> bool:
        """Add a point with the sentence that fits; `ok` itself."""
        self.checks.append(Check(name, ok, held if ok else failed))
        return ok

    def attempt(self, name: str, held: str, check: Callable[[], Any]) -> Any:
        """Add a point that holds unless `check` raises InvalidProof; what it returned, else None."""
        try:
            found = check()
        except InvalidProof as error:
            self.checks.append(Check(name, False, error.message))
            return None
        self.checks.append(Check(name, True, held))
        return found

    def first_failure(self) -> Check | None:
        """The first point that does not hold."""
        return next((check for check in self.checks if not check.ok), None)
