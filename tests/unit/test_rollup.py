"""Summaries: root, tree, sums and who a trace belongs to, each rule by the smallest trace that shows it."""

from __future__ import annotations

import pytest

from clearspan.ingest.rollup import choose_root, span_total_tokens, summarise, tree_parents
from clearspan.model.span import LogRecord, Span, SpanContext
from clearspan.model.trace import TraceSummary

NOBODY = SpanContext()
BLANK = Span(
    span_id="", parent_id=None, name="", entity_name=None, workflow_name=None, path=None, kind="span", log_method=None,
    start_ns=0, end_ns=0, status="unset", status_code=None, error_class=None, error_fingerprint=None, model=None,
    response_model=None, provider=None, deployment_name=None, prompt_id=None, prompt_name=None, prompt_version=None,
    prompt_tokens=None, completion_tokens=None, total_tokens=None, cached_tokens=None, cache_creation_tokens=None,
    reasoning_tokens=None, usage_repeats=False, cost_pico=None, cost_source=None, ttft_s=None, routing_time_s=None,
    is_streaming=None, context_key=0, content_hash=0,
)  # fmt: skip


def span(span_id: str, parent: str | None = None, start: int = 0, **fields: object) -> Span:
    return BLANK._replace(span_id=span_id, parent_id=parent, name=span_id, start_ns=start, end_ns=start, **fields)


def summary(*spans: Span, logs: tuple[LogRecord, ...] = (), **contexts: SpanContext) -> TraceSummary:
    return summarise("t", spans, logs, {0: NOBODY} | {int(key[1:]): value for key, value in contexts.items()})


def usage(prompt: int, completion: int = 0) -> dict[str, object]:
    return {"kind": "chat", "prompt_tokens": prompt, "completion_tokens": completion}


def root_of(*spans: Span) -> str:
    return choose_root(spans, tree_parents(spans)).span_id


def test_the_span_without_a_parent_is_the_root() -> None:
    assert root_of(span("b", "a", 1), span("a", None, 5)) == "a"


def test_a_true_root_beats_an_earlier_orphan() -> None:
    assert root_of(span("orphan", "gone", 0), span("root", None, 9)) == "root"


def test_among_roots_a_workflow_or_agent_wins_then_the_earliest_then_the_id() -> None:
    assert root_of(span("task", None, 0, kind="task"), span("flow", None, 5, kind="workflow")) == "flow"
    assert root_of(span("late", None, 5), span("early", None, 1)) == "early"
    assert root_of(span("b", None, 1), span("a", None, 1)) == "a"


def test_cycles_and_self_parents_end() -> None:
    assert root_of(span("a", "a")) == "a"
    assert root_of(span("a", "b", 2), span("b", "a", 1)) == "b"
    parents = tree_parents([span("a", "b", 2), span("b", "c", 1), span("c", "a", 3), span("d", "a")])
    assert parents == {"a": "b", "b": None, "c": "a", "d": "a"}


def test_a_chain_of_a_hundred_thousand_spans_needs_no_stack() -> None:
    spans = [span(str(i), str(i - 1) if i else None, i, **usage(1)) for i in range(100_000)]
    found = summary(*spans)
    assert (found.root_span_id, found.prompt_tokens, found.llm_call_count) == ("0", 1, 1)


def test_the_name_is_the_workflows_else_the_entitys_else_the_spans() -> None:
    assert summary(span("workflow", workflow_name="weather", entity_name="x")).name == "weather"
    assert summary(span("task", entity_name="plan")).name == "plan"
    assert summary(span("chat gpt-4o")).name == "chat gpt-4o"
    nested = span("agent", "root", workflow_name="helper")
    assert summary(span("root", workflow_name="weather"), nested).name == "weather"


def test_tokens_count_only_where_no_descendant_carries_any() -> None:
    found = summary(
        span("outer", None, **usage(30, 3)), span("mid", "outer"), span("in1", "mid", **usage(10, 1)),
        span("in2", "mid", **usage(20, 2)),
    )  # fmt: skip
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (30, 3, 33)
    assert found.llm_call_count == 2


def test_tokens_that_repeat_others_never_count_nor_cover() -> None:
    repeated = span("agent", None, usage_repeats=True, prompt_tokens=99)
    assert summary(repeated).prompt_tokens is None
    assert summary(repeated, span("call", "agent", **usage(7))).prompt_tokens == 7
    under = span("echo", "call", usage_repeats=True, prompt_tokens=7)
    assert summary(span("call", None, **usage(7)), under).prompt_tokens == 7


def test_cost_follows_the_rule_by_itself() -> None:
    assert summary(span("a", cost_pico=5), span("b", "a", cost_pico=3)).cost_pico == 3
    assert summary(span("a", cost_pico=5), span("b", "a", **usage(1))).cost_pico == 5
    assert summary(span("a", cost_pico=0)).cost_pico == 0
    assert summary(span("a")).cost_pico is None


def test_sums_stay_within_64_bits() -> None:
    dear = [span(str(n), cost_pico=5 * 10**18) for n in range(2)]
    assert summary(*dear).cost_pico == 2**63 - 1
    assert summary(dear[0]).cost_pico == 5 * 10**18
    long = [span(str(n), **usage(2**53, 2**53)) for n in range(1024)]
    found = summary(*long)
    assert found.prompt_tokens == found.completion_tokens == found.total_tokens == 2**63 - 1
    assert summary(*long[:512]).prompt_tokens == 2**62


def test_unpriced_calls_are_counted() -> None:
    found = summary(span("a", **usage(1)), span("b", **usage(1), cost_pico=3), span("c", kind="chat"))
    assert (found.unpriced_count, found.cost_pico) == (1, 3)


def test_a_wrapped_call_is_one_call() -> None:
    assert summary(span("wrapper", None, kind="chat"), span("call", "wrapper", kind="chat")).llm_call_count == 1
    assert summary(span("failed", None, kind="chat", status="error")).llm_call_count == 1
    assert summary(span("tool", None, kind="tool")).llm_call_count == 0


def test_unknown_is_not_zero() -> None:
    found = summary(span("a"))
    assert found.prompt_tokens is found.total_tokens is found.cached_tokens is found.cost_pico is None


def test_the_total_is_stated_or_the_sum() -> None:
    assert span_total_tokens(span("a", total_tokens=9, prompt_tokens=1)) == 9
    assert span_total_tokens(span("a", prompt_tokens=1)) == 1
    assert span_total_tokens(span("a")) is None


def test_times_cover_all_spans_and_errors_are_spans() -> None:
    found = summary(
        span("a", None, 5)._replace(end_ns=9), span("b", "a", 2, status="error")._replace(end_ns=20),
        span("c", "a", 6, status="error"), span("d", "a", 6, status="ok", error_class="caught"),
    )  # fmt: skip
    assert (found.start_ns, found.end_ns, found.duration_ns, found.error_count) == (2, 20, 18, 2)


def test_who_is_the_roots_else_the_first_spans() -> None:
    found = summary(
        span("root", None, 5, context_key=1), span("early", "root", 1, context_key=2),
        span("late", "root", 9, context_key=3),
        c1=SpanContext(customer_identifier="ada", metadata=(("plan", "pro"),)),
        c2=SpanContext(customer_identifier="bob", session_id="s1", metadata=(("n", "1"), ("plan", "free"))),
        c3=SpanContext(session_id="s2", environment="staging", tags=("x",), metadata=(("n", "2"),)),
    )  # fmt: skip
    assert (found.customer_identifier, found.session_id, found.environment) == ("ada", "s1", "staging")
    assert found.metadata == (("n", "1"), ("plan", "pro"))
    assert found.metadata_all == (("n", "1"), ("n", "2"), ("plan", "free"), ("plan", "pro"))
    assert found.tags == ("x",)


def test_the_model_is_the_roots_else_the_first_calls() -> None:
    chat = span("chat", "root", 2, kind="chat", model="gpt-4o")
    assert summary(span("root", None), chat).model == "gpt-4o"
    assert summary(span("root", None, model="o3"), chat).model == "o3"
    tool = span("tool", "root", 1, kind="tool", model="embedder")
    assert summary(span("root", None), tool, chat).model == "gpt-4o"


def log(number: int, time_ns: int, name: str | None, context_key: int = 0) -> LogRecord:
    return LogRecord(number, None, time_ns, name, None, context_key)


def test_a_trace_of_logs_alone_is_named_by_its_first_event() -> None:
    found = summary(logs=(log(1, 9, "late"), log(2, 5, None), log(3, 6, "gen_ai.user.message")))
    assert (found.root_span_id, found.kind, found.name) == (None, None, "gen_ai.user.message")
    assert (found.start_ns, found.end_ns, found.span_count, found.prompt_tokens) == (5, 9, 0, None)
    assert summary(logs=(log(1, 1, None),)).name == "unknown"


def test_logs_say_who_only_where_no_span_does() -> None:
    ada, bob = SpanContext(customer_identifier="ada"), SpanContext(customer_identifier="bob", environment="dev")
    found = summary(span("a", context_key=1), logs=(log(1, 0, "e", 2),), c1=ada, c2=bob)
    assert (found.customer_identifier, found.environment) == ("ada", "dev")
    assert (found.start_ns, found.end_ns) == (0, 0)


def test_a_trace_is_never_empty() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summary()
