"""Evaluators that measure: what they score, what they do not, and that nothing makes them hang."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.builtin import bare, same_json, text_of
from clearspan.experiments.evaluator_config import CONFIGS, GIVEN, Kind, check_config, read_config
from clearspan.experiments.scoring import NotScored, ScoreValue, Subject, annotation_of, evaluate
from clearspan.model.annotation import AnnotationTarget, AnnotatorKind
from clearspan.model.errors import InvalidInput
from clearspan.testing.clock import CountingIds

SECONDS_MAX = 10.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
    max_leaves=12,
)


def evaluator(kind: str, config: dict[str, Any], score_type: str | None = None) -> Evaluator:
    """As the API stores one."""
    stored, wanted = check_config(kind, config, score_type)
    return Evaluator(1, "e" * 32, 1, "my-slug", "My evaluator", kind, stored, wanted, None, 0, 0)


def score(kind: str, config: dict[str, Any], output: Any, expected: Any = None, **more: Any) -> float | str | None:
    """The score, or why there is none."""
    found = evaluate(evaluator(kind, config), Subject(None, output, expected, **more))
    return found.reason if isinstance(found, NotScored) else found.score


RIGHT, WRONG = 1.0, 0.0
CASES: list[tuple[str, dict[str, Any], Any, Any, float]] = [
    ("exact", {}, "Paris", "Paris", RIGHT),
    ("exact", {}, "paris", "Paris", WRONG),
    ("exact", {}, {"output": "Paris"}, "Paris", RIGHT),
    ("exact", {}, {"answer": "Paris"}, {"answer": "Paris"}, RIGHT),
    ("exact", {}, {"answer": "Paris"}, "Paris", WRONG),
    ("exact", {}, {"b": 1, "a": [1.0]}, {"a": [1], "b": 1.0}, RIGHT),
    ("exact", {}, True, 1, WRONG),
    ("exact", {}, "", "", RIGHT),
    ("exact", {}, 0, 0.0, RIGHT),
    ("exact", {}, False, False, RIGHT),
    ("exact", {"ignore_case": True}, "STRASSE", "straße", RIGHT),
    ("exact", {"ignore_space": True}, "  a\n b ", "a b", RIGHT),
    ("exact", {"output_path": "/a/1", "expected_path": "/x~1y"}, {"a": [0, "t"]}, {"x/y": "t"}, RIGHT),
    ("contains", {}, "the answer is 42", "42", RIGHT),
    ("contains", {"values": ["a", "z"], "mode": "any"}, "abc", None, RIGHT),
    ("contains", {"values": ["a", "z"]}, "abc", None, WRONG),
    ("contains", {"values": ["secret"], "mode": "none"}, "nothing", None, RIGHT),
    ("contains", {"values": ["ABC"], "ignore_case": True}, {"x": "abc"}, None, RIGHT),
    ("regex", {"pattern": r"\d+"}, "a 12", None, RIGHT),
    ("regex", {"pattern": r"\d+", "mode": "fullmatch"}, "a 12", None, WRONG),
    ("regex", {"pattern": r"sorry", "ignore_case": True, "negate": True}, "Sorry!", None, WRONG),
    ("regex", {"pattern": r"é."}, "xéy", None, RIGHT),
    ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', None, RIGHT),
    ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, {"b": 1}, None, WRONG),
    ("json_schema", {"schema": {"type": "object"}}, "not JSON", None, WRONG),
    ("json_schema", {"schema": {"properties": {"a": {"pattern": "^x+$"}}}}, {"a": "xy"}, None, WRONG),
    ("json_schema", {"schema": {"patternProperties": {"^n": {"type": "number"}}}}, {"n1": "s"}, None, WRONG),
    (
        "json_schema",
        {"schema": {"patternProperties": {"^n": {}}, "properties": {"a": {}}, "additionalProperties": False}},
        {"n1": 1, "a": 1},
        None,
        RIGHT,
    ),
    ("json_schema", {"schema": {"additionalProperties": {"type": "integer"}}}, {"n1": "1"}, None, WRONG),
    ("json_schema", {"schema": {"uniqueItems": True}}, [1, 1.0], None, WRONG),
    ("json_schema", {"schema": {"uniqueItems": True}}, [1, True, "1", [1], {"a": 1}], None, RIGHT),
    ("json_schema", {"schema": False}, {}, None, WRONG),
    ("json_schema", {"schema": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array"}}}}, [], None, RIGHT),
    ("numeric", {}, "42", 42, RIGHT),
    ("numeric", {}, 42.1, 42, WRONG),
    ("numeric", {"absolute": 0.1}, 0.3, "0.2", RIGHT),
    ("numeric", {"relative": 0.01}, "1,010", 1000, RIGHT),
    ("numeric", {"find": "last"}, "12 plus 30 is 42.", 42, RIGHT),
    ("numeric", {"find": "first"}, "12 plus 30 is 42.", 12, RIGHT),
    ("numeric", {}, "twelve", 12, WRONG),
    ("numeric", {}, True, 1, WRONG),
    ("numeric", {}, "1e999", 1, WRONG),
    ("numeric", {}, "nan", 1, WRONG),
    ("similarity", {}, "kitten", "sitting", 1 - 3 / 7),
    ("similarity", {}, "", "", 1.0),
    ("similarity", {"method": "token_sort"}, "new york mets", "mets york new", 1.0),
    ("similarity", {"method": "indel", "ignore_case": True}, "ABC", "abc", 1.0),
    ("similarity", {"threshold": 0.9}, "abc", "abd", WRONG),
    ("similarity", {"threshold": 0.5}, "abc", "abd", RIGHT),
]


@pytest.mark.parametrize(("kind", "config", "output", "expected", "wanted"), CASES)
def test_scores(kind: str, config: dict[str, Any], output: Any, expected: Any, wanted: float) -> None:
    assert score(kind, config, output, expected) == pytest.approx(wanted)


MEASURES: list[tuple[str, dict[str, Any], dict[str, Any], float]] = [
    ("latency", {"max_s": 1.0}, {"latency_s": 1.0}, RIGHT),
    ("latency", {"max_s": 1.0}, {"latency_s": 1.01}, WRONG),
    ("latency", {"max_s": 1.0}, {"latency_s": 0.0}, RIGHT),
    ("cost", {"max_usd": "0.01"}, {"cost_usd": Decimal("0.01")}, RIGHT),
    ("cost", {"max_usd": 0}, {"cost_usd": Decimal("0.000001")}, WRONG),
    ("cost", {"max_usd": 0}, {"cost_usd": Decimal(0)}, RIGHT),
    ("tokens", {"max_tokens": 10}, {"total_tokens": 11, "prompt_tokens": 1}, WRONG),
    ("tokens", {"max_tokens": 10, "count": "prompt"}, {"total_tokens": 11, "prompt_tokens": 1}, RIGHT),
    ("tokens", {"max_tokens": 10, "count": "completion"}, {"completion_tokens": 0}, RIGHT),
]


@pytest.mark.parametrize(("kind", "config", "measured", "wanted"), MEASURES)
def test_limits(kind: str, config: dict[str, Any], measured: dict[str, Any], wanted: float) -> None:
    assert score(kind, config, "anything", **measured) == wanted


MISSING: list[tuple[str, dict[str, Any], Any, Any, str]] = [
    ("exact", {}, "a", None, "there is no expected output"),
    ("exact", {}, None, "a", "there is no output"),
    ("exact", {"output_path": "/b"}, {"a": 1}, 1, "the output has nothing at its path"),
    ("exact", {"output_path": "/7"}, [1], 1, "the output has nothing at its path"),
    ("contains", {}, "a", None, "there is no expected output"),
    ("regex", {"pattern": "a"}, None, None, "there is no output"),
    ("regex", {"pattern": "a"}, "\ud800", None, "the output is not valid Unicode"),
    ("regex", {"pattern": "a"}, "b" * 1_000_001, None, "a text has more than 1000000 characters"),
    ("json_schema", {"schema": {}}, None, None, "there is no output"),
    ("numeric", {}, "1", "one", "the expected output is no number"),
    ("similarity", {}, "a" * 50_001, "a", "a text has more than 50000 characters"),
    ("latency", {"max_s": 1.0}, "a", None, "the latency is not known"),
    ("cost", {"max_usd": 1}, "a", None, "the cost is not known"),
    ("tokens", {"max_tokens": 1}, "a", None, "the total tokens are not known"),
    ("human", {}, "a", None, "waits for a person's score"),
    ("external", {}, "a", None, "waits for a score to be posted"),
]


@pytest.mark.parametrize(("kind", "config", "output", "expected", "reason"), MISSING)
def test_what_is_missing_is_not_zero(
    kind: str, config: dict[str, Any], output: Any, expected: Any, reason: str
) -> None:
    assert score(kind, config, output, expected) == reason


def test_a_failed_run_has_no_output_to_score() -> None:
    assert score("exact", {}, None, "a", error="it broke") == "the run failed"
    assert score("exact", {}, "a", "a", error="it broke after") == RIGHT


@settings(deadline=None)
@given(JSON, JSON)
def test_any_output_is_scored_or_not_and_never_breaks(output: Any, expected: Any) -> None:
    subject = Subject(None, output, expected)
    for kind, config in (
        ("exact", {}),
        ("exact", {"ignore_case": True, "ignore_space": True}),
        ("contains", {}),
        ("regex", {"pattern": "a.*b"}),
        ("json_schema", {"schema": {"type": ["object", "array"], "uniqueItems": True, "minProperties": 1}}),
        ("numeric", {"relative": 0.5, "find": "last"}),
        ("similarity", {}),
        ("similarity", {"method": "token_set", "threshold": 0.5}),
    ):
        found = evaluate(evaluator(kind, config), subject)
        assert isinstance(found, NotScored) or (found.score is not None and 0 <= found.score <= 1)


@settings(deadline=None)
@given(JSON)
def test_every_value_is_exactly_itself(value: Any) -> None:
    assert same_json(value, value)
    if bare(value) is not None:
        assert score("exact", {}, value, value) == RIGHT
        assert score("similarity", {}, value, value) == 1.0 or len(text_of(value)) > 50_000


NESTED = {"$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)} | {"40": {}}}
HOSTILE: list[tuple[str, dict[str, Any], Any]] = [
    ("regex", {"pattern": r"(a+)+$"}, "a" * 200_000 + "b"),
    ("regex", {"pattern": r"(a|a)*(a|a)*(a|a)*x"}, "a" * 200_000),
    ("regex", {"pattern": r"(.*?,){11}P"}, "1,2,3,4,5,6,7,8,9,10,11," * 20_000),
    ("json_schema", {"schema": {"pattern": r"^(a+)+$"}}, {"output": "a" * 100_000 + "b"}),
    ("json_schema", {"schema": {"type": "array", "uniqueItems": True}}, [[n] for n in range(60_000)]),
    ("json_schema", {"schema": {**NESTED, "$ref": "#/$defs/0"}}, {}),
    ("json_schema", {"schema": {"$ref": "#"}}, {}),
    ("json_schema", {"schema": {"items": {"enum": list(range(2_000))}}}, [-1.5] * 100_000),
    ("json_schema", {"schema": {"items": {"anyOf": [{"const": "x"}] * 1000}}}, ["y"] * 10_000),
    ("numeric", {"find": "last"}, "1" * 100_000),
    ("numeric", {}, "1," * 100_000),
    ("similarity", {"method": "levenshtein"}, "ab" * 25_000),
    ("similarity", {"method": "token_set"}, " ".join(map(str, range(9_000)))),
]


@pytest.mark.parametrize(("kind", "config", "output"), HOSTILE)
def test_nothing_makes_an_evaluator_hang(kind: str, config: dict[str, Any], output: Any) -> None:
    started = time.perf_counter()
    score(kind, config, output, "7 " * 20_000)
    assert time.perf_counter() - started < SECONDS_MAX


REFUSED: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("guess", {}, None, "kind"),
    ("exact", {"ignore_cases": True}, None, "config.ignore_cases"),
    ("exact", {"output_path": "a"}, None, "config.output_path"),
    ("exact", {}, "numerical", "score_value_type"),
    ("exact", {}, "stars", "score_value_type"),
    ("contains", {"values": []}, None, "config.values"),
    ("contains", {"values": [1]}, None, "config.values.0"),
    ("regex", {}, None, "config.pattern"),
    ("regex", {"pattern": "("}, None, "config.pattern"),
    ("regex", {"pattern": "(?=a)"}, None, "config.pattern"),
    ("regex", {"pattern": "((a{1,900}){1,900}){1,900}"}, None, "config.pattern"),
    ("regex", {"pattern": "\ud800"}, None, "config.pattern"),
    ("json_schema", {"schema": {"type": "text"}}, None, "config.schema"),
    ("json_schema", {"schema": {"pattern": "(?<=a)b"}}, None, "config.schema"),
    ("json_schema", {"schema": {"patternProperties": {"(?<=a)b": {}}}}, None, "config.schema"),
    ("json_schema", {"schema": {"items": {"$ref": "http://127.0.0.1/schema"}}}, None, "config.schema"),
    ("json_schema", {"schema": {"description": "x" * 70_000}}, None, "config.schema"),
    ("numeric", {"absolute": -1}, None, "config.absolute"),
    ("numeric", {"relative": float("nan")}, None, "config.relative"),
    ("similarity", {"threshold": 1.1}, None, "config.threshold"),
    ("similarity", {"threshold": 0.5}, "numerical", "score_value_type"),
    ("latency", {"max_s": "1"}, None, "config.max_s"),
    ("latency", {}, None, "config.max_s"),
    ("cost", {"max_usd": -1}, None, "config.max_usd"),
    ("tokens", {"max_tokens": 1.5}, None, "config.max_tokens"),
    ("llm", {}, None, "config.prompt"),
    ("llm", {"prompt": "{{output}} or {{secret}}?"}, None, "config.prompt"),
    ("llm", {"prompt": "p", "min_score": 2, "max_score": 1}, None, "config"),
    ("llm", {"prompt": "p"}, "single_select", "config.choices"),
    ("human", {"choices": [{"name": "a"}, {"name": "a"}]}, "single_select", "config"),
    ("human", {"passing_conditions": {"score": {"value": 1}}}, None, "config.passing_conditions"),
    (
        "human",
        {"passing_conditions": {"primary_score": {"operator": "regex", "value": 1}}},
        None,
        "config.passing_conditions",
    ),
    (
        "human",
        {"passing_conditions": {"primary_score": {"operator": "gt", "value": "1"}}},
        None,
        "config.passing_conditions",
    ),
]


@pytest.mark.parametrize(("kind", "config", "score_type", "place"), REFUSED)
def test_a_configuration_is_checked_when_it_is_made(
    kind: str, config: dict[str, Any], score_type: str | None, place: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_config(kind, config, score_type)
    assert raised.value.fields == (place,)
    assert raised.value.message.endswith(".")


def test_a_stored_configuration_holds_what_was_said_and_is_read_again() -> None:
    for kind, config, *_ in CASES:
        stored, score_type = check_config(kind, config)
        assert set(stored) <= set(config)
        assert check_config(kind, stored, score_type) == (stored, score_type)
        read_config(CONFIGS[Kind(kind)], stored)
    assert check_config("cost", {"max_usd": "0.10"}) == ({"max_usd": "0.10"}, "boolean")
    assert check_config("similarity", {})[1] == "numerical"


def test_a_reference_to_another_document_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that a stored configuration of another version holds."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("fetched"))
    from clearspan.experiments.schema_check import SchemaTrouble, first_violation

    with pytest.raises(SchemaTrouble):
        first_violation({"$ref": "http://127.0.0.1:1/schema"}, {})


@pytest.mark.parametrize("kind", sorted(Kind))
def test_a_score_becomes_an_annotation_of_its_trace(kind: Kind) -> None:
    said: dict[str, dict[str, Any]] = {
        "regex": {"pattern": "a"}, "json_schema": {"schema": {}}, "latency": {"max_s": 1}, "cost": {"max_usd": 1},
        "tokens": {"max_tokens": 1}, "llm": {"prompt": "p"},
    }  # fmt: skip
    made = evaluator(kind, said.get(kind, {}))
    given = ScoreValue(1.0, None, True, "why \ud800".encode("utf-8", "replace").decode(), "boolean", Decimal("0.1"))
    found = annotation_of(made, given, "t1", now_ns=5, key_id="key", ids=CountingIds())
    assert (found.target, found.trace_id, found.span_id, found.name) == (AnnotationTarget.TRACE, "t1", None, "my-slug")
    assert found.value == b"true"
    assert found.metadata == b'{"evaluator_id":"' + b"e" * 32 + b'","score_value_type":"boolean","cost_usd":"0.1"}'
    humans = {Kind.HUMAN: AnnotatorKind.HUMAN, Kind.LLM: AnnotatorKind.LLM}
    assert found.kind is humans.get(kind, AnnotatorKind.CODE)
    assert len(found.annotation_id) == 32
    assert kind in GIVEN or made.score_type in ("boolean", "numerical")
