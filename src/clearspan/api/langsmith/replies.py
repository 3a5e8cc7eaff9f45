"""Answers of the LangSmith dialect."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from clearspan.api.errors import dump_json


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(
        dump_json(value), status_code=status, headers=None if headers is None else dict(headers),
        media_type="application/json",
    )  # fmt: skip
