"""What one request may hold. Past a limit of the body the request is refused, past one of a span that span
is."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Bounds on what is decoded; each error names the bound it met. Defaults are those of settings.py.

    Nesting of attribute values is bounded as well: protobuf's own recursion limit ends at about 48 levels of
    arrays, and JSON is held to `depth`.
    """

    body_bytes: int = 64 * MIB  # after unpacking
    ratio: int = 250  # unpacked : packed, looked at once more than `ratio_floor_bytes` have come out
    ratio_floor_bytes: int = 1 * MIB  # below it a high ratio is harmless: one long padded string does it
    depth: int = 48
    groups: int = 10_000  # resources and scopes; real senders have one of each, collectors hundreds
    attributes_per_span: int = 10_000
    attribute_bytes: int = 8 * MIB
    events_per_span: int = 10_000
    reasons: int = 5  # how many rejections are told in words


DEFAULT_LIMITS = IngestLimits()
