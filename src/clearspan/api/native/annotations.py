"""The part of a native body that selects annotations by themselves: {"annotations": {"name": "quality", …}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from clearspan.deletion.annotations import WORDS, query_of
from clearspan.deletion.request import ByAnnotations
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.errors import InvalidInput
from clearspan.model.ids import normalise_id

VALUES_MAX: Final = 10_000
_VALUE_CHARS_MAX: Final = 1_000
_CLOSED: Final[Mapping[str, tuple[str, ...]]] = {
    "target": tuple(each.value for each in AnnotationTarget),
    "annotator_kind": tuple(each.value for each in AnnotatorKind),
}
_KEY: Final = "annotations"


def parse_annotations(given: object) -> ByAnnotations:
    """Conditions that must all hold; each value is a text, or a list of which one must fit.

    Raises:
        InvalidInput: an unknown word, a wrong type, an empty list, or a value that the word does not know.
    """
    if not isinstance(given, dict):
        raise InvalidInput("annotations must be an object; nothing was done.", fields=(_KEY,))
    for word in given:
        if word not in WORDS:
            raise InvalidInput(
                f"{word} is no condition of annotations (known: {', '.join(WORDS)}); nothing was done.", fields=(_KEY,)
            )
    return ByAnnotations(query_of({word: _values(word, value) for word, value in given.items() if value is not None}))


def _values(word: str, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(each, str) for each in values):
        raise _refusal(word, "must be a text, or a list of texts, not empty")
    if len(values) > VALUES_MAX or any(len(each) > _VALUE_CHARS_MAX for each in values):
        raise _refusal(word, f"may have at most {VALUES_MAX:,} values of {_VALUE_CHARS_MAX:,} characters")
    known = _CLOSED.get(word)
    for each in values:
        if known is not None and each not in known:
            raise _refusal(word, f"must be one of {', '.join(known)}")
    if word != "ids":
        return list(dict.fromkeys(values))
    try:
        return list(dict.fromkeys(normalise_id(each) for each in values))
    except ValueError as error:
        raise _refusal(word, f"holds what is not an id: {error}") from None


def _refusal(word: str, said: str) -> InvalidInput:
    return InvalidInput(f"annotations.{word} {said}; nothing was done.", fields=(_KEY,))
