"""LangSmith's run ingest: every recorded run, every rule of a message, every way to be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from clearspan.ingest.detail import decode_span, input_output, searchable_text
from clearspan.ingest.langsmith import (
    DecodedRun,
    DecodedRuns,
    FindRun,
    Placement,
    RunSource,
    batch_runs,
    decode_runs,
    fuse_runs,
    nowhere,
    promote_run,
    run_values,
)
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.multipart import boundary_of
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, NO_SHARED, BlockRecord, Shared, parse_block, record_bytes
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_parts import RunOperation, RunRequest, read_batch, read_multipart, read_run
from clearspan.ingest.run_promotion import dotted_segment, parse_dotted_order
from clearspan.model.ids import normalise_id
from clearspan.model.span import Span, SpanContext
from clearspan.model.usage import pico_from_usd

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "langsmith"
SCENARIOS = sorted(path.stem for path in (FIXTURES / "golden").glob("*.json"))
REWRITE = os.environ.get("CLEARSPAN_REWRITE_GOLDEN") == "1"

ID = "01a2003e-6729-7a1e-be21-660f8b307f89"
CHILD = "01a2003e-672f-7a1e-ac71-73de4eec0a02"
START = "2026-01-01T00:00:00.000001+00:00"
START_NS = 1_767_225_600_000_001_000
NOW_NS = 1_800_000_000_000_000_000
SOURCE = RunSource(NOW_NS, key_id="key_1")


def operation(fields: Mapping[str, Any], *, run_id: str = ID, is_update: bool = False) -> RunOperation:
    return RunOperation(
        is_update, normalise_id(run_id), {key: json.dumps(each).encode() for key, each in fields.items()}
    )


def decode(*operations: RunOperation, find: FindRun = nowhere, source: RunSource = SOURCE) -> DecodedRuns:
    return decode_runs(operations, source, find)


def one(fields: Mapping[str, Any], source: RunSource = SOURCE) -> DecodedRun:
    found = decode(operation({"start_time": START, "run_type": "llm", **fields}), source=source)
    assert found.rejected == []
    return found.runs[0]


def become(fields: Mapping[str, Any], prices: PriceBook | None = None) -> tuple[Span, SpanContext]:
    """The row of a run, made both ways: from the request and from the stored document."""
    run = one(fields)
    (batch,) = batch_runs(1, [run], prices).batches
    row = batch.spans[0], batch.contexts[batch.spans[0].context_key]
    assert row == promote_run(run.stored, prices)
    return row


def record_of(run: DecodedRun) -> bytes:
    (batch,) = batch_runs(1, [run], None).batches
    block = parse_block(batch.block)
    assert block.shared == [Shared(*NO_SHARED)]
    assert [record.codec for record in block.records] == [CODEC_LANGSMITH_RUN]
    record: BlockRecord = block.records[0]
    return record_bytes(block, record)


def recorded(scenario: str) -> Iterator[RunRequest]:
    """The requests of a recording that bring runs, read."""
    for text in (FIXTURES / scenario / "requests.jsonl").read_text().strip().split("\n"):
        line = json.loads(text)
        path, headers = (
            line["path"].removeprefix("/api/v1"),
            {key.lower(): each for key, each in line["headers"].items()},
        )
        named = line.get("body_file")
        raw = (FIXTURES / scenario / named).read_bytes() if named else json.dumps(line["body"]).encode()
        if headers.get("content-encoding") == "zstd":
            raw = zstandard.ZstdDecompressor().stream_reader(raw).read()
        if path == "/runs/multipart":
            yield read_multipart(raw, boundary_of(headers["content-type"]))
        elif path == "/runs/batch":
            yield read_batch(raw)
        elif (line["method"], path) == ("POST", "/runs"):
            yield read_run(raw, run_id=None)
        elif line["method"] == "PATCH" and path.startswith("/runs/"):
            yield read_run(raw, run_id=path.rpartition("/")[2])


def requests_of(scenario: str) -> list[DecodedRuns]:
    """Every request of a recording decoded, each received a second after the one before; nothing is rejected."""
    out: list[DecodedRuns] = []
    stored: dict[str, Placement] = {}
    for no, request in enumerate(recorded(scenario)):
        found = decode_runs(request.operations, RunSource(NOW_NS + no * 10**9, "key_1"), stored.get)
        assert (request.rejections, found.rejected) == ([], [])
        stored |= {run.run_id: Placement(run.trace_id) for run in found.runs}
        out.append(found)
    return out


def documents_of(requests: list[DecodedRuns]) -> dict[tuple[str, str], bytes]:
    documents: dict[tuple[str, str], bytes] = {}
    for request in requests:
        for run in request.runs:
            key = (run.trace_id, run.run_id)
            documents[key] = fuse_runs(documents[key], run.stored) if key in documents else run.stored
    return documents


def golden_of(scenario: str) -> list[dict[str, Any]]:
    out = []
    for (trace_id, _), document in documents_of(requests_of(scenario)).items():
        span, context = promote_run(document)
        row = {key: value for key, value in span._asdict().items() if value not in (None, False)}
        row["context"] = {key: value for key, value in context._asdict().items() if value not in (None, ())}
        del row["context_key"], row["content_hash"]
        out.append({"trace_id": trace_id, "row": row, "run": run_values(document)})
    found: list[dict[str, Any]] = json.loads(json.dumps(out))
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_recorded_run_becomes_what_people_have_read(scenario: str) -> None:
    path = FIXTURES / "golden" / f"{scenario}.json"
    found = golden_of(scenario)
    if REWRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(path.read_text())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_requests_may_arrive_in_any_order_and_again(scenario: str) -> None:
    requests = requests_of(scenario)
    expected = documents_of(requests)
    assert documents_of(requests[::-1]) == expected
    assert documents_of([*requests, *requests[::-1]]) == expected


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_detail_of_every_recorded_run_can_be_read(scenario: str) -> None:
    for request in requests_of(scenario):
        for run in request.runs:
            record = record_of(run)
            detail = decode_span(record)
            assert input_output(record) == (detail.input, detail.output)
            assert detail.status == promote_run(run.stored)[0].status
            assert detail.name in searchable_text(record)


def test_a_run_in_one_object_is_the_run_in_parts() -> None:
    fields: dict[str, Any] = {
        "name": "n", "start_time": START, "run_type": "llm", "inputs": {"q": "é"}, "outputs": {"a": 1.10},
        "extra": {"metadata": {"k": None}}, "error": "E: x", "events": [], "serialized": None,
    }  # fmt: skip
    whole = read_batch(json.dumps({"post": [{"id": ID, **fields}]}).encode()).operations
    apart = ("inputs", "outputs", "extra", "error", "events", "serialized")
    parts: dict[str, Any] = {
        f"post.{ID}": {"id": ID} | {key: value for key, value in fields.items() if key not in apart}
    }
    parts |= {f"post.{ID}.{key}": fields[key] for key in apart}
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\nContent-Type: application/json\r\n\r\n%b\r\n'
        % (name.encode(), json.dumps(value).encode())
        for name, value in parts.items()
    )
    split = read_multipart(body + b"--b--\r\n", b"b").operations
    assert decode(*whole).runs[0].stored == decode(*split).runs[0].stored


def test_a_pending_run_ends_where_it_starts_until_its_end_is_known() -> None:
    span, _ = become({})
    assert (span.status, span.start_ns, span.end_ns) == ("pending", START_NS, START_NS)
    span, _ = become({"end_time": 1_767_225_601_500})  # as the JavaScript client writes it
    assert (span.status, span.end_ns) == ("ok", 1_767_225_601_500_000_000)
    assert become({"error": "Boom"})[0].status == "error"
    assert become({"end_time": "2025-12-31T00:00:00"})[0].end_ns == START_NS


@pytest.mark.parametrize(
    ("error", "error_class"),
    [("ValueError('bad')\n\nTraceback", "ValueError"), ("Error: bad", "Error"), ("openai.RateError(x)",
     "openai.RateError"), ("it broke: badly", None), ("failed: x", None), ({"code": 1}, None)],
)  # fmt: skip
def test_error_classes(error: Any, error_class: str | None) -> None:
    span, _ = become({"error": error})
    assert (span.status, span.error_class) == ("error", error_class)
    assert span.error_fingerprint


def test_usage_and_exact_costs_of_both_places() -> None:
    usage = {
        "input_tokens": 1187, "output_tokens": 96, "total_tokens": 1283, "input_token_details": {"cache_read": 1024},
        "output_token_details": {"reasoning": 64}, "input_cost": 0.0000001, "output_cost": 0.0000002,
    }  # fmt: skip
    for fields in ({"outputs": {"usage_metadata": usage}}, {"extra": {"metadata": {"usage_metadata": usage}}}):
        span, _ = become(fields, PriceBook())
        assert span[21:27] == (1187, 96, 1283, 1024, None, 64)
        assert (span.cost_pico, span.cost_source) == (300_000, "source")
    stated = {"total_cost": "0.5", "input_cost": 9}
    assert become({"outputs": {"usage_metadata": stated}})[0].cost_pico == pico_from_usd("0.5")
    message = {"generations": [[{"message": {"kwargs": {"usage_metadata": {"input_tokens": 3}}}}]]}
    assert become({"outputs": message})[0].prompt_tokens == 3
    assert become({"outputs": {"usage": {"prompt_tokens": 4}}})[0].prompt_tokens == 4
    assert become({"outputs": {"usage": {"prompt_tokens": 4}}, "run_type": "chain"})[0].prompt_tokens is None


def test_models_and_prices() -> None:
    metadata = {"ls_model_name": "gpt-4o", "ls_provider": "openai", "usage_metadata": {"input_tokens": 1000}}
    span, _ = become({"extra": {"metadata": metadata}, "outputs": {"model": "gpt-4o-2024-08-06"}}, PriceBook())
    assert (span.model, span.response_model, span.provider) == ("gpt-4o", "gpt-4o-2024-08-06", "openai")
    assert span.cost_source == "prices"
    assert span.cost_pico
    assert become({"extra": {"invocation_params": {"model": "m", "stream": True}}})[0][14] == "m"
    assert become({"outputs": {"model": "T"}, "run_type": "tool"})[0].model is None


def test_the_first_token_and_streaming() -> None:
    events = [{"name": "start", "time": START}, {"name": "new_token", "time": "2026-01-01T00:00:00.500001Z"},
              {"name": "new_token", "time": "no time"}, 7]  # fmt: skip
    span, _ = become({"events": events})
    assert (span.ttft_s, span.is_streaming) == (0.5, True)
    assert become({"events": {"name": "new_token"}})[0].ttft_s is None


def test_whom_a_run_belongs_to() -> None:
    metadata = {"session_id": None, "conversation_id": "c1", "thread_id": "t1", "user_id": 7, "deep": {"x": True},
                "LANGSMITH_PROJECT": "p", "environment": "dev", "usage_metadata": {}}  # fmt: skip
    span, context = become(
        {"extra": {"metadata": metadata}, "tags": ["a", "b"], "reference_example_id": ID.replace("-", "").upper()}
    )
    assert context == SpanContext(
        customer_identifier="7", session_id="c1", thread_id="c1", environment="dev", key_id="key_1", tags=("a", "b"),
        metadata=(("_reference_example_id", ID), ("conversation_id", "c1"), ("deep.x", "true"), ("environment", "dev"),
                  ("thread_id", "t1"), ("user_id", "7")),
    )  # fmt: skip
    run = one({"extra": {"metadata": metadata}}, RunSource(NOW_NS, "k", "production"))
    assert promote_run(run.stored)[1].environment == "production"
    assert span.span_id == ID.replace("-", "")


def test_a_run_says_its_project_by_name_or_id() -> None:
    run = one({"session_name": "p", "session_id": ID, "extra": None})
    assert (run.session_name, run.session_id) == ("p", ID.replace("-", ""))
    found = decode(
        operation({"start_time": START, "session_name": "p"}), operation({"session_id": None}, is_update=True)
    )
    assert [(each.session_name, each.session_id) for each in found.runs] == [("p", None)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"run_type": "agent"}, "run_type is none of"),
        ({"run_type": 3}, "run_type is none of"),
        ({"start_time": None}, "start_time is missing"),
        ({"start_time": "yesterday"}, "ISO 8601"),
        ({"end_time": "3000-01-01T00:00:00Z"}, "outside the years"),
        ({"end_time": True}, "neither text nor a number"),
        ({"trace_id": "no-uuid"}, "trace_id is not a UUID"),
        ({"trace_id": "0" * 32}, "trace_id is not a UUID"),
        ({"parent_run_id": 7}, "parent_run_id is not a UUID"),
        ({"session_id": "default"}, "session_id is not a UUID"),
        ({"name": 7}, "name is not text"),
        ({"extra": [1]}, "extra is not an object"),
        ({"inputs": [[[[[[1]]]]]]}, "nested too deep"),
        ({"outputs": "x" * 200}, "more than 150 bytes"),
        ({"events": [1] * 6}, "more than 5 events"),
        ({f"field_{n}": n for n in range(20)}, "more than 20 fields"),
    ],
)
def test_a_run_that_cannot_be_stored_is_rejected_alone(fields: dict[str, Any], reason: str) -> None:
    limits = IngestLimits(depth=4, attribute_bytes=150, events_per_span=5, attributes_per_span=20)
    bad = operation({"start_time": START, **fields})
    good = operation({"start_time": START}, run_id=CHILD)
    found = decode(bad, good, source=RunSource(NOW_NS, limits=limits))
    assert [run.run_id for run in found.runs] == [CHILD.replace("-", "")]
    (rejected,) = found.rejected
    assert reason in rejected.reason
    assert (rejected.is_update, rejected.run_id, rejected.is_unknown) == (False, ID.replace("-", ""), False)


def test_a_number_that_no_reader_can_hold_is_rejected() -> None:
    found = decode(RunOperation(False, ID.replace("-", ""), {"start_time": json.dumps(START).encode(), "x": b"1e999"}))
    assert found.runs == []
    assert "too large" in found.rejected[0].reason


def test_unknown_fields_and_exact_numbers_stay() -> None:
    run = decode(
        RunOperation(False, ID.replace("-", ""), {
            "start_time": json.dumps(START).encode(), "address": b'"lrn:x"', "outputs": b'{"c":1.10,"n":0.00000010}',
        })
    ).runs[0]  # fmt: skip
    assert run_values(run.stored)["address"] == "lrn:x"
    assert b'{"c":1.10,"n":0.00000010}' in run.stored


def test_a_trace_is_found_by_every_way_there_is() -> None:
    parent, child = ID.replace("-", ""), CHILD.replace("-", "")
    root = operation({"start_time": START})
    below = operation({"start_time": START, "parent_run_id": ID}, run_id=CHILD)
    for order in ((root, below), (below, root)):
        found = {run.run_id: run for run in decode(*order).runs}
        assert found[parent].trace_id == found[child].trace_id == parent
        dotted = run_values(found[parent].stored)["dotted_order"]
        assert dotted == f"20260101T000000000001Z{ID}"
        assert run_values(found[child].stored)["trace_id"] == ID
    assert run_values(decode(root, below).runs[1].stored)["dotted_order"] == f"{dotted}.20260101T000000000001Z{CHILD}"
    asked: list[str] = []

    def find(run_id: str) -> Placement | None:
        asked.append(run_id)
        return Placement(parent, dotted, 5) if run_id == parent else None

    (run,) = decode(below, find=find).runs
    assert (run.trace_id, asked) == (parent, [parent])
    (run,) = decode(operation({"end_time": START}, is_update=True), find=find).runs
    assert (run.trace_id, run.placement) == (parent, Placement(parent, dotted, 5))
    update = operation({"dotted_order": f"{dotted}.20260101T000000001Z{CHILD}"}, run_id=CHILD, is_update=True)
    (run,) = decode(update).runs
    span, _ = promote_run(run.stored)
    assert (run.trace_id, span.parent_id, span.start_ns) == (parent, parent, START_NS - 1000 + 10**6)


def test_what_nobody_knows_is_not_placed() -> None:
    alone = operation({"end_time": START}, is_update=True)
    orphan = operation({"start_time": START, "parent_run_id": ID}, run_id=CHILD)
    loop = operation({"start_time": START, "parent_run_id": CHILD}, run_id=CHILD)
    for each in (alone, orphan, loop):
        found = decode(each)
        assert found.runs == []
        assert found.rejected[0].is_unknown


def test_an_update_alone_stands_where_it_was_received() -> None:
    (run,) = decode(operation({"trace_id": ID, "outputs": {"a": 1}}, is_update=True)).runs
    span, _ = promote_run(run.stored)
    assert (span.start_ns, span.status, span.kind, span.name) == (NOW_NS, "pending", "span", "")


def test_dotted_orders() -> None:
    root, run = ID.replace("-", ""), CHILD.replace("-", "")
    text = f"20260101T000000000001Z{ID}.20260101T000000002Z{CHILD}"
    assert parse_dotted_order(text) == [(START_NS, root), (START_NS - 1000 + 2 * 10**6, run)]
    assert parse_dotted_order(f"99999999T000000000001Z{ID}") == [(None, root)]
    assert parse_dotted_order("x") == parse_dotted_order("") == []
    assert dotted_segment(START_NS, root) == f"20260101T000000000001Z{ID}"


def test_langchain_messages_are_messages() -> None:
    human = {"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {"content": "hi"}}
    answer = {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"x": 1}, "id": "c1"}]}
    run = one({"inputs": {"messages": [[human]]}, "outputs": {"generations": [[{"message": answer}]]}})
    detail = decode_span(record_of(run))
    assert detail.input_messages == [{"role": "user", "content": "hi"}]
    assert detail.output_messages[0]["tool_calls"] == [{"id": "c1", "name": "f", "arguments": '{"x":1}'}]


def test_the_detail_of_a_run() -> None:
    run = one({
        "name": "n", "inputs": {"q": "in"}, "outputs": None, "error": "E: no", "tags": ["tag"],
        "events": [{"name": "new_token", "time": START, "kwargs": {"token": "tok"}}, {"name": "odd", "time": "x"}],
        "extra": {"metadata": {"k": "meta", "LANGSMITH_PROJECT": "setup"}, "runtime": {"sdk": "py"}},
    })  # fmt: skip
    detail = decode_span(record_of(run))
    assert (detail.name, detail.status, detail.error_message) == ("n", "error", "E: no")
    assert (detail.input, detail.output, detail.start_ns, detail.end_ns) == ('{"q": "in"}', None, START_NS, START_NS)
    assert [(each.name, each.time_ns) for each in detail.events] == [("new_token", START_NS), ("odd", 0)]
    assert detail.resource == {"sdk": "py"}
    assert detail.attributes["tags"] == ["tag"]
    text = searchable_text(record_of(run)).splitlines()
    assert {"n", "in", "E: no", "tag", "meta", "tok"} <= set(text)
    assert not {"py", "setup", ID} & set(text)
