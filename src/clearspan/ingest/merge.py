"""The merge law: what becomes of two different contents under one span id."""

from __future__ import annotations

from collections.abc import Iterable

from clearspan.model.span import Span


def wins(new: Span, old: Span) -> bool:
    """Whether `new` replaces `old`, both of one span id.

    The larger (end_ns, content_hash) stays: a span that ended later knows more, and the hash decides between
    equals. That is a total order of contents, so merging is commutative, associative and idempotent.
    """
    return (new.end_ns, new.content_hash) > (old.end_ns, old.content_hash)


def merge(spans: Iterable[Span]) -> dict[str, Span]:
    """The content per span id that stays when all of `spans`, some repeated, arrive in any order."""
    kept: dict[str, Span] = {}
    for span in spans:
        old = kept.get(span.span_id)
        if old is None or wins(span, old):
            kept[span.span_id] = span
    return kept
