"""How a native body may come: which content types and encodings are read, and which are refused and how."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
import zstandard
from native import later, refused

from clearspan.api.bodies import REST_BODY_BYTES_MAX
from clearspan.testing.wire import Wire


@pytest.fixture
def one(wire: Wire) -> Wire:
    wire.ingest(wire.span("a", customer_identifier="u1"))
    return wire


def send(wire: Wire, body: bytes, path: str = "/v1/deletions", method: str = "POST", **headers: str) -> Any:
    return wire.send(method, path, body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def ids_body(wire: Wire) -> bytes:
    return json.dumps({"trace_ids": ["a"], "not_before": later(wire)}).encode()


@pytest.mark.parametrize(
    "kind",
    [
        None, "application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"',
        "application/vnd.example+json", "",
    ],
)  # fmt: skip
def test_json_is_taken_under_its_names_and_under_none(one: Wire, kind: str | None) -> None:
    headers = {} if kind is None else {"content_type": kind}
    assert send(one, ids_body(one), **headers).status_code == 202


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonl",
        "application/json; charset=iso-8859-1", "application/x-protobuf", "nonsense", "application/json, text/plain",
    ],
)  # fmt: skip
def test_another_content_type_is_refused_and_nothing_is_done(one: Wire, kind: str) -> None:
    answer = send(one, ids_body(one), content_type=kind)
    refused(answer, 415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]
    for path in ("/v1/deletions/preview", "/v1/holds", "/v1/tombstones/lift"):
        refused(send(one, b'{"trace_ids": ["a"], "reason": "r"}', path, content_type=kind), 415, answer.json()["code"])
    assert one.list_ids() == ["a"]
    assert one.get("/v1/holds?state=all").json()["data"] == []


def test_a_body_that_is_not_there_has_no_type(one: Wire) -> None:
    told = send(one, ids_body(one)).json()
    form = "application/x-www-form-urlencoded"
    assert send(one, b"", f"/v1/deletions/{told['id']}/cancel", content_type=form).status_code == 200
    assert one.list_ids() == ["a"]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate", "zstd", "identity"])
def test_packed_bodies_are_read_as_ingest_reads_them(one: Wire, encoding: str) -> None:
    packers = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress, "identity": bytes}
    pack: Any = packers[encoding.lower().removeprefix("x-")]
    answer = send(one, pack(ids_body(one)), content_encoding=encoding, content_type="application/json")
    assert answer.status_code == 202, answer.text
    assert one.list_ids() == []


def test_what_cannot_be_unpacked_is_refused(one: Wire) -> None:
    body = ids_body(one)
    refused(send(one, body, content_encoding="br"), 415, "unsupported_media_type")
    refused(send(one, body, content_encoding="gzip, gzip"), 415, "unsupported_media_type")
    refused(send(one, body, content_encoding="gzip"), 400, "invalid_payload")
    refused(send(one, gzip.compress(body)[:-5], content_encoding="gzip"), 400, "invalid_payload")
    refused(send(one, gzip.compress(body)), 400, "invalid_json")
    large = gzip.compress(b" " * (REST_BODY_BYTES_MAX + 1))
    refused(send(one, large, content_encoding="gzip"), 413, "payload_too_large")
    refused(send(one, zstandard.compress(b" " * 2**28), content_encoding="zstd"), 413, "payload_too_large")
    assert one.list_ids() == ["a"]
