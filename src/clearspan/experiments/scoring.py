"""Scoring: an evaluator and a result in, a score or the reason why there is none out; and scores as annotations."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.builtin import MEASURING, measure
from clearspan.experiments.evaluator_config import Kind, LlmConfig, read_config
from clearspan.experiments.judging import Asks, judge_with
from clearspan.experiments.score_types import NotScored, ScoreType, ScoreValue, Subject
from clearspan.experiments.score_values import valid
from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.clock import IdSource

__all__ = ["NotScored", "ScoreValue", "Subject", "annotation_of", "annotator_of", "evaluate", "judge"]

EVALUATOR_ID: Final = "evaluator_id"
SCORE_TYPE: Final = "score_value_type"
COST: Final = "cost_usd"
WAITS_FOR_PERSON: Final = NotScored("waits for a person's score")
WAITS_FOR_POST: Final = NotScored("waits for a score to be posted")


def evaluate(evaluator: Evaluator, subject: Subject) -> ScoreValue | NotScored:
    """The score of one result, by an evaluator that measures; the others give none here.

    Raises:
        InvalidInput: the evaluator's stored configuration is not one of this version.
    Cost: as `builtin.measure`: call it in a thread.
    """
    kind = Kind(evaluator.kind)
    if kind in MEASURING:
        return measure(kind, evaluator.config, evaluator.score_type, subject)
    return WAITS_FOR_PERSON if kind is Kind.HUMAN else WAITS_FOR_POST


async def judge(evaluator: Evaluator, subject: Subject, llm: Asks) -> ScoreValue | NotScored:
    """The score that a model gives, for evaluators of kind `llm`.

    Raises:
        LlmError: the model cannot be asked; there may be a score later.
        InvalidInput: no model is named or set, or the stored configuration is not one of this version.
    """
    assert evaluator.kind == Kind.LLM, "only models are asked"
    config = read_config(LlmConfig, evaluator.config)
    return await judge_with(config, ScoreType(evaluator.score_type), subject, llm)


def annotation_of(
    evaluator: Evaluator,
    score: ScoreValue,
    trace_id: str,
    *,
    now_ns: int,
    key_id: str | None,
    ids: IdSource,
    identifier: str = "",
    user_id: str | None = None,
) -> Annotation:
    """A score as an annotation of its trace. Written again it replaces the one that this evaluator gave before.

    Args:
        identifier: who scored, to keep the scores of several apart.
    """
    said: dict[str, Any] = {EVALUATOR_ID: evaluator.uuid, SCORE_TYPE: score.score_type}
    if score.cost_usd is not None:
        said[COST] = str(score.cost_usd)
    return Annotation(
        annotation_id=ids.token_bytes(16).hex(),
        target=AnnotationTarget.TRACE,
        trace_id=trace_id,
        span_id=None,
        session_id=None,
        document_position=None,
        name=evaluator.slug,
        identifier=identifier,
        kind=annotator_of(evaluator),
        label=score.label,
        score=score.score,
        explanation=score.explanation,
        value=None if score.value is None else _dump(score.value),
        correction=None,
        metadata=orjson.dumps(said),
        source="api",
        extra=None,
        created_ns=now_ns,
        updated_ns=now_ns,
        key_id=key_id,
        user_id=user_id,
    )


def _dump(value: Any) -> bytes:
    """JSON that can be read again: half a character becomes U+FFFD."""
    return valid(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)).encode()


def annotator_of(evaluator: Evaluator) -> AnnotatorKind:
    """Who gives an evaluator's scores."""
    match Kind(evaluator.kind):
        case Kind.LLM:
            return AnnotatorKind.LLM
        case Kind.HUMAN:
            return AnnotatorKind.HUMAN
        case _:
            return AnnotatorKind.CODE
