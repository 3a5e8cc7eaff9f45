"""OTLP answers, in the encoding of the request (OTLP/HTTP: protobuf in, protobuf out)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.responses import Response

from clearspan.api.errors import Failure, dump_json

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

_GRPC_CODE: Final = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}
_INTERNAL: Final = 13
_RETRY_INFO: Final = b"type.googleapis.com/google.rpc.RetryInfo"


@dataclass(frozen=True, slots=True)
class Partial:
    """What of a request was not stored, and why; 0 when all was."""

    rejected: int
    message: str


def export_reply(partial: Partial, *, protobuf: bool, logs: bool = False) -> Response:
    """The 200 of an export; an empty message or `{}` when nothing was left out."""
    if protobuf:
        return Response(export_message(partial, logs=logs), media_type=PROTOBUF)
    if not (partial.rejected or partial.message):
        return Response(b"{}", media_type=JSON)
    key = "rejectedLogRecords" if logs else "rejectedSpans"
    body = {"partialSuccess": {key: partial.rejected, "errorMessage": partial.message}}
    return Response(dump_json(body), media_type=JSON)


def export_message(partial: Partial, *, logs: bool = False) -> bytes:
    """The protobuf reply to an export; empty when nothing was left out."""
    if not (partial.rejected or partial.message):
        return b""
    if logs:
        reply = ExportLogsServiceResponse()
        reply.partial_success.rejected_log_records = partial.rejected
    else:
        reply = ExportTraceServiceResponse()
        reply.partial_success.rejected_spans = partial.rejected
    reply.partial_success.error_message = partial.message
    message: bytes = reply.SerializeToString()
    return message


def grpc_code(failure: Failure) -> int:
    """The gRPC status of a failed call. What is too large stays so: a code that clients repeat would never end."""
    return _GRPC_CODE[400] if failure.status == 413 else _GRPC_CODE.get(failure.status, _INTERNAL)


def failure_reply(failure: Failure, *, protobuf: bool) -> Response:
    """An error: google.rpc.Status as protobuf, or as JSON with the `detail` and `error` that Respan's clients read."""
    code = _GRPC_CODE.get(failure.status, _INTERNAL)
    if protobuf:
        content, media_type = encode_status(code, failure.message), PROTOBUF
    else:
        body = {"code": code, "message": failure.message, "detail": failure.message, "error": failure.message}
        content, media_type = dump_json(body), JSON
    return Response(content, status_code=failure.status, headers=failure.headers, media_type=media_type)


def encode_status(code: int, message: str, *, retry_after_s: int | None = None) -> bytes:
    """google.rpc.Status {int32 code = 1; string message = 2; repeated Any details = 3}: this little does not merit a
    dependency.

    Args:
        retry_after_s: adds a google.rpc.RetryInfo {Duration {int64 seconds = 1} retry_delay = 1}, which tells OTLP's
            exporters that and when to send again.
    """
    status = b"\x08" + _varint(code) + _field(2, message.encode("utf-8", "replace"))
    if retry_after_s is None:
        return status
    delay = _field(1, b"\x08" + _varint(retry_after_s))
    return status + _field(3, _field(1, _RETRY_INFO) + _field(2, delay))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
