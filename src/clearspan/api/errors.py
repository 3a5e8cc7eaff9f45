"""From errors to answers.

One table of statuses for every dialect; the shape of the body is the dialect's. Respan's clients repeat a request
by themselves on 408, 409, 429 and 5xx, so a refusal that would be refused again never uses those.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response

from clearspan.api.limits import RequestTimeout
from clearspan.model import errors

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.PayloadTooLarge, 413),
    (errors.InvalidInput, 400),
    (errors.NotAuthenticated, 401),
    (errors.NotPermitted, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.IllegalTransition, 409),
    (errors.Unguarded, 422),
    (errors.ReadTooSlow, 400),
    (errors.Overloaded, 503),
    (RequestTimeout, 408),
)
"""The first class that fits gives the status; anything else is 500 and says nothing of its cause."""

CLOSES_CONNECTION = frozenset({408, 413})
"""After these the rest of the body is still on its way: the connection cannot be used again."""


class UnsupportedMedia(errors.InvalidInput):
    """The content type or encoding is not supported."""

    code = "unsupported_media_type"


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error tells the client, before a dialect gives it a shape."""

    status: int
    code: str
    message: str
    fields: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


def failure_of(error: Exception) -> Failure:
    """The status, code and sentence for an error. Unknown errors become a plain 500 without internals."""
    if isinstance(error, UnsupportedMedia):
        return Failure(415, error.code, error.message)
    for kind, status in STATUS:
        if isinstance(error, kind):
            headers: dict[str, str] = {}
            if isinstance(error, errors.Overloaded):
                headers["Retry-After"] = str(error.retry_after_s)
                status = 429 if error.code == "rate_limited" else status
            if status == 401:
                headers["WWW-Authenticate"] = "Bearer"
            if status in CLOSES_CONNECTION:
                headers["Connection"] = "close"
            if isinstance(error, errors.ClearspanError):
                return Failure(status, error.code, error.message, error.fields, headers)
            return Failure(status, "request_timeout", "The body arrived too slowly.", (), headers)
    return Failure(500, "internal_error", "An internal error occurred; the server's log has it.")


def json_failure(failure: Failure) -> Response:
    """The shape of the Respan dialect and of every path no dialect owns.

    `detail` and `error` hold the same sentence (clients of different versions read one or the other), `code` the
    stable name, and each input field the error is about maps to its sentence, as Respan's 400 model has it.
    """
    body: dict[str, Any] = {name: [failure.message] for name in failure.fields}
    body |= {"detail": failure.message, "error": failure.message, "code": failure.code}
    return Response(
        dump_json(body),
        status_code=failure.status,
        headers=failure.headers,
        media_type="application/json",
    )


def dump_json(value: Any) -> bytes:
    """JSON bytes. Integers over 64 bits stay exact; a lone surrogate becomes U+FFFD instead of an error."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(_encodable(value), ensure_ascii=False, separators=(",", ":")).encode()


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_encodable(str(key)): _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
