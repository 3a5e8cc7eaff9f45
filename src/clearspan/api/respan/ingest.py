"""Respan's own way in: spans as JSON objects, before it took OTLP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, requires
from clearspan.api.intake import receive
from clearspan.api.respan.traces import json_response
from clearspan.ingest.respan import decode_respan_json
from clearspan.model.errors import InvalidPayload


@requires(Permission.INGEST)
async def ingest_spans(request: Request) -> Response:
    """Store spans given as a JSON array, or as an object whose `data` holds it.

    A span that cannot be read is left out and counted; the request fails only when none could be read.
    """
    received = await receive(request, decode_respan_json)
    if received.rejected and not received.accepted and not received.refused:
        raise InvalidPayload(f"No span was stored. {received.message('spans')}.")
    message = f"Successfully ingested {received.accepted} spans"
    if left_out := received.message("spans"):
        message = f"{message}. {left_out}"
    return json_response({"message": message})
