"""What evaluators are given and what they give: values only, for every kind of evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple


class ScoreType(StrEnum):
    """What a score is, in Respan's words."""

    NUMERICAL = "numerical"
    BOOLEAN = "boolean"
    PERCENTAGE = "percentage"  # 0 to 100
    SINGLE_SELECT = "single_select"
    MULTI_SELECT = "multi_select"
    TEXT = "text"
    JSON = "json"
    COMMENT = "comment"  # text, in older clients
    CATEGORICAL = "categorical"  # single_select, in older clients


class Subject(NamedTuple):
    """One result as an evaluator sees it. None: not there, or not known; never a stand-in for zero."""

    inputs: Any  # JSON value, as all others
    output: Any
    expected: Any | None  # the item's reference output
    latency_s: float | None = None
    cost_usd: Decimal | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    metadata: Mapping[str, Any] = {}
    error: str | None = None


class ScoreValue(NamedTuple):
    """A score. Which of the first three says it hangs on the type: numbers, percentages and booleans (1, 0) stand in
    `score`, the one choice of a select in `label`, lists, texts and JSON in `value`; `value` keeps a boolean, too."""

    score: float | None
    label: str | None
    value: Any | None
    explanation: str | None
    score_type: str
    cost_usd: Decimal | None = None  # what finding the score cost, if a model was asked


class NotScored(NamedTuple):
    """There is no score, and why: something that it needs is missing. Tells nothing of what the result holds."""

    reason: str
