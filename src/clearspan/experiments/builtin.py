"""The evaluators that measure: pure, without a model, a clock or the network, each bounded in time by its input.

What cannot be measured is NotScored and never 0: a mean over zeros that nobody measured says nothing. An output that
was there and is wrong is 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar, cast

import orjson

from clearspan.experiments.evaluator_config import (
    ContainsConfig,
    CostConfig,
    EvaluatorConfig,
    ExactConfig,
    JsonSchemaConfig,
    Kind,
    LatencyConfig,
    NumericConfig,
    OutputConfig,
    RegexConfig,
    SimilarityConfig,
    TokensConfig,
    compile_pattern,
    read_config,
)
from clearspan.experiments.schema_check import SchemaTrouble, first_violation
from clearspan.experiments.score_types import NotScored, ScoreType, ScoreValue, Subject

TEXT_CHARS_MAX: Final = 1_000_000
"""Longest text that is matched, searched or read as JSON."""
SIMILARITY_CHARS_MAX: Final = 50_000
"""Longest text whose distance is taken: the time grows with the product of both lengths; here it stays below 0.2 s."""

_NUMBER = re.compile(r"[-+]?(?:\d[\d,_]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_EXPONENT_MAX: Final = 400
_BLANKS = re.compile(r"\s+")
_WRAPPER: Final = "output"
C = TypeVar("C", bound=EvaluatorConfig)


class _Missing(Exception):
    """Something that an evaluator needs is not there; the text is the reason."""


def measure(kind: Kind, config: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue | NotScored:
    """The score of one result, by a kind that measures.

    Raises:
        InvalidInput: the stored configuration is not one of this version.
    Cost: linear in the texts; similarity up to 0.2 s, a JSON schema up to 0.5 s. Run it in a thread.
    """
    work = _WORK[kind]
    try:
        return work(config, score_type, subject)
    except _Missing as error:
        return NotScored(str(error))


def text_of(value: Any) -> str:
    """A JSON value as the text that evaluators look at: texts as they are, the rest as JSON with sorted keys."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)


def bare(value: Any) -> Any:
    """What LangSmith's clients wrap as {"output": …} when a function returns no object; anything else as it is."""
    if isinstance(value, Mapping) and set(value) == {_WRAPPER}:
        return value[_WRAPPER]
    return value


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if type(one) in (int, float) and type(other) in (int, float):
        return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def _exact(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(ExactConfig, raw)
    output, expected = _output(config, subject), _expected(config, subject)
    if config.ignore_case or config.ignore_space:
        return _verdict(_folded(output, config) == _folded(expected, config), score_type)
    return _verdict(same_json(output, expected), score_type)


def _folded(value: Any, config: ExactConfig) -> str:
    text = text_of(value)
    if config.ignore_space:
        text = _BLANKS.sub(" ", text).strip()
    return text.casefold() if config.ignore_case else text


def _contains(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(ContainsConfig, raw)
    text = _bounded(text_of(_output(config, subject)))
    words = config.values or [_bounded(text_of(_expected(config, subject)))]
    if config.ignore_case:
        text, words = text.casefold(), [word.casefold() for word in words]
    found = sum(word in text for word in words)
    fits = {"any": found > 0, "all": found == len(words), "none": found == 0}[config.mode]
    return _verdict(fits, score_type, f"{found} of {len(words)} found")


def _regex(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(RegexConfig, raw)
    text = _bounded(text_of(_output(config, subject)))
    pattern = compile_pattern(config.pattern, ignore_case=config.ignore_case)
    match = pattern.fullmatch if config.mode == "fullmatch" else pattern.search
    try:
        found = match(text) is not None
    except UnicodeEncodeError:
        raise _Missing("the output is not valid Unicode") from None
    return _verdict(found != config.negate, score_type, "matches" if found else "does not match")


def _json_schema(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(JsonSchemaConfig, raw)
    output = _output(config, subject)
    if isinstance(output, str):
        try:
            output = orjson.loads(_bounded(output))
        except ValueError:
            return _verdict(False, score_type, "the output is not JSON")
    try:
        violation = first_violation(config.json_schema, output)
    except SchemaTrouble as error:
        raise _Missing(str(error)) from None
    return _verdict(violation is None, score_type, violation)


def _numeric(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(NumericConfig, raw)
    output, expected = _output(config, subject), _number(_expected(config, subject), "whole")
    if expected is None:
        raise _Missing("the expected output is no number")
    number = _number(output, config.find)
    if number is None:
        return _verdict(False, score_type, "the output is no number")
    off = abs(number - expected)
    allowed = max(Decimal(str(config.absolute)), Decimal(str(config.relative)) * abs(expected))
    return _verdict(off <= allowed, score_type, f"off by {off:.6g}, {allowed:.6g} allowed")


def _number(value: Any, find: str) -> Decimal | None:
    """The number that a value is, or that stands in its text; None: there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = _bounded(value).strip() if isinstance(value, str) else str(value)
    if find == "whole":
        whole = _NUMBER.fullmatch(text)
        found = whole[0] if whole else None
    elif find == "first":
        first = _NUMBER.search(text)
        found = first[0] if first else None
    else:
        found = max(_NUMBER.finditer(text), key=lambda each: each.start(), default=[None])[0]
    if found is None:
        return None
    try:
        number = Decimal(found.replace(",", "").replace("_", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= _EXPONENT_MAX else None


def _similarity(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(SimilarityConfig, raw)
    output, expected = text_of(_output(config, subject)), text_of(_expected(config, subject))
    if config.ignore_case:
        output, expected = output.casefold(), expected.casefold()
    if max(len(output), len(expected)) > SIMILARITY_CHARS_MAX:
        raise _Missing(f"a text has more than {SIMILARITY_CHARS_MAX} characters")
    near = _nearness(config.method)(output, expected)
    if config.threshold is not None:
        told = f"similarity {near:.4f}, {config.threshold:g} needed"
        return _verdict(near >= config.threshold, score_type, told)
    score = near * 100 if score_type == ScoreType.PERCENTAGE else near
    return ScoreValue(score, None, None, None, score_type)


def _nearness(method: str) -> Callable[[str, str], float]:
    """Two texts → 0 to 1."""
    from rapidfuzz import fuzz
    from rapidfuzz.distance import Indel, JaroWinkler, Levenshtein

    found: dict[str, Callable[[str, str], float]] = {
        "levenshtein": Levenshtein.normalized_similarity,
        "indel": Indel.normalized_similarity,
        "jaro_winkler": JaroWinkler.normalized_similarity,
        "token_sort": lambda one, other: fuzz.token_sort_ratio(one, other) / 100,
        "token_set": lambda one, other: fuzz.token_set_ratio(one, other) / 100,
    }
    return found[method]


def _latency(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    limit, taken = read_config(LatencyConfig, raw).max_s, subject.latency_s
    if taken is None:
        raise _Missing("the latency is not known")
    return _verdict(taken <= limit, score_type, f"{taken:.3f} s, {limit:g} s allowed")


def _cost(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    limit, cost = read_config(CostConfig, raw).max_usd, subject.cost_usd
    if cost is None:
        raise _Missing("the cost is not known")
    return _verdict(cost <= limit, score_type, f"{cost:.6f} USD, {limit} USD allowed")


def _tokens(raw: Mapping[str, Any], score_type: str, subject: Subject) -> ScoreValue:
    config = read_config(TokensConfig, raw)
    counts = {
        "total": subject.total_tokens,
        "prompt": subject.prompt_tokens,
        "completion": subject.completion_tokens,
    }
    count = counts[config.count]
    if count is None:
        raise _Missing(f"the {config.count} tokens are not known")
    return _verdict(count <= config.max_tokens, score_type, f"{count} tokens, {config.max_tokens} allowed")


def _output(config: OutputConfig, subject: Subject) -> Any:
    if subject.output is None:
        raise _Missing("the run failed" if subject.error else "there is no output")
    return _at(subject.output, config.output_path, "output")


def _expected(config: OutputConfig, subject: Subject) -> Any:
    if subject.expected is None:
        raise _Missing("there is no expected output")
    return _at(subject.expected, config.expected_path, "expected output")


def _at(value: Any, pointer: str, what: str) -> Any:
    """The part of a value that a JSON pointer names; the whole one unwrapped where there is none."""
    if not pointer:
        return bare(value)
    for part in pointer[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            raise _Missing(f"the {what} has nothing at its path")
    return value


def _bounded(text: str) -> str:
    if len(text) > TEXT_CHARS_MAX:
        raise _Missing(f"a text has more than {TEXT_CHARS_MAX} characters")
    return text


def _verdict(is_right: bool, score_type: str, explanation: str | None = None) -> ScoreValue:
    return ScoreValue(float(is_right), None, is_right, explanation, score_type)


_Work = Callable[[Mapping[str, Any], str, Subject], ScoreValue]
_WORK: Final = cast(
    Mapping[Kind, _Work],
    {
        Kind.EXACT: _exact,
        Kind.CONTAINS: _contains,
        Kind.REGEX: _regex,
        Kind.JSON_SCHEMA: _json_schema,
        Kind.NUMERIC: _numeric,
        Kind.SIMILARITY: _similarity,
        Kind.LATENCY: _latency,
        Kind.COST: _cost,
        Kind.TOKENS: _tokens,
    },
)
MEASURING: Final = frozenset(_WORK)
"""Kinds that need nothing but the result."""
