"""OTLP whose project is named: by Phoenix's header, else by an attribute of the resource; else nothing changes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clearspan.api.otlp.routes import LOG_PATHS, TRACE_PATHS
from clearspan.catalog import KeyScope
from clearspan.ingest.otlp_projects import LANGSMITH, OPENINFERENCE, UNNAMED, ProjectKey, split_json, split_protobuf
from clearspan.ingest.wire import has_more_groups
from clearspan.model.trace import Scope
from clearspan.testing.wire import SECOND_NS, Wire

PROTOBUF = {"Content-Type": "application/x-protobuf"}
HEADER = "x-project-name"
NAME = "openinference.project.name"


def request_of(wire: Wire | None, *projects: str | None) -> ExportTraceServiceRequest:
    """One trace for each project, with ids 1, 2, 3 …; None names none."""
    request = ExportTraceServiceRequest()
    start_ns = SECOND_NS if wire is None else wire.clock.now_ns() - 60 * SECOND_NS
    for number, name in enumerate(projects, 1):
        group = request.resource_spans.add()
        group.resource.attributes.add(key="service.name").value.string_value = "s"
        if name is not None:
            group.resource.attributes.add(key=NAME).value.string_value = name
        group.scope_spans.add().spans.add(
            trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="n",
            start_time_unix_nano=start_ns, end_time_unix_nano=start_ns + 1,
        )  # fmt: skip
    return request


def as_json(request: Any) -> bytes:
    told = MessageToDict(request)

    def hexed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: (b64_hex(each) if name in ("traceId", "spanId") else hexed(each)) for name, each in value.items()
            }
        return [hexed(each) for each in value] if isinstance(value, list) else value

    return json.dumps(hexed(told)).encode()


def b64_hex(text: str) -> str:
    return base64.b64decode(text).hex()


def project_of(wire: Wire, number: int) -> str | None:
    """The name of the project that holds trace `number`; None: it is nowhere."""
    for project in wire.catalog.projects(wire.catalog.first_org.id):
        if wire.services.reader.get_trace(Scope((project.id,)), number.to_bytes(16, "big").hex()) is not None:
            return project.name
    return None


def send(wire: Wire, body: bytes, path: str = "/v1/traces", **headers: str) -> Any:
    return wire.post(path, body, headers={**PROTOBUF, **{k.replace("_", "-"): v for k, v in headers.items()}})


def test_the_resource_names_the_project_which_is_made(wire: Wire) -> None:
    for number, path in enumerate(TRACE_PATHS):
        name = f"p{number}"
        assert send(wire, request_of(wire, name).SerializeToString(), path).status_code == 200
        assert project_of(wire, 1) in (name, "p0")
        assert wire.catalog.find_project(wire.catalog.first_org.id, name) is not None


def test_the_header_counts_before_the_resource(wire: Wire) -> None:
    body = request_of(wire, "by resource", None).SerializeToString()
    assert send(wire, body, x_project_name="by header").status_code == 200
    assert [project_of(wire, number) for number in (1, 2)] == ["by header", "by header"]
    assert wire.catalog.find_project(wire.catalog.first_org.id, "by resource") is None


def test_without_a_name_everything_is_as_before(wire: Wire) -> None:
    assert send(wire, request_of(wire, None, "").SerializeToString(), x_project_name="").status_code == 200
    assert [project_of(wire, number) for number in (1, 2)] == ["default", "default"]
    assert len(wire.catalog.projects(wire.catalog.first_org.id)) == 1


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_a_request_of_several_projects_is_split(wire: Wire, encoding: str) -> None:
    request = request_of(wire, "a", "b", None, "a")
    body = request.SerializeToString() if encoding == "protobuf" else as_json(request)
    headers = PROTOBUF if encoding == "protobuf" else {"Content-Type": "application/json"}
    assert wire.post("/v1/traces", body, headers=headers).status_code == 200
    assert [project_of(wire, number) for number in (1, 2, 3, 4)] == ["a", "b", "default", "a"]


def test_logs_follow_their_traces(wire: Wire) -> None:
    send(wire, request_of(wire, "a").SerializeToString())
    logs = ExportLogsServiceRequest()
    group = logs.resource_logs.add()
    group.resource.attributes.add(key=NAME).value.string_value = "a"
    record = group.scope_logs.add().log_records.add(trace_id=(1).to_bytes(16, "big"), span_id=(1).to_bytes(8, "big"))
    record.body.string_value = "said"
    for path, body, headers in (
        (LOG_PATHS[0], logs.SerializeToString(), PROTOBUF),
        (LOG_PATHS[1], as_json(logs), {"Content-Type": "application/json"}),
    ):
        assert wire.post(path, body, headers=headers).status_code == 200
        project = wire.catalog.find_project(wire.catalog.first_org.id, "a")
        assert project is not None
        found = wire.services.reader.get_trace(Scope((project.id,)), (1).to_bytes(16, "big").hex())
        assert found is not None
        assert found.logs
        assert project_of(wire, 1) == "a"


def test_a_bound_key_writes_to_no_other_project_and_makes_none(wire: Wire) -> None:
    """What instrumentation names goes to the key's project and is not lost; what a header names is refused."""
    org_id = wire.catalog.first_org.id
    mine = wire.catalog.create_project(org_id, "mine")
    key = wire.key(KeyScope.INGEST, project_ids=[mine.id])
    headed = wire.post(
        "/v1/traces", request_of(wire, "mine").SerializeToString(), headers={**PROTOBUF, HEADER: "other"}, key=key
    )
    assert headed.status_code == 403
    assert project_of(wire, 1) is None
    sent = wire.post(
        "/v1/traces", as_json(request_of(wire, "other", "mine", None)), key=key,
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert sent.status_code == 200
    assert "partialSuccess" not in sent.json()
    assert [project_of(wire, number) for number in (1, 2, 3)] == ["mine", "mine", "mine"]
    assert wire.catalog.find_project(org_id, "other") is None


def test_a_name_that_no_project_can_have_is_told(wire: Wire) -> None:
    answer = send(wire, request_of(wire, "x" * 300).SerializeToString())
    assert answer.status_code == 400
    assert "A name has 1 to 255 characters" in answer.content.decode("utf-8", "replace")


NAMES = st.lists(st.sampled_from([None, "a", "b", "ü"]), max_size=6)


@given(NAMES)
def test_a_split_keeps_every_span_once(names: list[str | None]) -> None:
    request = request_of(None, *names)
    for parts in (
        split_protobuf(request.SerializeToString(), OPENINFERENCE),
        split_json(as_json(request), OPENINFERENCE),
    ):
        assert {part.key for part in parts} <= {ProjectKey(None, name) for name in names} | {UNNAMED}
        assert len({part.key for part in parts}) == len(parts)
    found = []
    for part in split_protobuf(request.SerializeToString(), OPENINFERENCE):
        told = ExportTraceServiceRequest.FromString(part.body)
        for group in told.resource_spans:
            for span in group.scope_spans[0].spans:
                number = int.from_bytes(span.span_id, "big")
                assert names[number - 1] == part.key.name
                found.append(number)
    assert sorted(found) == list(range(1, len(names) + 1))


@given(st.binary(max_size=200))
def test_what_cannot_be_read_stays_whole(noise: bytes) -> None:
    body = NAME.encode() + noise
    for split, naming in ((split_protobuf, OPENINFERENCE), (split_json, OPENINFERENCE), (split_protobuf, LANGSMITH)):
        assert split(body, naming)[0].body == body


def test_a_body_of_countless_groups_is_not_parsed_to_be_split() -> None:
    for naming in (OPENINFERENCE, LANGSMITH):
        body = request_of(None, naming.name).SerializeToString() + b"\x0a\x00" * 20
        assert has_more_groups(body, 10)
        assert split_protobuf(body, naming, 10) == [(UNNAMED, body, 0)]
