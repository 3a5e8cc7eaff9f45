"""Requests that leave the server: only to addresses that anybody may reach, unless the operator allows the very host.

    transport = EgressTransport(EgressPolicy(allowed_hosts=frozenset({("127.0.0.1", 11434)})), seconds_max=60)
    client = httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)

A name is resolved once, every address it has is checked, and the connection is made to a checked one: there is no
second resolution that could answer otherwise. TLS and the Host header keep the name. Judged is the address only, never
its text. Redirects, proxies of the environment and compressed answers do not happen here; time and size have a limit.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpcore2
import httpx2

PORTS: Final = frozenset({443, 8443})
CONNECT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 8 * 2**20

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""(host, port) → its addresses, as text."""

_SIX_TO_FOUR: Final = ipaddress.IPv6Network("2002::/16")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_REFUSED: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/4",
            "240.0.0.0/4", "64:ff9b:1::/48", "100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
            "ff00::/8",
        ),
    )
)  # fmt: skip
"""What `ipaddress` calls global in one version of Python or another, and nobody should be asked to reach."""


class EgressRefused(httpx2.TransportError):
    """The request may not leave: its address, scheme or port is not one that may be asked."""


class AnswerTooLarge(httpx2.TransportError):
    """The answer has more bytes than are read."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What may be asked.

    Attributes:
        allowed_hosts: (host in lower case, port) that the operator named: any address and scheme.
        allowed_networks: networks that the operator named, for any host.
        ports: of all other hosts, which need https.
    """

    allowed_hosts: frozenset[tuple[str, int]] = frozenset()
    allowed_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    ports: frozenset[int] = PORTS

    def check_url(self, url: httpx2.URL) -> None:
        """Refuse an address that nothing needs to be resolved for. Raises EgressRefused."""
        if url.userinfo:
            raise EgressRefused("An address holds a user or a password.")
        if url.scheme not in ("http", "https"):
            raise EgressRefused("An address is neither http nor https.")
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        if (url.host.lower(), port) in self.allowed_hosts:
            return
        if url.scheme != "https":
            raise EgressRefused("An address is not https.")
        if port not in self.ports:
            raise EgressRefused("An address has a port that may not be asked.")

    def check_addresses(self, host: str, port: int, addresses: Iterable[str]) -> list[str]:
        """All addresses of a host, if each may be asked. Raises EgressRefused: one may not, or there is none."""
        found = [ipaddress.ip_address(text.split("%")[0]) for text in addresses]
        if not found:
            raise EgressRefused("A host has no address.")
        if (host.lower(), port) not in self.allowed_hosts:
            for address in found:
                if not is_public(address) and not self._is_allowed(address):
                    raise EgressRefused("A host has an address that may not be asked.")
        return [str(address) for address in found]

    def _is_allowed(self, address: Address) -> bool:
        forms = unwrapped(address)
        return all(any(form in network for network in self.allowed_networks) or is_public(form) for form in forms)


def unwrapped(address: Address) -> list[Address]:
    """The address and all that it stands for: IPv6 has five ways to carry an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    number = int(address)
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _SIX_TO_FOUR:
        return [ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)]
    if address in _TEREDO:  # server and, inverted, client
        return [ipaddress.IPv4Address(number >> 64 & 0xFFFFFFFF), ipaddress.IPv4Address(~number & 0xFFFFFFFF)]
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and number > 1):
        return [ipaddress.IPv4Address(number & 0xFFFFFFFF)]
    return [address]


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, and all that it stands for."""
    return all(
        form.is_global
        and not (form.is_multicast or form.is_reserved or form.is_loopback or form.is_link_local)
        and not form.is_private
        and not any(form in network for network in _REFUSED)
        for form in unwrapped(address)
    )


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses; knows hosts by what they resolve to once."""

    def __init__(self, policy: EgressPolicy, resolver: Resolver = resolve) -> None:
        self._policy, self._resolver = policy, resolver
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address that takes one. Raises EgressRefused before anything is sent."""
        try:
            async with asyncio.timeout(timeout):
                addresses = self._policy.check_addresses(host, port, await self._resolver(host, port))
        except TimeoutError:
            raise httpcore2.ConnectTimeout("A host was not resolved in time.") from None
        except OSError:
            raise httpcore2.ConnectError("A host cannot be resolved.") from None
        last: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        assert last is not None
        raise last

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise EgressRefused("Requests do not leave through a file.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class EgressTransport(httpx2.AsyncBaseTransport):
    """What an httpx2 client sends through.

    Args:
        seconds_max: of one request, from its first to its answer's last byte.
        bytes_max: of one answer's body.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        seconds_max: float,
        bytes_max: int = ANSWER_BYTES_MAX,
        connections_max: int = 100,
        resolver: Resolver = resolve,
    ) -> None:
        self._policy, self._seconds_max, self._bytes_max = policy, seconds_max, bytes_max
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            max_connections=connections_max,
            keepalive_expiry=30.0,
            network_backend=GuardedBackend(policy, resolver),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. Raises EgressRefused, or what httpx2's own transport raises."""
        self._policy.check_url(request.url)
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        # A compressed answer could unpack to any size; the limit is on what is read.
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=[*headers, (b"Accept-Encoding", b"identity")],
            content=request.stream,
            extensions=_with_connect_limit(request.extensions),
        )
        ends = asyncio.get_running_loop().time() + self._seconds_max
        async with _told_as_httpx2(ends):
            answer = await self._pool.handle_async_request(asked)
        stream = _BoundedStream(answer.stream, ends, self._bytes_max)
        if _header(answer.headers, b"content-encoding") not in (b"", b"identity"):
            await stream.aclose()
            raise httpx2.RemoteProtocolError("An answer is compressed, which was not asked for.")
        return httpx2.Response(answer.status, headers=answer.headers, stream=stream)

    async def aclose(self) -> None:
        """End all connections."""
        await self._pool.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    """An answer's body, until its time or its size is used up."""

    def __init__(self, stream: Any, ends: float, bytes_max: int) -> None:
        self._stream, self._ends, self._bytes_max = stream, ends, bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        parts = aiter(self._stream)
        while True:
            try:
                async with _told_as_httpx2(self._ends):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            size += len(part)
            if size > self._bytes_max:
                raise AnswerTooLarge("An answer has too many bytes.")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def _told_as_httpx2(ends: float) -> AsyncIterator[None]:
    """Ends in time, and lets errors of the network be those that httpx2's callers know. Their texts hold addresses
    at most; they are not passed on."""
    try:
        async with asyncio.timeout_at(ends):
            yield
    except (TimeoutError, httpcore2.TimeoutException):
        raise httpx2.ReadTimeout("The endpoint took too long.") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise httpx2.NetworkError(f"The endpoint cannot be reached: {type(error).__name__}.") from None


def _with_connect_limit(extensions: Any) -> dict[str, Any]:
    timeouts = dict(extensions.get("timeout") or {})
    given = timeouts.get("connect")
    timeouts["connect"] = CONNECT_S if given is None else min(given, CONNECT_S)
    return {**extensions, "timeout": timeouts}


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((value.strip().lower() for key, value in headers if key.lower() == name), b"")
