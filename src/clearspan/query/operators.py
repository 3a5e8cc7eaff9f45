"""Operators: their spellings, which field types take them, and the little functions they rest on.

Meanings, in one place (the SQL compiler and the oracle both keep to them):

    equals, in                      the value is one of the given ones
    not, not_in                     the value is none of the given ones
    lt lte gt gte                   number, money, duration or time against one given value; metadata as text, by
                                    code point
    contains startswith endswith    one given text, case-sensitive
    icontains iexact                one given text; both sides case-folded
    not_contains …                  the value is there and its positive form does not hold
    like                            the whole text is the given one, case-sensitive, where `%` stands for any text;
                                    only in expressions about one span
    is_null / is_not_null           the value is missing / is there
    empty / not_empty               missing or "" / the reverse
    full_text_search                only on `text`: every word of the given text occurs somewhere in the trace,
                                    case-folded

A missing value matches `is_null` and `empty` and nothing else: no negation holds for it.
Metadata: a trace carries a set of values per key (of all its spans). A positive operator holds when it holds for
some of them; its negation when the key is there and the positive form holds for none; `empty` when none of them
is a non-empty text.
Scores: likewise the set of scores of one name, of the trace and of its root span; `empty` is `is_null`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from clearspan.query.fields import FieldType


class Operator(StrEnum):
    """The canonical operators of the syntax tree."""

    EQUALS = "equals"
    NOT = "not"
    IN = "in"
    NOT_IN = "not_in"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    CONTAINS = "contains"
    NOT_CONTAINS = "not_contains"
    ICONTAINS = "icontains"
    STARTSWITH = "startswith"
    NOT_STARTSWITH = "not_startswith"
    ENDSWITH = "endswith"
    NOT_ENDSWITH = "not_endswith"
    IEXACT = "iexact"
    EMPTY = "empty"
    NOT_EMPTY = "not_empty"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"
    FULL_TEXT_SEARCH = "full_text_search"
    LIKE = "like"


NEGATIONS: Mapping[Operator, Operator] = MappingProxyType(
    {
        Operator.NOT: Operator.EQUALS,
        Operator.NOT_IN: Operator.IN,
        Operator.NOT_CONTAINS: Operator.CONTAINS,
        Operator.NOT_STARTSWITH: Operator.STARTSWITH,
        Operator.NOT_ENDSWITH: Operator.ENDSWITH,
    }
)
"""Negation → its positive form."""

EQUALITY = frozenset({Operator.EQUALS, Operator.NOT, Operator.IN, Operator.NOT_IN})
"""The only operators that take several values."""
ORDER = frozenset({Operator.LT, Operator.LTE, Operator.GT, Operator.GTE})
SUBSTRING = frozenset(
    {
        Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.ICONTAINS, Operator.STARTSWITH,
        Operator.NOT_STARTSWITH, Operator.ENDSWITH, Operator.NOT_ENDSWITH,
    }
)  # fmt: skip
PRESENCE = frozenset({Operator.EMPTY, Operator.NOT_EMPTY, Operator.IS_NULL, Operator.IS_NOT_NULL})
"""Tests of whether there is a value at all: they carry none in the tree."""

_TEXT = EQUALITY | SUBSTRING | {Operator.IEXACT} | PRESENCE
_NUMBER = EQUALITY | ORDER | PRESENCE

ALLOWED: Mapping[FieldType, frozenset[Operator]] = MappingProxyType(
    {
        FieldType.TEXT: _TEXT,
        FieldType.ID: _TEXT,
        FieldType.VERSION: _TEXT,
        FieldType.METADATA: _TEXT | ORDER,
        FieldType.INT: _NUMBER,
        FieldType.MONEY: _NUMBER,
        FieldType.DURATION: _NUMBER,
        FieldType.SECONDS: _NUMBER,
        FieldType.SCORE: _NUMBER,
        FieldType.TIME: _NUMBER,
        FieldType.BOOL: EQUALITY | PRESENCE,
        FieldType.SEARCH: frozenset({Operator.CONTAINS, Operator.ICONTAINS, Operator.FULL_TEXT_SEARCH}),
    }
)
"""Which operators a field of each type takes."""

_SPELLINGS: Mapping[str, Operator] = MappingProxyType(
    {operator.value: operator for operator in Operator if operator is not Operator.LIKE}
    | {
        "": Operator.EQUALS,
        "=": Operator.EQUALS,
        "==": Operator.EQUALS,
        "eq": Operator.EQUALS,
        "!=": Operator.NOT,
        "<>": Operator.NOT,
        "ne": Operator.NOT,
        "not_equal": Operator.NOT,
        "not_equals": Operator.NOT,
        "<": Operator.LT,
        "<=": Operator.LTE,
        ">": Operator.GT,
        ">=": Operator.GTE,
        "ilike": Operator.ICONTAINS,
        "is_empty": Operator.EMPTY,
        "isempty": Operator.EMPTY,
        "notempty": Operator.NOT_EMPTY,
        "isnull": Operator.IS_NULL,
    }
)

SPELLINGS_TOLD = (
    "=, not, in, not_in, lt, lte, gt, gte, contains, not_contains, icontains, iexact, startswith, "
    "not_startswith, endswith, not_endswith, empty, not_empty, isnull, full_text_search"
)
"""What an error message offers."""


def parse_operator(word: str | None) -> Operator | None:
    """The operator a caller's word means, whatever its case; None (absent) means equals.

    Returns:
        The operator, or None for a word that means none. `isnull` gives IS_NULL: its value may turn it round.
    """
    return Operator.EQUALS if word is None else _SPELLINGS.get(word.lower())


def casefold(text: str | None) -> str | None:
    """Case-folded text, None for None. The SQL function `casefold` is this one, so that SQL and Python agree.

    Not Unicode-normalised: two spellings of é (one or two code points) stay different.
    """
    return None if text is None else text.casefold()


def like(text: str | None, pattern: str) -> bool | None:
    """Whether a text is of a pattern's form, `%` standing for any text; None for None. Also an SQL function.

    Cost: O(pieces · length): each piece is looked for from where the one before ended.
    """
    if text is None:
        return None
    if "%" not in pattern:
        return text == pattern
    first, *middle, last = pattern.split("%")
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def text_matches(operator: str, needle: str, texts: Sequence[str]) -> bool:
    """Whether the readable texts of one trace satisfy a search: what the SQL function `text_match` must answer.

    Args:
        operator: "contains", "icontains" or "full_text_search".
        needle: as the caller wrote it; `full_text_search` cuts it at white space.
        texts: every input, output, name, log and error text of the trace; a hit never spans two of them.
    """
    if operator == Operator.CONTAINS:
        return any(needle in text for text in texts)
    folded = [text.casefold() for text in texts]
    words = needle.casefold().split() if operator == Operator.FULL_TEXT_SEARCH else [needle.casefold()]
    return all(any(word in text for text in folded) for word in words)
