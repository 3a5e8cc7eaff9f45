"""OTLP requests whose parts go to projects of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from clearspan.api.intake import Decode
from clearspan.api.placing import Projects, Session
from clearspan.api.services import Services
from clearspan.catalog.principal import Principal
from clearspan.ingest.batch import DecodedRequest
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import (
    Decoder,
    decode_logs_json,
    decode_logs_protobuf,
    decode_traces_json,
    decode_traces_protobuf,
)
from clearspan.ingest.otlp_projects import OPENINFERENCE, UNNAMED, Naming, ProjectKey, split_json, split_protobuf
from clearspan.model.errors import InvalidInput, NotFound, NotPermitted

PROJECT_HEADER: Final = "x-project-name"
_NO_PROJECT: Final = 0
"""Of an origin whose project each part of the request names."""


class Wire(NamedTuple):
    """In which encoding a request comes, and of what."""

    protobuf: bool = True
    logs: bool = False

    @property
    def decode(self) -> Decode:
        """What reads it."""
        if self.protobuf:
            return decode_logs_protobuf if self.logs else decode_traces_protobuf
        return decode_logs_json if self.logs else decode_traces_json


def unplaced(principal: Principal) -> Origin:
    """Where a request comes from whose projects are found while it is decoded."""
    return Origin(_NO_PROJECT, principal.key_id, principal.environment)


def by_header_or_resource(services: Services, principal: Principal, wire: Wire, header: str | None) -> Decode:
    """As Phoenix places spans: by the header, else `openinference.project.name` of the resource, else the default.

    What names no project goes to the key's own, as ever; so does what a resource names and a bound key may not write
    to: instrumentation sets that name by itself, while whoever bound the key chose. A header is chosen by the sender,
    and refused.
    """
    projects = Projects(services, principal)

    def place(key: ProjectKey) -> int:
        if key == UNNAMED:
            return principal.project_for_write()
        try:
            return projects.of(Session(*key))
        except NotPermitted:
            return principal.project_for_write()

    if not header:
        return by_project(wire, OPENINFERENCE, place)

    def decode(body: bytes, decoder: Decoder) -> DecodedRequest:
        project_id = projects.of(Session(None, header))
        return wire.decode(body, decoder._replace(origin=decoder.origin._replace(project_id=project_id)))

    return decode


def by_project(wire: Wire, naming: Naming, place: Callable[[ProjectKey], int]) -> Decode:
    """A decoder that sends each part of a request to its project.

    A part that may not be written is rejected with its reason; a request of that alone fails with it: NotPermitted,
    NotFound or InvalidInput.
    """
    split = split_protobuf if wire.protobuf else split_json

    def decode(body: bytes, decoder: Decoder) -> DecodedRequest:
        found: list[DecodedRequest] = []
        parts = split(body, naming, decoder.limits.groups)
        for part in parts:
            try:
                project_id = place(part.key)
            except (InvalidInput, NotFound, NotPermitted) as error:
                if len(parts) == 1:
                    raise
                found.append(DecodedRequest([], 0, 0, part.records, (error.message,)))
            else:
                origin = decoder.origin._replace(project_id=project_id)
                found.append(wire.decode(part.body, decoder._replace(origin=origin)))
        return _joined(found)

    return decode


def _joined(found: list[DecodedRequest]) -> DecodedRequest:
    if len(found) == 1:
        return found[0]
    return DecodedRequest(
        [batch for each in found for batch in each.batches],
        sum(each.span_count for each in found),
        sum(each.log_count for each in found),
        sum(each.rejected_count for each in found),
        tuple(dict.fromkeys(reason for each in found for reason in each.reasons)),
    )
