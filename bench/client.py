"""The smallest HTTP/1.1 client that can measure: keep-alive, one request at a time, no pipelining.

A request is bytes made beforehand, so that almost nothing but the socket stands between two time stamps.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple


class Address(NamedTuple):
    """Where a server listens and the key it accepts (None: no key is sent)."""

    host: str
    port: int
    key: str | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class Response(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def render_request(
    address: Address, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """One request, whole."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {address.host}:{address.port}", f"content-length: {len(body)}"]
    if address.key:
        lines.append(f"authorization: Bearer {address.key}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def render_json(address: Address, method: str, path: str, value: Any = None) -> bytes:
    """One request with a JSON body, or none."""
    if value is None:
        return render_request(address, method, path)
    return render_request(address, method, path, json.dumps(value).encode(), {"content-type": "application/json"})


class ResponseParser:
    """Takes bytes as they come and gives one response; then it is ready for the next."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[int, dict[str, str], int] | None = None  # status, headers, where the body starts

    def feed(self, data: bytes) -> Response | None:
        """The response, once its last byte has come."""
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._head = int(first.split(" ", 2)[1]), headers, end + 4
        status, headers, start = self._head
        if status == 204 or "chunked" not in headers.get("transfer-encoding", ""):
            end = start + (0 if status == 204 else int(headers.get("content-length", "0")))
            if len(self._buffer) < end:
                return None
            body = bytes(self._buffer[start:end])
        else:
            chunks = _chunks(self._buffer, start)
            if chunks is None:
                return None
            body = chunks
        self._buffer.clear()
        self._head = None
        return Response(status, headers, body)


def _chunks(buffer: bytearray, at: int) -> bytes | None:
    """The body of a chunked message, or None while its last chunk is missing."""
    out = bytearray()
    while (line_end := buffer.find(b"\r\n", at)) >= 0:
        size = int(bytes(buffer[at:line_end]).partition(b";")[0], 16)
        at = line_end + 2
        if len(buffer) < at + size + 2:
            return None
        if size == 0:
            return bytes(out)
        out += buffer[at : at + size]
        at += size + 2
    return None


class Connection:
    """A blocking keep-alive connection; it opens itself and opens again after an error."""

    def __init__(self, address: Address, timeout_s: float = 120.0) -> None:
        self.address, self._timeout_s = address, timeout_s
        self._socket: socket.socket | None = None
        self._parser = ResponseParser()

    def send(self, raw: bytes) -> Response:
        """Send one rendered request and wait for its whole answer. Raises OSError when the connection breaks twice."""
        try:
            return self._send(raw)
        except ConnectionError:  # an idle connection that the server closed meanwhile
            self.close()
            return self._send(raw)

    def call(self, method: str, path: str, value: Any = None) -> Response:
        """Send a JSON request made on the spot."""
        return self.send(render_json(self.address, method, path, value))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._parser = None, ResponseParser()

    def _send(self, raw: bytes) -> Response:
        if self._socket is None:
            self._socket = socket.create_connection((self.address.host, self.address.port), self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(raw)
        while True:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            response = self._parser.feed(data)
            if response is not None:
                if response.headers.get("connection", "").lower() == "close":
                    self.close()
                return response
