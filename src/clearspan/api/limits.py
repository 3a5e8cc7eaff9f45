"""Reading a request body that may be too large, too slow or never end.

The server underneath closes connections that drip their headers, but not those that drip their body: the deadlines
here do. They are a budget, not a gap between packets: a client that sends one byte a second passes any gap test.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from clearspan.model.errors import InvalidPayload, PayloadTooLarge


class RequestTimeout(Exception):
    """The body arrived too slowly."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one request body may cost.

    Attributes:
        bytes_max: the most bytes of body, as sent.
        first_byte_s: how long the first byte may take, and the head start of the rate below.
        bytes_per_s_min: average rate that the client must hold after that; 0: any.
    """

    bytes_max: int
    first_byte_s: float = 10.0
    bytes_per_s_min: int = 16 * 1024

    def deadline(self, started: float, received: int) -> float | None:
        """When the next chunk must be there, given how much has come since `started`; None: whenever."""
        if self.bytes_per_s_min:
            return started + self.first_byte_s + received / self.bytes_per_s_min
        return None if received else started + self.first_byte_s


class ByteAccount(Protocol):
    """Whoever counts the bytes held in memory (gateway.Reservation)."""

    def grow(self, size: int) -> None:
        """Count `size` bytes more, or raise Overloaded."""
        ...


async def read_body(request: Request, limits: BodyLimits, account: ByteAccount | None = None) -> bytes:
    """The whole body of a request, as sent (still compressed, if it was).

    Args:
        account: told of every chunk before it is kept, so that the sum over all requests stays bounded.
    Raises:
        PayloadTooLarge: by its Content-Length, or once more than `bytes_max` have arrived.
        RequestTimeout: slower than the limits allow.
        InvalidPayload: the Content-Length is no number, or the client went away in the middle.
        Overloaded: the account is full.
    """
    declared = request.headers.get("content-length")
    if declared is not None:
        if not (declared.isascii() and declared.isdigit()):
            raise InvalidPayload("Content-Length is not a number.")
        if len(declared) > 18 or int(declared) > limits.bytes_max:
            raise too_large(limits.bytes_max)
    chunks: list[bytes] = []
    received = 0
    started = asyncio.get_running_loop().time()
    try:
        # One timer, moved as bytes arrive, and no stream generator: a body of 1 MB comes in dozens of pieces.
        async with asyncio.timeout_at(limits.deadline(started, received)) as timer:
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise InvalidPayload("The client closed the connection before the body was complete.")
                more = message.get("more_body", False)
                chunk = message.get("body", b"")
                if not chunk:
                    continue
                received += len(chunk)
                if received > limits.bytes_max:
                    raise too_large(limits.bytes_max)
                if account is not None:
                    account.grow(len(chunk))
                chunks.append(chunk)
                timer.reschedule(limits.deadline(started, received))
    except TimeoutError:
        raise RequestTimeout from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(bytes_max: int) -> PayloadTooLarge:
    """The error for a body of more than `bytes_max` bytes."""
    return PayloadTooLarge(f"The body is larger than the limit of {bytes_max} bytes.")
