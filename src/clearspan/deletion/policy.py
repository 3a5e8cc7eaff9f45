"""How much one key may delete, and what it must say: the blast radius, as a frozen value.

Where it comes from (a key, later a project or a rule) is the caller's matter; guard.py holds requests to it.
"""

from __future__ import annotations

from dataclasses import dataclass

PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits on each single deletion; the default limits nothing."""

    max_traces: int | None = None  # most traces, or annotations, one deletion may match
    max_share_ppm: int | None = None  # most of the visible traces (annotations) in the caller's scope, in millionths
    require_reason: bool = False
    forbid_delete_all: bool = False  # a filter needs a window with two ends, whatever the caller says
    strict_window: bool = False  # a default may not stand in for a start that the caller left out


ANYTHING = Policy()
