"""What every ingest route does: read the body within limits, decode it, store it, tell what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request

from clearspan.api.auth import principal_of
from clearspan.api.bodies import body_limits
from clearspan.api.errors import UnsupportedMedia
from clearspan.api.gateway import INLINE_BYTES_MAX, Reservation
from clearspan.api.limits import read_body
from clearspan.api.services import Services, services_of
from clearspan.ingest.batch import DecodedRequest
from clearspan.ingest.decompress import decompress
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import Decoder
from clearspan.settings import Settings
from clearspan.store.port import WriteOutcome

Decode = Callable[[bytes, Decoder], DecodedRequest]

ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate", "zstd"})
_PACKING = 8
"""A packed body is taken for this many times its size when it is weighed against INLINE_BYTES_MAX."""


class Received(NamedTuple):
    """What became of one ingest request; all of it is on disk."""

    accepted: int  # spans and logs that are stored now, those that were before included
    rejected: int  # could not be read or are over a limit
    refused: int  # belong to a deleted trace
    reasons: tuple[str, ...]  # of the rejections
    deletion_id: str | None  # of one that refused

    def message(self, noun: str) -> str:
        """Why something was left out, for people; "" when nothing was."""
        parts = []
        if self.rejected:
            parts.append(f"{self.rejected} {noun} rejected: {'; '.join(self.reasons)}")
        if self.refused:
            parts.append(f"{self.refused} {noun} refused: their trace was deleted (deletion {self.deletion_id})")
        return ". ".join(parts)


async def receive(request: Request, decode: Decode, origin: Origin | None = None) -> Received:
    """Take one ingest request in; returns after what it holds is durable.

    Args:
        origin: where its traces go; None: to the default project of the key.
    Raises:
        InvalidPayload, PayloadTooLarge, UnsupportedMedia, RequestTimeout: nothing was stored.
        Overloaded: the queue or the disk is full; nothing was stored, and sending it again is safe.
        NotPermitted: the key has no project to write to.
    """
    services, principal = services_of(request), principal_of(request)
    encoding = encoding_of(request)
    origin = origin or Origin(principal.project_for_write(), principal.key_id, principal.environment)
    with services.gateway.reserve() as reservation:
        body = await read_body(request, body_limits(services.settings), reservation)
        return await take_in(services, body, encoding, decode, origin, reservation)


async def take_in(
    services: Services, body: bytes, encoding: str, decode: Decode, origin: Origin, reservation: Reservation
) -> Received:
    """Unpack, decode and store a body that has arrived; as `receive`.

    Args:
        encoding: one of ENCODINGS.
        reservation: already counts the body.
    """
    limits = ingest_limits(services.settings)
    decoder = Decoder(origin, limits, services.prices, received_ns=services.clock.now_ns())

    def work() -> tuple[int, DecodedRequest]:
        unpacked = decompress(body, encoding, limits)
        return len(unpacked), decode(unpacked, decoder)

    unpacked_bytes, decoded = await services.gateway.decode(is_large(body, encoding), work)
    reservation.grow_to(unpacked_bytes)
    outcomes = await services.gateway.submit(decoded.batches)
    return count_received(services, decoded, outcomes)


def encoding_of(request: Request) -> str:
    """The request's Content-Encoding, in lower case. Raises UnsupportedMedia: one that is not among ENCODINGS."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        raise UnsupportedMedia("Content-Encoding must be gzip, deflate, zstd or none.")
    return encoding


def is_large(body: bytes, encoding: str) -> bool:
    """Whether decoding this body would hold up other requests."""
    return len(body) * (_PACKING if encoding not in ("", "identity") else 1) > INLINE_BYTES_MAX


def ingest_limits(settings: Settings) -> IngestLimits:
    """The decoding limits that the settings ask for."""
    return IngestLimits(
        body_bytes=settings.body_unpacked_bytes_max,
        ratio=settings.body_ratio_max,
        depth=settings.nesting_depth_max,
        attributes_per_span=settings.span_attributes_max,
        attribute_bytes=settings.attribute_bytes_max,
    )


def count_received(services: Services, decoded: DecodedRequest, outcomes: list[WriteOutcome]) -> Received:
    """What became of a request that was stored, told to the metrics as well."""
    stored = sum(outcome.stored for outcome in outcomes)
    refused = sum(outcome.refused for outcome in outcomes)
    accepted = decoded.span_count + decoded.log_count - refused
    figures = services.metrics.spans
    figures.labels("accepted").inc(stored)
    figures.labels("repeated").inc(max(0, accepted - stored))
    figures.labels("rejected").inc(decoded.rejected_count)
    figures.labels("refused").inc(refused)
    services.metrics.late_refused.inc(refused)
    deletion_id = next((outcome.deletion_id for outcome in outcomes if outcome.deletion_id), None)
    return Received(accepted, decoded.rejected_count, refused, decoded.reasons, deletion_id)
