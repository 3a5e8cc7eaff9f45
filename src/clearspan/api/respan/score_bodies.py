"""Scores in Respan's words: bodies read against their evaluator, annotations shown. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from clearspan.api.respan.convert import Json
from clearspan.api.respan.evaluator_bodies import render_evaluator, type_of
from clearspan.api.respan.experiments.finding import Evaluators
from clearspan.api.respan.experiments.views import render_score
from clearspan.api.respan.window import render_time
from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.definitions import uuid_text
from clearspan.experiments.evaluator_config import CONFIGS, Kind, ScaleConfig, read_config
from clearspan.experiments.results import score_of
from clearspan.experiments.score_types import ScoreType, ScoreValue
from clearspan.experiments.score_values import is_passed, score_from
from clearspan.experiments.scoring import COST
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.errors import InvalidInput
from clearspan.store.annotations import AnnotationRow

SCORER_CHARS_MAX: Final = 200
_VALUE: Final = {
    ScoreType.NUMERICAL: "numerical_value",
    ScoreType.PERCENTAGE: "numerical_value",
    ScoreType.BOOLEAN: "boolean_value",
    ScoreType.SINGLE_SELECT: "categorical_value",
    ScoreType.MULTI_SELECT: "categorical_value",
    ScoreType.CATEGORICAL: "categorical_value",
    ScoreType.TEXT: "string_value",
    ScoreType.COMMENT: "string_value",
    ScoreType.JSON: "json_value",
}
VALUES: Final = frozenset(_VALUE.values())
_IGNORED: Final = frozenset(
    {"timestamp", "environment", "prompt_id", "prompt_version_number", "dataset_id", "automation_id"}
)
"""What the store knows itself: it finds the trace by its id, and the trace has the rest."""
_KNOWN: Final = VALUES | _IGNORED | {"evaluator_id", "evaluator_slug", "log_id", "scorer", "explanation"}
_KINDS: Final = {AnnotatorKind.LLM: "llm", AnnotatorKind.HUMAN: "human", AnnotatorKind.CODE: "code"}
_HEX_CHARS: Final = 32


class SaidOfScore(NamedTuple):
    """What a body says beside the value."""

    evaluator: str | None  # id or slug
    log_id: str | None
    scorer: str | None


def read_names(body: Json) -> SaidOfScore:
    """Whose score it is, of what. Raises InvalidInput, also for members that are not known."""
    if unknown := set(body) - _KNOWN:
        raise InvalidInput(f"{min(unknown)[:100]} is not a member of a score.", fields=(min(unknown),))
    texts = {name: _text(body, name) for name in ("evaluator_id", "evaluator_slug", "log_id", "scorer")}
    if len(texts["scorer"] or "") > SCORER_CHARS_MAX:
        raise InvalidInput(f"scorer has at most {SCORER_CHARS_MAX} characters.", fields=("scorer",))
    return SaidOfScore(texts["evaluator_id"] or texts["evaluator_slug"], texts["log_id"], texts["scorer"])


def read_value(body: Json, evaluator: Evaluator) -> ScoreValue:
    """The score in a body, of the type that its evaluator gives. `string_value` beside another value explains it.

    Raises:
        InvalidInput: the value is missing, of another type, or out of its range.
    """
    score_type = ScoreType(evaluator.score_type)
    wanted = _VALUE[score_type]
    given = {name: body[name] for name in VALUES if body.get(name) is not None}
    others = sorted(set(given) - {wanted, "string_value"})
    if wanted not in given or others:
        told = f"A score of {evaluator.slug} is {score_type}: {wanted} is required"
        raise InvalidInput(f"{told}{', and no other value' if others else ''}.", fields=(*others, wanted)[:1])
    explanation = _text(body, "explanation") or (_text(given, "string_value") if wanted != "string_value" else None)
    answer = given[wanted]
    if score_type is ScoreType.JSON:
        answer = _json_of(answer)
    if wanted == "categorical_value" and isinstance(answer, str):
        answer = [answer]
    try:
        return score_from(answer, score_type, _scale(evaluator), explanation)
    except ValueError as error:
        text = str(error).replace("the score", wanted, 1)
        raise InvalidInput(f"{text[0].upper()}{text[1:]}.", fields=(wanted,)) from None


def has_value(body: Json) -> bool:
    """Whether a body says a value at all."""
    return any(body.get(name) is not None for name in VALUES)


def render_row(row: AnnotationRow, evaluators: Evaluators, *, is_whole: bool = False) -> Json:
    """A score as clients know it.

    Args:
        is_whole: with its evaluator.
    """
    said, score = row.annotation, score_of(row)
    evaluator = evaluators.of_score(score.name, score.evaluator_id)
    values = render_score(score, evaluator)
    told = {name: values[name] for name in (*sorted(VALUES), "evaluator_id", "evaluator_slug", "evaluator_name")}
    of_trace = said.target is AnnotationTarget.TRACE
    conditions = None if evaluator is None else evaluator.config.get("passing_conditions")
    more: Json = {"inputs": None, "evaluator": None if evaluator is None else render_evaluator(evaluator)}
    return {
        "id": shown_id(said.annotation_id),
        "created_at": render_time(said.created_ns),
        "updated_at": render_time(said.updated_ns),
        "type": _KINDS[said.kind] if evaluator is None else type_of(Kind(evaluator.kind)),
        "environment": None,
        **told,
        "score_value_type": values["score_value_type"],
        "is_passed": is_passed(conditions, score.score, score.label),
        "cost": _cost(said.metadata),
        "scorer": said.identifier or None,
        "log_id": said.trace_id if of_trace else said.span_id,
        "trace_unique_id": said.trace_id,
        "span_unique_id": said.span_id,
        "prompt_id": None,
        "prompt_version_number": None,
        "dataset_id": None,
        "automation_id": None,
        "status": "success",
        "error_message": None,
        "explanation": said.explanation,
        **(more if is_whole else {}),
    }


def shown_id(annotation_id: str) -> str:
    """A score's id as it is told: with dashes where it is a UUID."""
    try:
        return uuid_text(annotation_id) if len(annotation_id) == _HEX_CHARS else annotation_id
    except ValueError:
        return annotation_id


def _scale(evaluator: Evaluator) -> ScaleConfig:
    """What a posted score may be; an evaluator that measures has no scale of its own."""
    kind = CONFIGS[Kind(evaluator.kind)]
    return read_config(kind, evaluator.config) if issubclass(kind, ScaleConfig) else ScaleConfig()


def _json_of(text: Any) -> Any:
    if not isinstance(text, str):
        raise InvalidInput("json_value must be a text that is JSON.", fields=("json_value",))
    try:
        return orjson.loads(text)
    except ValueError:
        raise InvalidInput("json_value must be a text that is JSON.", fields=("json_value",)) from None


def _cost(metadata: bytes | None) -> float | None:
    said = json.loads(metadata) if metadata is not None else {}
    try:
        return float(said[COST])
    except (KeyError, TypeError, ValueError):
        return None


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name} must be a text.", fields=(name,))
    return value or None
