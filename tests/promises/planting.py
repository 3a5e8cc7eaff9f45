"""Traces full of needles: words that stand nowhere else, in every place where a trace may hold one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from clearspan.model.annotation import AnnotationTarget
from clearspan.model.clock import datetime_from_ns
from clearspan.model.runs import run_id_of
from clearspan.model.trace import Scope
from clearspan.store.annotations import AnnotationWrite
from clearspan.testing.build import make_annotation
from clearspan.testing.needles import needle_of
from clearspan.testing.wire import SECOND_NS, Wire, iso

NEEDLE = re.compile(r"ndl[0-9a-f]{24}")
UUID_HEX = re.compile(r"[0-9a-f]{32}")
UUID_TEXT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def named_in(text: str) -> set[str]:
    """Every needle and every UUID in a text, these without their dashes."""
    uuids = (each.replace("-", "") for each in UUID_TEXT.findall(text))
    return {*NEEDLE.findall(text), *UUID_HEX.findall(text), *uuids}


@dataclass
class Planted:
    """What was planted. `by_field` holds, for each filter field, a needle and so the question that finds it."""

    customer: str
    trace_ids: list[str] = field(default_factory=list)
    needles: set[str] = field(default_factory=set)
    by_field: dict[str, str] = field(default_factory=dict)
    annotation_ids: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)  # of the roots
    tokens: list[str] = field(default_factory=list)  # of the links to them
    thread_ids: list[str] = field(default_factory=list)
    attachments: list[str] = field(default_factory=list)  # links to them
    deletion_id: str = "del_unknown"
    dataset_id: str = ""  # of the dataset that has an item of each trace
    item_ids: list[str] = field(default_factory=list)
    experiment_id: str = ""  # of an experiment over that dataset
    result_ids: list[str] = field(default_factory=list)  # its traces
    export_id: str = ""  # of an export of them

    def hits(self, text: str, asked: Set[str] = frozenset()) -> int:
        """How many needles or trace ids a text shows, apart from those that were asked with."""
        words = named_in(text) - asked
        return len(words & (self.needles | set(self.trace_ids) | set(self.run_ids) | set(self.item_ids)))


def plant(wire: Wire, rng: random.Random, needle_count: int) -> Planted:
    """Traces of one customer, in turn by Respan, by OTLP and by LangSmith, until so many needles are planted."""

    def needle() -> str:
        made = needle_of(rng.randbytes(12))
        planted.needles.add(made)
        return made

    planted = Planted(needle_of(rng.randbytes(12)))
    planted.needles.add(planted.customer)
    while len(planted.needles) < needle_count:
        _plant_respan(wire, planted, needle)
        _plant_otlp(wire, planted, needle, rng)
        _plant_runs(wire, planted, needle, rng)
        _plant_annotations(wire, planted, needle, rng)
    planted.by_field["customer_identifier"] = planted.customer
    _plant_items(wire, planted)
    _plant_results(wire, planted, needle, rng)
    return planted


def _plant_respan(wire: Wire, planted: Planted, needle: Callable[[], str]) -> None:
    trace_id, root_id, key = needle(), needle(), needle()
    named = {
        "session_identifier": needle(), "thread_identifier": needle(), "trace_group_identifier": needle(),
        "span_name": needle(), "span_workflow_name": needle(), "span_path": needle(), "model": needle(),
        "provider_id": needle(), "deployment_name": needle(), "prompt_id": needle(), "prompt_name": needle(),
        "prompt_version_number": needle(), "error_class": needle(), "log_method": needle(),
    }  # fmt: skip
    root = wire.span(
        trace_id,
        root_id,
        customer_identifier=planted.customer,
        customer_email=f"{needle()}@example.com",
        metadata={key: needle(), "plain": needle()},
        tags=[needle()],
        input=f"please {needle()}",
        output={"text": needle()},
        error_message=f"failed: {needle()}",
        full_request={"deep": [{"er": needle()}]},
        unheard_of=needle(),
        status_code=500,
        **named,
    )
    messages = [{"role": "user", "content": needle()}]
    child = wire.span(trace_id, needle(), span_parent_id=root_id, prompt_messages=messages, span_name=needle())
    wire.ingest(root, child)
    planted.trace_ids.append(trace_id)
    planted.run_ids.append(run_id_of(trace_id, root_id, True))
    planted.thread_ids.append(named["thread_identifier"])
    planted.by_field = {
        **named,
        "trace_unique_id": trace_id,
        "span_unique_id": root_id,
        "name": named["span_name"],
        f"metadata__{key}": root["metadata"][key],
        "text": root["input"].split()[1],
    }


def _plant_otlp(wire: Wire, planted: Planted, needle: Callable[[], str], rng: random.Random) -> None:
    trace_id, span_id = rng.randbytes(16).hex(), rng.randbytes(8).hex()
    start_ns = wire.clock.now_ns() - 60 * SECOND_NS

    def said(**values: str) -> list[dict[str, Any]]:
        return [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in values.items()]

    span = {
        "traceId": trace_id,
        "spanId": span_id,
        "name": needle(),
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + SECOND_NS),
        "traceState": f"a={needle()}",
        "attributes": [
            *said(
                user__id=planted.customer, session__id=needle(), gen_ai__prompt=needle(), gen_ai__completion=needle()
            ),
            *said(**{needle(): needle()}),
            {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": needle()}]}}},
        ],
        "events": [{"name": needle(), "timeUnixNano": str(start_ns), "attributes": said(exception__message=needle())}],
        "links": [{"traceId": rng.randbytes(16).hex(), "spanId": span_id, "attributes": said(why=needle())}],
        "status": {"code": 2, "message": needle()},
    }
    resource = {"attributes": said(service__name=needle(), host__name=needle())}
    traces = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": needle()}, "spans": [span]}]}]}
    record = {"timeUnixNano": str(start_ns), "traceId": trace_id, "spanId": span_id, "body": {"stringValue": needle()}}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record | {"attributes": said(extra=needle())}]}]}]}
    for path, body in (("/v1/traces", traces), ("/v1/logs", logs)):
        answer = wire.post(path, body)
        assert (answer.status_code, answer.json()) == (200, {}), answer.text
    planted.trace_ids.append(trace_id)
    planted.run_ids.append(trace_id)


def _plant_runs(wire: Wire, planted: Planted, needle: Callable[[], str], rng: random.Random) -> None:
    root, child = (str(UUID(bytes=rng.randbytes(16), version=4)) for _ in range(2))
    start_ns = wire.clock.now_ns() - 60 * SECOND_NS
    begun, thread_id = iso(start_ns), needle()
    order = f"{datetime_from_ns(start_ns):%Y%m%dT%H%M%S%f}Z{root}"
    common = {"trace_id": root, "start_time": begun, "end_time": iso(start_ns + SECOND_NS), "session_name": "default"}
    parts = [
        {
            "id": root, "dotted_order": order, "run_type": "chain", "name": needle(), "tags": [needle()],
            "inputs": {"q": needle()}, "outputs": {"a": needle()}, "error": f"failed: {needle()}",
            "extra": {
                "metadata": {"user_id": planted.customer, "thread_id": thread_id, needle(): needle()},
                "runtime": {"host": needle()},
            },
            "events": [{"name": needle(), "time": begun, "kwargs": {"token": needle()}}],
            "serialized": {"repr": needle()}, "unheard_of": needle(),
        },
        {
            "id": child, "dotted_order": f"{order}.{order.split('Z')[0]}Z{child}", "parent_run_id": root,
            "run_type": "llm", "name": needle(), "inputs": {"messages": [{"role": "user", "content": needle()}]},
            "outputs": {"usage_metadata": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}},
        },
    ]  # fmt: skip
    answer = wire.post("/runs/batch", {"post": [common | part for part in parts]})
    assert answer.status_code == 202, answer.text
    _attach(wire, planted, root, needle)
    planted.trace_ids.append(root.replace("-", ""))
    planted.run_ids.append(root.replace("-", ""))
    planted.thread_ids.append(thread_id)


def _plant_annotations(wire: Wire, planted: Planted, needle: Callable[[], str], rng: random.Random) -> None:
    """What is said of the two last traces, of a span of theirs, of their sessions, and of a span that never comes."""
    project = wire.catalog.find_project(wire.catalog.first_org.id, "default")
    assert project is not None
    for trace_id in planted.trace_ids[-2:]:
        detail = wire.services.reader.get_trace(Scope((project.id,)), trace_id)
        assert detail is not None
        targets: tuple[tuple[AnnotationTarget, dict[str, Any]], ...] = (
            (AnnotationTarget.SPAN, {"trace_id": trace_id, "span_id": detail.row.summary.root_span_id}),
            (AnnotationTarget.SPAN, {"trace_id": trace_id, "span_id": needle()}),
            (AnnotationTarget.TRACE, {"trace_id": trace_id}),
            (AnnotationTarget.SESSION, {"session_id": detail.row.summary.session_id}),
        )
        for target, ids in targets:
            said = make_annotation(
                needle(), number=rng.getrandbits(120), target=target, identifier=needle(), label=needle(),
                explanation=needle(), source="api", value=f'"{needle()}"'.encode(),
                extra=f'{{"error":"{needle()}"}}'.encode(),
                correction=f'["{needle()}"]'.encode(), metadata=f'{{"k":"{needle()}"}}'.encode(), **ids,
            )  # fmt: skip
            wire.services.annotating.put_annotations(
                [AnnotationWrite((project.id,), said)], received_ns=wire.clock.now_ns()
            )
            planted.annotation_ids.append(said.annotation_id)


def _plant_items(wire: Wire, planted: Planted) -> None:
    """A dataset with an item of each trace, in two versions."""
    made = wire.post("/api/datasets/", {"name": "planted", "is_empty": True})
    assert made.status_code == 201, made.text
    planted.dataset_id = made.json()["id"]
    now = wire.clock.now_ns()
    window = {"start_time": iso(now - 86_400 * SECOND_NS), "end_time": iso(now + SECOND_NS)}
    taken = wire.post(f"/api/datasets/{planted.dataset_id}/logs/import/", window)
    assert taken.json()["imported_count"] == len(planted.trace_ids), taken.text
    for row in wire.get(f"/api/datasets/{planted.dataset_id}/logs/?page_size=100").json()["results"]:
        planted.item_ids.append(row["id"].replace("-", ""))
        answer = wire.send("PATCH", f"/api/datasets/{planted.dataset_id}/logs/{row['id']}/", {"metrics": {"cost": 1}})
        assert answer.status_code == 200, answer.text


def _plant_results(wire: Wire, planted: Planted, needle: Callable[[], str], rng: random.Random) -> None:
    """An experiment over that dataset with two results, each with a score, and an export of them."""
    planted.experiment_id = str(UUID(bytes=rng.randbytes(16), version=4))
    said = {"id": planted.experiment_id, "name": "planted", "reference_dataset_id": planted.dataset_id}
    assert wire.post("/sessions", said).status_code == 200
    start_ns = wire.clock.now_ns() - 60 * SECOND_NS
    for item_id in planted.item_ids[:2]:
        run_id = str(UUID(bytes=rng.randbytes(16), version=4))
        run = {
            "id": run_id, "trace_id": run_id, "session_id": planted.experiment_id, "reference_example_id": item_id,
            "name": needle(), "run_type": "chain", "inputs": {"q": needle()}, "outputs": {"a": needle()},
            "extra": {"metadata": {"user_id": planted.customer, needle(): needle()}},
            "start_time": iso(start_ns), "end_time": iso(start_ns + SECOND_NS),
        }  # fmt: skip
        answer = wire.post("/runs", run)
        assert answer.status_code == 202, answer.text
        feedback = {"run_id": run_id, "key": "accuracy", "score": 0.5, "comment": needle()}
        assert wire.post("/feedback", feedback).status_code == 200
        planted.result_ids.append(run_id.replace("-", ""))
    planted.trace_ids += planted.result_ids
    planted.run_ids += planted.result_ids
    exported = wire.post(f"/api/v2/experiments/{planted.experiment_id}/logs/list/", {"is_exporting": True})
    planted.export_id = exported.json()["export_id"]


def _attach(wire: Wire, planted: Planted, run_id: str, needle: Callable[[], str]) -> None:
    name, data = f"attachment.{run_id}.{needle()}", needle().encode()
    head = f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: text/plain; length={len(data)}\r\n\r\n'
    body = b"--edge\r\n" + head.encode() + data + b"\r\n--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    answer = wire.post("/runs/multipart", body, headers=kind)
    assert (answer.status_code, answer.json()["attachments_accepted"]) == (202, 1), answer.text
    links = wire.get(f"/runs/{run_id}").json()["s3_urls"]
    planted.attachments += [each["presigned_url"].rsplit("/", 1)[1] for each in links.values()]
