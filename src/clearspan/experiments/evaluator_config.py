"""The configuration of each kind of evaluator: checked when an evaluator is made, read again when it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clearspan.experiments.score_types import ScoreType
from clearspan.model.errors import InvalidInput
from clearspan.query.operators import Operator, parse_operator

PATTERN_CHARS_MAX: Final = 2_000
PATTERN_BYTES_MAX: Final = 2**20
"""Memory of one compiled pattern."""
SCHEMA_BYTES_MAX: Final = 64 * 1024
CHOICES_MAX: Final = 100
PROMPT_CHARS_MAX: Final = 20_000
PRIMARY: Final = "primary_score"
"""The one score that a passing condition may name."""

PLACE: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")
PLACES: Final = {
    "input": "INPUT",
    "inputs": "INPUT",
    "llm_input": "INPUT",
    "output": "OUTPUT",
    "outputs": "OUTPUT",
    "llm_output": "OUTPUT",
    "expected": "EXPECTED",
    "expected_output": "EXPECTED",
    "ideal_output": "EXPECTED",
}
"""What a judge's prompt may name → the block that shows it."""

_PASSING_OPERATORS: Final = frozenset(
    {Operator.EQUALS, Operator.NOT, Operator.IN, Operator.GT, Operator.GTE, Operator.LT, Operator.LTE}
)
_Text = Annotated[str, Field(min_length=1, max_length=PROMPT_CHARS_MAX)]
_Pointer = Annotated[str, Field(pattern=r"^(/.*)?$", max_length=500)]
C = TypeVar("C", bound="EvaluatorConfig")


class Kind(StrEnum):
    """What gives a score."""

    EXACT = "exact"
    CONTAINS = "contains"
    REGEX = "regex"
    JSON_SCHEMA = "json_schema"
    NUMERIC = "numeric"
    SIMILARITY = "similarity"
    LATENCY = "latency"
    COST = "cost"
    TOKENS = "tokens"
    LLM = "llm"  # a model judges
    HUMAN = "human"  # a person does; the experiment's traces wait for it
    EXTERNAL = "external"  # code elsewhere, which posts its scores


class EvaluatorConfig(BaseModel):
    """What every kind may say."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    passing_conditions: dict[str, Any] | None = None
    starred: bool = False

    @field_validator("passing_conditions")
    @classmethod
    def _passing(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given:
            read_passing(given)
        return given


class OutputConfig(EvaluatorConfig):
    """Of kinds that look at the output; the pointers are JSON pointers (RFC 6901) into it and the expected one."""

    output_path: _Pointer = ""
    expected_path: _Pointer = ""


class ExactConfig(OutputConfig):
    """The output is the expected one."""

    ignore_case: bool = False
    ignore_space: bool = False  # blanks at both ends, and how many of them stand together


class ContainsConfig(OutputConfig):
    """The output's text holds these words, or the expected output's text."""

    values: Annotated[list[_Text], Field(min_length=1, max_length=CHOICES_MAX)] | None = None
    mode: Literal["any", "all", "none"] = "all"
    ignore_case: bool = False


class RegexConfig(OutputConfig):
    """The output's text matches a pattern, in RE2's syntax: it takes time in proportion to the text, whatever the
    pattern, and so has no look-around and no back-references."""

    pattern: Annotated[str, Field(min_length=1, max_length=PATTERN_CHARS_MAX)]
    mode: Literal["search", "fullmatch"] = "search"
    ignore_case: bool = False
    negate: bool = False

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compile_pattern(pattern)
        return pattern


class JsonSchemaConfig(OutputConfig):
    """The output, or the JSON that its text is, follows a schema."""

    json_schema: dict[str, Any] | bool = Field(alias="schema")

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, given: dict[str, Any] | bool) -> dict[str, Any] | bool:
        check_schema(given)
        return given


class NumericConfig(OutputConfig):
    """The output is the expected number, or near it: |output - expected| ≤ max(absolute, relative x |expected|)."""

    absolute: Annotated[float, Field(ge=0)] = 0.0
    relative: Annotated[float, Field(ge=0)] = 0.0
    find: Literal["whole", "first", "last"] = "whole"  # where in the output's text the number stands


class SimilarityConfig(OutputConfig):
    """How near the output's text is to the expected one's: 0 to 1, or at least `threshold`."""

    method: Literal["levenshtein", "indel", "jaro_winkler", "token_sort", "token_set"] = "levenshtein"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    ignore_case: bool = False


class LatencyConfig(EvaluatorConfig):
    """The trace took no longer than this."""

    max_s: Annotated[float, Field(gt=0)]


class CostConfig(EvaluatorConfig):
    """The trace cost no more than this, in US dollars."""

    max_usd: Annotated[Decimal, Field(ge=0, strict=False)]


class TokensConfig(EvaluatorConfig):
    """The trace took no more tokens than this."""

    max_tokens: Annotated[int, Field(ge=0)]
    count: Literal["total", "prompt", "completion"] = "total"


class Choice(BaseModel):
    """One of the answers that a score may be."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=500)]
    value: float | str | None = None  # a number becomes the score of whoever chooses it


class ScaleConfig(EvaluatorConfig):
    """Of kinds whose score somebody gives: what it may be."""

    min_score: float | None = None
    max_score: float | None = None
    choices: Annotated[list[Choice], Field(max_length=CHOICES_MAX)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> ScaleConfig:
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise ValueError("min_score must be below max_score")
        names = [choice.name for choice in self.choices or ()]
        if len(set(names)) != len(names):
            raise ValueError("two choices have one name")
        return self


class LlmConfig(ScaleConfig):
    """A model judges, on the endpoint that the operator set."""

    prompt: _Text  # what to judge; `{{input}}`, `{{output}}` and `{{expected_output}}` name what is shown
    rubric: Annotated[str, Field(max_length=PROMPT_CHARS_MAX)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None  # None: the setting `llm_model`
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None  # None: not sent, as of the next two
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @field_validator("prompt")
    @classmethod
    def _names_are_known(cls, prompt: str) -> str:
        if unknown := sorted(set(PLACE.findall(prompt)) - set(PLACES)):
            raise ValueError(f"{{{{{unknown[0][:100]}}}}} is none of {', '.join(PLACES)}")
        return prompt


class HumanConfig(ScaleConfig):
    """A person judges, through the API or a page."""


class ExternalConfig(ScaleConfig):
    """Code elsewhere judges and posts its scores."""


CONFIGS: Final[Mapping[Kind, type[EvaluatorConfig]]] = {
    Kind.EXACT: ExactConfig,
    Kind.CONTAINS: ContainsConfig,
    Kind.REGEX: RegexConfig,
    Kind.JSON_SCHEMA: JsonSchemaConfig,
    Kind.NUMERIC: NumericConfig,
    Kind.SIMILARITY: SimilarityConfig,
    Kind.LATENCY: LatencyConfig,
    Kind.COST: CostConfig,
    Kind.TOKENS: TokensConfig,
    Kind.LLM: LlmConfig,
    Kind.HUMAN: HumanConfig,
    Kind.EXTERNAL: ExternalConfig,
}
GIVEN: Final = frozenset({Kind.LLM, Kind.HUMAN, Kind.EXTERNAL})
"""Kinds whose score may be of any type; the others measure, and say what."""
SELECTS: Final = frozenset({ScoreType.SINGLE_SELECT, ScoreType.MULTI_SELECT, ScoreType.CATEGORICAL})


def check_config(kind: str, config: Mapping[str, Any], score_type: str | None = None) -> tuple[dict[str, Any], str]:
    """The stored form of a configuration, without what is as by default, and the type of its scores.

    Args:
        score_type: None takes the kind's own.
    Raises:
        InvalidInput: it does not fit the kind; names the member, as `config.<path>`.
    """
    try:
        found = Kind(kind)
    except ValueError:
        known = ", ".join(Kind)
        raise InvalidInput(f"An evaluator's kind is one of {known}.", fields=("kind",)) from None
    read = _read(CONFIGS[found], dict(config))
    wanted = _score_type(found, read, score_type)
    return read.model_dump(mode="json", by_alias=True, exclude_defaults=True), wanted.value


def read_config(wanted: type[C], config: Mapping[str, Any]) -> C:
    """A stored configuration. Raises InvalidInput where an older version stored what this one does not take."""
    return _reader(wanted)(json.dumps(config, sort_keys=True))  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _reader(wanted: type[EvaluatorConfig]) -> Any:
    return lru_cache(maxsize=256)(lambda text: _read(wanted, json.loads(text)))


def _read(wanted: type[EvaluatorConfig], config: dict[str, Any]) -> EvaluatorConfig:
    try:
        return wanted.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(("config", *map(str, first["loc"])))
        said = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{place}: {said}.", code="invalid_config", fields=(place,)) from None


def _score_type(kind: Kind, config: EvaluatorConfig, given: str | None) -> ScoreType:
    try:
        wanted = None if given is None else ScoreType(given)
    except ValueError:
        known = ", ".join(ScoreType)
        raise InvalidInput(f"score_value_type is one of {known}.", fields=("score_value_type",)) from None
    allowed = _allowed_types(kind, config)
    if wanted is None:
        wanted = allowed[0]
    if wanted not in allowed:
        told = ", ".join(allowed)
        raise InvalidInput(f"Scores of kind {kind} are {told}, not {wanted}.", fields=("score_value_type",))
    if wanted in SELECTS and not (isinstance(config, ScaleConfig) and config.choices):
        raise InvalidInput(f"Scores of type {wanted} need choices.", fields=("config.choices",))
    return wanted


def _allowed_types(kind: Kind, config: EvaluatorConfig) -> tuple[ScoreType, ...]:
    if kind in GIVEN:
        return tuple(ScoreType)
    if isinstance(config, SimilarityConfig) and config.threshold is None:
        return (ScoreType.NUMERICAL, ScoreType.PERCENTAGE)
    return (ScoreType.BOOLEAN,)


def read_passing(conditions: Mapping[str, Any]) -> tuple[Operator, tuple[Any, ...]]:
    """The operator and values of passing conditions: one condition on `primary_score`. Raises ValueError."""
    condition = conditions.get(PRIMARY)
    if set(conditions) != {PRIMARY} or not isinstance(condition, Mapping):
        raise ValueError(f"passing_conditions holds one condition, on {PRIMARY}")
    if set(condition) - {"operator", "value"}:
        raise ValueError("a passing condition has an operator and a value")
    word = condition.get("operator")
    operator = parse_operator(word) if word is None or isinstance(word, str) else None
    if operator not in _PASSING_OPERATORS:
        raise ValueError("a passing condition's operator is one of =, not, in, gt, gte, lt, lte")
    given = condition.get("value")
    values = tuple(given) if isinstance(given, list) else (given,)
    ordered = operator not in (Operator.EQUALS, Operator.NOT, Operator.IN)
    kinds = (int, float) if ordered else (int, float, str)
    if not values or (ordered and len(values) > 1) or not all(isinstance(each, kinds) for each in values):
        raise ValueError("a passing condition's value does not fit its operator")
    return operator, values


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> Any:
    """A pattern of RE2: matching takes time in proportion to the text. Raises ValueError with what is wrong."""
    return _compile(pattern, ignore_case)


@lru_cache(maxsize=512)
def _compile(pattern: str, ignore_case: bool) -> Any:
    import re2

    if len(pattern) > PATTERN_CHARS_MAX:
        raise ValueError(f"a pattern has at most {PATTERN_CHARS_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except UnicodeEncodeError:
        raise ValueError("the pattern is not valid Unicode") from None
    except re2.error as error:
        text = error.args[0] if error.args else b""
        told = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise ValueError(f"the pattern is not one of RE2's: {told}") from None


def check_schema(schema: Mapping[str, Any] | bool) -> None:
    """Refuse what is no JSON schema, refers to another document or has patterns that RE2 does not know.

    Raises:
        ValueError: with what is wrong.
    """
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    if len(json.dumps(schema)) > SCHEMA_BYTES_MAX:
        raise ValueError(f"a schema has at most {SCHEMA_BYTES_MAX} bytes")
    if isinstance(schema, bool):
        return
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(dict(schema))
    except SchemaError as error:
        raise ValueError(f"not a JSON schema, at /{'/'.join(map(str, error.absolute_path))}") from None
    except RecursionError:
        raise ValueError("the schema is nested too deeply") from None
    for word, text in _schema_texts(schema):
        if word == "pattern":
            compile_pattern(text)
        elif not text.startswith("#"):
            raise ValueError("a schema may refer to places in itself only")


_MAPS_OF_SCHEMAS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_NO_SCHEMAS: Final = frozenset({"enum", "const", "default", "examples"})


def _schema_texts(schema: Any) -> Iterator[tuple[str, str]]:
    """Patterns and references, as (`pattern` or `$ref`, text)."""
    if isinstance(schema, list):
        for each in schema:
            yield from _schema_texts(each)
        return
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in ("pattern", "$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
            yield ("pattern" if key == "pattern" else "$ref"), value
        elif key in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            if key == "patternProperties":
                yield from (("pattern", each) for each in value)
            for each in value.values():
                yield from _schema_texts(each)
        elif key not in _NO_SCHEMAS:
            yield from _schema_texts(value)
