"""Spans that clients post: all of them are stored, or none."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any, Final, Self, cast

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import body_limits
from clearspan.api.intake import count_received, encoding_of, ingest_limits, is_large
from clearspan.api.limits import read_body
from clearspan.api.phoenix.conventions import Body, Refused, json_reply, parse_object, phoenix
from clearspan.api.phoenix.globalids import project_of
from clearspan.api.phoenix.naming import find_project
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal, Project
from clearspan.catalog.projects import check_writable
from clearspan.ingest.decompress import decompress
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder
from clearspan.ingest.posted_spans import PostedEvent, PostedSpan, RejectedSpan, decode_posted
from clearspan.model.clock import ns_from_datetime
from clearspan.model.ids import normalise_id
from clearspan.model.span import TraceBatch
from clearspan.model.trace import Scope
from clearspan.store.port import WriteOutcome
from clearspan.store.spans import SpanReader

LOOKED_UP_AT_ONCE: Final = 1_000
_NO_PROJECT: Final = 0
"""Of batches whose project is made only when all of them can be stored."""

Json = dict[str, Any]


class _WithTimes(Body):
    """Something whose times must carry an offset."""

    @model_validator(mode="after")
    def _has_offsets(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise ValueError(
                    f"{name}: timezone-naive timestamp is not allowed; all timestamps must be timezone-aware "
                    "(e.g., use UTC)."
                )
        return self


class _Event(_WithTimes):
    name: str
    timestamp: datetime
    attributes: Json = Field(default_factory=dict)

    def posted(self) -> PostedEvent:
        return PostedEvent(self.name, ns_from_datetime(self.timestamp), self.attributes)


class _Context(Body):
    trace_id: str
    span_id: str


class _Span(_WithTimes):
    id: str = ""
    name: str
    context: _Context
    span_kind: str
    parent_id: str | None = None
    start_time: datetime
    end_time: datetime
    status_code: str
    status_message: str = ""
    attributes: Json = Field(default_factory=dict)
    events: list[_Event] = Field(default_factory=list)

    def posted(self) -> PostedSpan:
        return PostedSpan(
            self.context.trace_id,
            self.context.span_id,
            self.parent_id,
            self.name,
            self.span_kind,
            ns_from_datetime(self.start_time),
            ns_from_datetime(self.end_time),
            self.status_code,
            self.status_message,
            self.attributes,
            [each.posted() for each in self.events],
        )


class _NewSpans(Body):
    data: list[_Span]


@requires(Permission.INGEST)
async def phoenix_create_spans(request: Request) -> Response:
    """Store spans; answered when they are on disk. With one among them that is stored already, or cannot be, none is.

    A project that is named and does not exist is made.
    """
    services, principal = services_of(request), principal_of(request)
    named = str(request.path_params["project"])
    encoding, limits = encoding_of(request), ingest_limits(services.settings)
    origin = Origin(_NO_PROJECT, principal.key_id, principal.environment)
    decoder = Decoder(origin, limits, services.prices, received_ns=services.clock.now_ns())
    with services.gateway.reserve() as reservation:
        packed = await read_body(request, body_limits(services.settings), reservation)

        def read() -> tuple[int, list[PostedSpan]]:
            body = decompress(packed, encoding, limits)
            return len(body), [each.posted() for each in parse_object(body, _NewSpans).data]

        size, posted = await services.gateway.decode(is_large(packed, encoding), read)
        reservation.grow_to(size)
        project = await services.reads.run(_find_for_write, services, principal, named)
        decoded, rejected = await services.gateway.decode(
            is_large(packed, encoding), lambda: decode_posted(posted, decoder)
        )
        known = await services.reads.run(_stored_already, services, principal, project, decoded.batches)
        repeated = [each for each in posted if _stored_id(each) in known]
        if repeated or rejected:
            raise _refusal(len(posted), 0, repeated, rejected)
        if not posted:
            return json_reply({"total_received": 0, "total_queued": 0}, 202)
        if project is None:
            project = await services.reads.run(services.catalog.project_for_ingest, principal, named)
        batches = [each._replace(project_id=project.id) for each in decoded.batches]
        outcomes = await services.gateway.submit(batches)
    count_received(services, decoded, outcomes)
    if any(outcome.refused for outcome in outcomes):
        told = [pair for pair in zip(batches, outcomes, strict=True) if pair[1].refused]
        stored = await services.reads.run(
            _stored_already, services, principal, project, [batch for batch, outcome in told if outcome.stored]
        )
        refused = _refused(told, stored)
        raise _refusal(len(posted), len(posted) - len(refused), [], refused)
    return json_reply({"total_received": len(posted), "total_queued": len(posted)}, 202)


def _find_for_write(services: Services, principal: Principal, named: str) -> Project | None:
    """The project of a GlobalID or a name; None: it is to be made. Raises Refused, NotPermitted."""
    if project_of(named) is not None:
        return find_project(services, principal, named)
    found = services.catalog.find_project(principal.org_id, named)
    check_writable(principal, found)
    return found


def _stored_already(
    services: Services, principal: Principal, project: Project | None, batches: Sequence[TraceBatch]
) -> set[str]:
    """The ids of those spans that the project holds, in whatever trace: Phoenix takes a span's id for its own."""
    if project is None:
        return set()
    scope = Scope((project.id,), principal.environment)
    reader = cast(SpanReader, services.reader)
    ids = sorted({span.span_id for batch in batches for span in batch.spans})
    found: set[str] = set()
    for at in range(0, len(ids), LOOKED_UP_AT_ONCE):
        found |= {row.detail.span.span_id for row in reader.find_spans(scope, ids[at : at + LOOKED_UP_AT_ONCE])}
    return found & set(ids)


def _stored_id(posted: PostedSpan) -> str | None:
    try:
        return normalise_id(posted.span_id)
    except ValueError:
        return None


def _refused(told: Sequence[tuple[TraceBatch, WriteOutcome]], stored: Container[str]) -> list[RejectedSpan]:
    """Spans that a deletion has taken, with their traces or by themselves; beside the latter others may be stored."""
    return [
        RejectedSpan(batch.trace_id, span.span_id, f"it or its trace was deleted (deletion {outcome.deletion_id})")
        for batch, outcome in told
        for span in batch.spans
        if span.span_id not in stored
    ]


def _refusal(received: int, stored: int, repeated: Sequence[PostedSpan], rejected: Sequence[RejectedSpan]) -> Refused:
    """What clients read out of the text of a 400."""
    told = {
        "error": "Request contains invalid or duplicate spans",
        "total_received": received,
        "total_queued": stored,
        "total_duplicates": len(repeated),
        "total_invalid": len(rejected),
        "duplicate_spans": [{"span_id": each.span_id, "trace_id": each.trace_id} for each in repeated],
        "invalid_spans": [
            {"span_id": each.span_id, "trace_id": each.trace_id, "error": each.reason} for each in rejected
        ],
    }
    return Refused(400, json.dumps(told))


ROUTES: Final[tuple[RestRoute, ...]] = (phoenix("POST", "/projects/{project}/spans", phoenix_create_spans),)
