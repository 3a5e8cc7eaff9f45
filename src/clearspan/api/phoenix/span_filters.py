"""What a list of spans asks for: conditions for the store, and what only a span's record tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clearspan.api.phoenix.conventions import Refused
from clearspan.api.phoenix.span_views import KINDS, SpanView
from clearspan.ingest import openinference
from clearspan.model.ids import normalise_id
from clearspan.query.ast import Expr, Group
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition

Accepts = Callable[[SpanView], bool]

STATUS_WORDS: Final = ("OK", "ERROR", "UNSET")
ROOTS: Final = "null"
"""The `parent_id` of spans without one."""
_KINDS_OF: Final = {
    word: sorted(kind for kind, told in openinference.KINDS.items() if told == word)
    for word in set(openinference.KINDS.values())
}


@dataclass(frozen=True, slots=True)
class SpanFilter:
    """Conditions that all must hold.

    Attributes:
        where: what the store checks; None: nothing.
        rest: what is left to check with the record.
        is_empty: no span can match.
    """

    where: Expr | None = None
    rest: tuple[Accepts, ...] = ()
    is_empty: bool = False

    def accepts(self, view: SpanView) -> bool:
        """Whether a span that the store found matches."""
        return all(each(view) for each in self.rest)


class FilterBuilder:
    """Collects conditions."""

    def __init__(self) -> None:
        self._parts: list[Expr] = []
        self._rest: list[Accepts] = []
        self._is_empty = False

    def finish(self) -> SpanFilter:
        """Everything that was added."""
        where = None if not self._parts else self._parts[0] if len(self._parts) == 1 else Group("AND", (*self._parts,))
        return SpanFilter(where, tuple(self._rest), self._is_empty)

    def add(self, where: Expr | None = None, rest: Accepts | None = None) -> None:
        """A condition for the store, one for the record, or both: then both must hold."""
        if where is not None:
            self._parts.append(where)
        if rest is not None:
            self._rest.append(rest)

    def nothing(self) -> None:
        """No span can match."""
        self._is_empty = True

    def ids(self, field: str, given: Sequence[str]) -> None:
        """One of these ids, spelled exactly as they are stored."""
        exact = [each for each in given if _is_exact(each)]
        if given and not exact:
            self._is_empty = True
        elif exact:
            self._parts.append(condition(field, Operator.IN, exact))

    def parent(self, given: str | None) -> None:
        """Spans under that parent; ROOTS: under none."""
        if given == ROOTS:
            self._parts.append(condition("span_parent_id", Operator.IS_NULL))
        elif given is not None:
            self.ids("span_parent_id", [given])

    def names(self, given: Sequence[str]) -> None:
        """One of these names."""
        if given:
            self._parts.append(condition("span_name", Operator.IN, given))

    def kinds(self, given: Sequence[str]) -> None:
        """One of these kinds of OpenInference. Raises Refused for a word that is none."""
        if not given:
            return
        wanted = _words("span_kind", given, KINDS)
        stored = [kind for word in wanted for kind in _KINDS_OF.get(word, ())]
        # A span that says UNKNOWN, or a word that we do not know, may be stored as any kind.
        is_known = all(word in _KINDS_OF for word in wanted)
        self.add(
            condition("log_type", Operator.IN, stored) if is_known else None, lambda view: view.kind_asked in wanted
        )

    def status_codes(self, given: Sequence[str]) -> None:
        """One of these status codes. Raises Refused for a word that is none."""
        if not given:
            return
        wanted = _words("status_code", given, STATUS_WORDS)
        if wanted == {"ERROR"}:
            self._parts.append(condition("status", Operator.EQUALS, ["error"]))
        else:
            self.add(rest=lambda view: view.status_code in wanted)

    def attributes(self, given: Sequence[str]) -> None:
        """All of these `key:value`. Raises Refused for what is none."""
        for each in given:
            key, value = parse_attribute(each)
            self.add(rest=_has(key, value))


def condition(field: str, operator: Operator, values: Sequence[object] = ()) -> Expr:
    """A condition about a span, from values that were checked already."""
    return make_condition(field, field_named(field), operator, values)


def parse_attribute(text: str) -> tuple[str, str | int | float | bool]:
    """(key, value) of `dotted.key:value`. Raises Refused (422)."""
    key, colon, value = text.partition(":")
    if not colon:
        raise Refused(422, f"Invalid attribute '{text}': expected format 'key:value'")
    if not key or not value:
        raise Refused(422, f"Invalid attribute: {'value' if key else 'key'} must not be empty")
    try:
        parsed: Any = json.loads(value)
    except (ValueError, RecursionError):
        parsed = value
    if not isinstance(parsed, bool | int | float | str):
        message = (
            f"Invalid attribute value '{value}': must be a string, integer, float, or boolean. To match a string that "
            'looks like a number or boolean, JSON-quote the value: `key:"12345"`.'
        )
        raise Refused(422, message)
    return key, parsed


def _has(key: str, wanted: str | int | float | bool) -> Accepts:
    def holds(view: SpanView) -> bool:
        held = view.told.attributes.get(key)
        if isinstance(wanted, str | bool):
            return type(held) is type(wanted) and held == wanted
        return isinstance(held, int | float) and not isinstance(held, bool) and held == wanted

    return holds


def _words(name: str, given: Sequence[str], known: Sequence[str]) -> frozenset[str]:
    upper = [each.upper() for each in given]
    unknown = [each for each in upper if each not in known]
    if unknown:
        raise Refused(422, f"Invalid {name} values: {unknown}")
    return frozenset(upper)


def _is_exact(text: str) -> bool:
    try:
        return normalise_id(text) == text
    except ValueError:
        return False
