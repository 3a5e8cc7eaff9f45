"""From what somebody or some model answered to a score of the wanted type, strictly: what does not fit is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from clearspan.experiments.evaluator_config import ScaleConfig, read_passing
from clearspan.experiments.score_types import ScoreType, ScoreValue
from clearspan.query.operators import Operator

TEXT_CHARS_MAX: Final = 100_000
EXPLANATION_CHARS_MAX: Final = 20_000
_PERCENT: Final = (0.0, 100.0)


def score_from(answer: Any, score_type: ScoreType, scale: ScaleConfig, explanation: str | None = None) -> ScoreValue:
    """The score that an answer is.

    Args:
        answer: a decoded JSON value.
        scale: the range and the choices that it must be of.
    Raises:
        ValueError: it does not fit; the text says how, and never repeats the answer.
    """
    told = None if explanation is None else valid(explanation[:EXPLANATION_CHARS_MAX])
    match score_type:
        case ScoreType.NUMERICAL | ScoreType.PERCENTAGE:
            return ScoreValue(_number(answer, score_type, scale), None, None, told, score_type)
        case ScoreType.BOOLEAN:
            if not isinstance(answer, bool):
                raise ValueError("the score must be true or false")
            return ScoreValue(float(answer), None, answer, told, score_type)
        case ScoreType.SINGLE_SELECT | ScoreType.CATEGORICAL:
            label = _choice(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer, scale)
            return ScoreValue(_worth(label, scale), label, None, told, score_type)
        case ScoreType.MULTI_SELECT:
            return ScoreValue(None, None, _several(answer, scale), told, score_type)
        case ScoreType.TEXT | ScoreType.COMMENT:
            if not isinstance(answer, str) or len(answer) > TEXT_CHARS_MAX:
                raise ValueError(f"the score must be a text of at most {TEXT_CHARS_MAX} characters")
            return ScoreValue(None, None, valid(answer), told, score_type)
        case ScoreType.JSON:
            if answer is None:
                raise ValueError("the score must be a JSON value other than null")
            return ScoreValue(None, None, answer, told, score_type)


def range_of(score_type: ScoreType, scale: ScaleConfig) -> tuple[float | None, float | None]:
    """The least and the greatest number that a score may be; None: any."""
    low, high = _PERCENT if score_type is ScoreType.PERCENTAGE else (None, None)
    return (
        low if scale.min_score is None else scale.min_score,
        high if scale.max_score is None else scale.max_score,
    )


def names_of(scale: ScaleConfig) -> list[str]:
    """The choices' names."""
    return [choice.name for choice in scale.choices or ()]


def valid(text: str) -> str:
    """A text that UTF-8 can hold: half a character (a lone surrogate) becomes U+FFFD."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _number(answer: Any, score_type: ScoreType, scale: ScaleConfig) -> float:
    if isinstance(answer, bool) or not isinstance(answer, int | float) or abs(answer) > 1e308:
        raise ValueError("the score must be a number")
    number, (low, high) = float(answer), range_of(score_type, scale)
    if math.isnan(number) or (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"the score must be a number from {_told(low)} to {_told(high)}")
    return number


def _told(bound: float | None) -> str:
    return "any" if bound is None else f"{bound:g}"


def _choice(answer: Any, scale: ScaleConfig) -> str:
    if not isinstance(answer, str) or answer not in names_of(scale):
        raise ValueError("the score must be one of the choices")
    return answer


def _several(answer: Any, scale: ScaleConfig) -> Sequence[str]:
    if not isinstance(answer, list):
        raise ValueError("the score must be a list of choices")
    found = [_choice(each, scale) for each in answer]
    if len(set(found)) != len(found):
        raise ValueError("the score must name each choice once")
    return found


def _worth(label: str, scale: ScaleConfig) -> float | None:
    """The number that a choice stands for; None: none."""
    worth = next(choice.value for choice in scale.choices or () if choice.name == label)
    return None if isinstance(worth, str) or worth is None else float(worth)


def is_passed(conditions: Mapping[str, Any] | None, score: float | None, label: str | None) -> bool | None:
    """Whether a score satisfies passing conditions; None: there are none, or nothing to compare."""
    if not conditions:
        return None
    operator, values = read_passing(conditions)
    said = score if any(isinstance(value, int | float) for value in values) else label
    if said is None:
        return None
    match operator:
        case Operator.EQUALS | Operator.IN:
            return said in values
        case Operator.NOT:
            return said not in values
        case Operator.GT:
            return bool(said > values[0])
        case Operator.GTE:
            return bool(said >= values[0])
        case Operator.LT:
            return bool(said < values[0])
        case _:
            return bool(said <= values[0])
