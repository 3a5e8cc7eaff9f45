"""What a filter of traces may name. See filter_grammar for what it may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from clearspan.api.phoenix.filter_grammar import Subject, Vocabulary, Wrap, parse_filter, refusal
from clearspan.ingest import openinference
from clearspan.query.ast import Expr, Group, RootSpan, SomeEntry, SomeSpan
from clearspan.query.fields import METADATA_PREFIX, Collection, field_named
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition

_KINDS_OF: Final = {
    word: sorted(kind for kind, told in openinference.KINDS.items() if told == word)
    for word in set(openinference.KINDS.values())
}


def parse_trace_filter(text: str) -> Expr | None:
    """The tree of a filter of traces; None for a blank one. Raises InvalidFilter."""
    return parse_filter(text, TRACE)


def _of(name: str, **rest: object) -> Subject:
    return Subject(field_named(name), **rest)  # type: ignore[arg-type]


def _kinds(name: str, values: Sequence[object]) -> list[str]:
    found: list[str] = []
    for value in values:
        word = value.upper() if isinstance(value, str) else ""
        if word not in _KINDS_OF:
            raise refusal(name, f"a kind is one of {', '.join(sorted(_KINDS_OF))}")
        found += _KINDS_OF[word]
    return found


def _statuses(name: str, values: Sequence[object]) -> list[str]:
    if [value.upper() if isinstance(value, str) else value for value in values] != ["ERROR"]:
        raise refusal(name, "only 'ERROR' can be asked for, by == or !=")
    return ["error"]


def _entry(collection: Collection) -> Wrap:
    return partial(SomeEntry, collection)


def _on_root(collection: Collection) -> Wrap:
    return lambda inner: RootSpan(SomeEntry(collection, inner))


def _about(target: str) -> Expr:
    return make_condition("annotation", field_named("annotation_target"), Operator.EQUALS, [target])


def _some(wrap: Wrap, *also: Expr) -> Wrap:
    return lambda inner: wrap(Group("AND", (*also, inner)))


_PARTS_OF_ANNOTATION: Final = {"label": "annotation_label", "score": "annotation_score"}
_NO_EXPLANATION: Final = {"explanation": "explanations cannot be filtered", "identifier": "identifiers cannot be"}


def _annotation(name: str, path: tuple[str, ...]) -> Subject | None:
    """`trace_annotations["name"]`, its `.label` or its `.score`."""
    named = make_condition("annotation", field_named("annotation_name"), Operator.EQUALS, [name])
    also = (_about("trace"), named)
    wrap = _on_root(Collection.ANNOTATIONS)
    if not path:
        return _of("annotation_name", wrap=wrap, also=also, is_there_only=True)
    part = _PARTS_OF_ANNOTATION.get(path[0]) if len(path) == 1 else None
    return None if part is None else _of(part, wrap=wrap, also=also)


def _metadata(key: str) -> Subject:
    named = make_condition(METADATA_PREFIX + key, field_named("metadata_key"), Operator.EQUALS, [key])
    return _of("metadata_value", wrap=_on_root(Collection.METADATA), also=(named,))


_ATTRIBUTES: Final[Mapping[str, Callable[[], Subject]]] = {
    "session.id": lambda: _of("session_identifier"),
    "user.id": lambda: _of("customer_identifier"),
    "llm.model_name": lambda: _of("model", wrap=RootSpan),
    "input.value": lambda: _of("span_input", wrap=RootSpan),
    "output.value": lambda: _of("span_output", wrap=RootSpan),
}


def _keyed(path: tuple[str, ...]) -> Subject | None:
    match path:
        case ("trace_annotations", name, *rest):
            return _annotation(name, tuple(rest))
        case ("metadata", key):
            return _metadata(key)
        case ("attributes", name) if name in _ATTRIBUTES:
            return _ATTRIBUTES[name]()
    return None


_ANNOTATION: Final = Vocabulary(
    names={"name": _of("annotation_name"), **{name: _of(field) for name, field in _PARTS_OF_ANNOTATION.items()}},
    refused=_NO_EXPLANATION,
)
_SPAN: Final = Vocabulary(
    names={
        "name": _of("span_name"),
        "span_id": _of("span_unique_id"),
        "parent_id": _of("span_parent_id"),
        "span_kind": _of("log_type", words=_kinds),
        "status_code": _of("status", words=_statuses),
        "start_time": _of("span_start_time"),
        "latency_ms": _of("latency", shift=3),
        "llm_token_count_prompt": _of("prompt_tokens"),
        "llm_token_count_completion": _of("completion_tokens"),
        "llm_token_count_total": _of("span_total_tokens"),
    },
    collections={"annotations": (_ANNOTATION, _some(_entry(Collection.ANNOTATIONS), _about("span")))},
)

TRACE: Final = Vocabulary(
    names={
        "trace_id": _of("trace_unique_id"),
        "session_id": _of("session_identifier"),
        "user.id": _of("customer_identifier"),
        "start_time": _of("start_time"),
        "end_time": _of("end_time"),
        "latency_ms": _of("duration", shift=3),
        "num_spans": _of("span_count", is_zero=True),
        "error_count": _of("error_count", is_zero=True),
        "llm_span_count": _of("llm_call_count", is_zero=True),
        "token_count_prompt": _of("total_prompt_tokens", is_zero=True),
        "token_count_completion": _of("total_completion_tokens", is_zero=True),
        "token_count_total": _of("total_tokens", is_zero=True),
        "total_cost": _of("total_cost", is_zero=True),
        "input": _of("span_input", wrap=RootSpan),
        "output": _of("span_output", wrap=RootSpan),
    },
    keyed=_keyed,
    collections={
        "spans": (_SPAN, SomeSpan),
        "trace_annotations": (_ANNOTATION, _some(_on_root(Collection.ANNOTATIONS), _about("trace"))),
        "span_annotations": (_ANNOTATION, _some(_entry(Collection.ANNOTATIONS), _about("span"))),
    },
    refused={
        "annotations": 'use trace_annotations["name"], or any(… for a in span_annotations)',
        "evals": 'use trace_annotations["name"], or any(… for a in span_annotations)',
        "attributes": f"of attributes only these can be filtered: {', '.join(_ATTRIBUTES)}",
        "prompt_cost": "the parts of a cost cannot be filtered; use total_cost",
        "completion_cost": "the parts of a cost cannot be filtered; use total_cost",
        "tool_span_count": "use any(s.span_kind == 'TOOL' for s in spans)",
    },
)
