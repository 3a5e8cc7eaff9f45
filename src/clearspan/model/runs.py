"""Run ids: the UUID by which LangSmith's clients name a span, whatever dialect the span came by.

A span whose own id is 32 hex digits, as every LangSmith run's, is named by it. The other ids are worked out, and can
be turned back into a place to look without a table of their own (docs/adr/0018-run-ids-that-turn-back.md):

- the root of a trace: the trace id, if that is 32 hex digits;
- any other span of 16 hex digits in such a trace: a UUIDv8 of the 64 bits of its id and the first 58 of the trace id;
- everything else: the UUIDv5 of both ids. It says nothing, so whoever looks for it has to compare.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Final, NamedTuple

_HEX32: Final = re.compile(r"[0-9a-f]{32}")
_HEX16: Final = re.compile(r"[0-9a-f]{16}")
_NAMESPACE: Final = uuid.UUID("6d1c7f0e-5a3b-5c7e-9a54-c1ea45bac0de")
_TRACE_BITS: Final = 58  # of the 122 that a UUIDv8 leaves free, after the 64 of the span id
_LOW_BITS: Final = 62  # below version and variant
_LOW: Final = (1 << _LOW_BITS) - 1


class Derived(NamedTuple):
    """What a UUIDv8 of ours says: a span, and between which trace ids its trace lies (both included)."""

    span_id: str
    trace_id_min: str
    trace_id_max: str


def is_run_id(span_id: str) -> bool:
    """Whether a span's own id (normal form) is its run id, too."""
    return _HEX32.fullmatch(span_id) is not None


def is_otlp_id(span_id: str) -> bool:
    """Whether an id (normal form) is a span id as OTLP has them: 16 hex digits, unique by chance beyond its trace."""
    return _HEX16.fullmatch(span_id) is not None


def run_id_of(trace_id: str, span_id: str, is_root: bool) -> str:
    """The run id of a span: 32 hex digits.

    Args:
        trace_id, span_id: in normal form (model.ids).
        is_root: whether it is the root of its trace, as the summary tells. A later root takes the trace's id over.
    """
    if _HEX32.fullmatch(span_id):
        return span_id
    if _HEX32.fullmatch(trace_id):
        if is_root:
            return trace_id
        if _HEX16.fullmatch(span_id):
            return _pack(int(span_id, 16), int(trace_id, 16) >> (128 - _TRACE_BITS))
    return uuid.uuid5(_NAMESPACE, f"{trace_id}\0{span_id}").hex  # no id holds a control character


def run_ids_of_trace(trace_id: str, span_ids: Iterable[str], root_span_id: str | None) -> set[str]:
    """The run ids of a trace's spans; a trace id of 32 hex digits is one of them, even if its root has not come."""
    found = {run_id_of(trace_id, span_id, span_id == root_span_id) for span_id in span_ids}
    return found | {trace_id} if _HEX32.fullmatch(trace_id) else found


def spellings_of(run_id: str) -> tuple[str, ...]:
    """How a run id of 32 hex digits stands in metadata: as it is, as the UUID with dashes that SDKs write, and both in
    capitals."""
    dashed = f"{run_id[:8]}-{run_id[8:12]}-{run_id[12:16]}-{run_id[16:20]}-{run_id[20:]}"
    return run_id, dashed, run_id.upper(), dashed.upper()


def run_id_spelt(text: str) -> str | None:
    """The run id of which a text is one of the spellings; None: of none."""
    run_id = text.replace("-", "").lower()
    return run_id if _HEX32.fullmatch(run_id) and text in spellings_of(run_id) else None


def derived_from(run_id: str) -> Derived | None:
    """The place that a run id of 32 hex digits was worked out from, if it is a UUIDv8. It may be somebody else's: what
    is found there must be compared by `run_id_of`."""
    number = int(run_id, 16)
    if (number >> 76) & 0xF != 8 or (number >> _LOW_BITS) & 0b11 != 0b10:
        return None
    content = (number >> 80) << 74 | ((number >> 64) & 0xFFF) << _LOW_BITS | (number & _LOW)
    rest = 128 - _TRACE_BITS
    first = (content & ((1 << _TRACE_BITS) - 1)) << rest
    return Derived(f"{content >> _TRACE_BITS:016x}", f"{first:032x}", f"{first | ((1 << rest) - 1):032x}")


def may_be_hashed(run_id: str) -> bool:
    """Whether a run id of 32 hex digits may be a UUIDv5 of ours, which only comparing finds."""
    number = int(run_id, 16)
    return (number >> 76) & 0xF == 5 and (number >> _LOW_BITS) & 0b11 == 0b10


def is_hashed(trace_id: str, span_id: str, is_root: bool) -> bool:
    """Whether the run id of a span is a UUIDv5: neither of its ids can be read out of it."""
    if _HEX32.fullmatch(span_id):
        return False
    return not (_HEX32.fullmatch(trace_id) and (is_root or _HEX16.fullmatch(span_id)))


def _pack(span: int, trace_head: int) -> str:
    """A UUIDv8 of 64 and 58 bits (RFC 9562, 5.8)."""
    content = span << _TRACE_BITS | trace_head
    high, middle, low = content >> 74, (content >> _LOW_BITS) & 0xFFF, content & _LOW
    return f"{high << 80 | 8 << 76 | middle << 64 | 0b10 << _LOW_BITS | low:032x}"
