"""An endpoint that speaks OpenAI's chat completions and says what a test wants, on a free port of this machine.

The answer hangs on the request alone, so a run against it can be repeated; calls are counted by item, so that a test
can say how often each was asked about; and any call can be made to fail, to be slow or to misbehave.

    with LlmStub() as stub:
        stub.fail("item-7", Fault(429, headers={"Retry-After": "0"}, times=2))
        ...
        assert stub.count("item-7") == 3
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

Body = dict[str, Any]
COMPLETIONS: Final = "/v1/chat/completions"
_ITEM = re.compile(r"\bitem-[0-9A-Za-z]+")
_TRICKLE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens instead of an answer, or to it.

    Attributes:
        status: of the answer; 200 leaves the answer as it is, only late, trickled or with other headers.
        times: how many calls it happens to; None: to all.
        delay_s: seconds before anything is sent.
        body: sent instead of the answer.
        is_dropped: the connection is closed without a word.
        endless_bytes: so many bytes of blanks go before the body, a piece every few milliseconds, without a length.
    """

    status: int = 200
    times: int | None = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    body: bytes | None = None
    is_dropped: bool = False
    endless_bytes: int = 0


class StubCall(NamedTuple):
    """One request as it came."""

    item: str
    body: Body
    headers: dict[str, str]  # names in lower case
    status: int  # that was answered; 0: none


def messages_text(body: Body) -> str:
    """All that the messages of a request say, in their order."""
    parts: list[str] = []
    for message in body.get("messages", ()):
        content = message.get("content")
        parts += [content] if isinstance(content, str) else [each.get("text", "") for each in content or ()]
    return "\n".join(parts)


def item_of(body: Body) -> str:
    """What a call is counted under: the first `item-…` in its messages, else all they say."""
    text = messages_text(body)
    found = _ITEM.search(text)
    return found[0] if found else text


def echo(body: Body) -> str:
    """The last message said back: the answer unless a test brings another."""
    return "echo: " + messages_text({"messages": body["messages"][-1:]})


class LlmStub:
    """The endpoint; listens from construction until `close`.

    Args:
        reply: request body → text of the answer; must hang on nothing else.
        key_of: request body → what its calls are counted under.
        has_schemas: whether `response_format` of type json_schema is taken; else the answer to it is 400, as that of
            endpoints which do not know it.
        has_usage: whether answers tell tokens: one for each word.
        delay_s: seconds each answer takes.
    """

    def __init__(
        self,
        reply: Callable[[Body], str] = echo,
        *,
        key_of: Callable[[Body], str] = item_of,
        has_schemas: bool = True,
        has_usage: bool = True,
        delay_s: float = 0.0,
    ) -> None:
        self.reply, self.key_of = reply, key_of
        self.has_schemas, self.has_usage, self.delay_s = has_schemas, has_usage, delay_s
        self._lock = threading.Lock()
        self._calls: list[StubCall] = []
        self._faults: dict[str | None, list[list[Any]]] = {}
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="llm-stub", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What the setting `llm_base_url` wants."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> list[StubCall]:
        """Every call so far, in the order of their ends."""
        with self._lock:
            return list(self._calls)

    @property
    def counts(self) -> Counter[str]:
        """Item → calls that were answered or refused."""
        return Counter(call.item for call in self.calls)

    def count(self, item: str) -> int:
        """Calls about one item."""
        return self.counts[item]

    def fail(self, item: str | None, fault: Fault) -> None:
        """Let the next calls about an item meet a fault, after those that were put there before; None: any item."""
        with self._lock:
            self._faults.setdefault(item, []).append([fault, fault.times])

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def take_fault(self, item: str) -> Fault | None:
        """The fault that the next call about an item meets; counted down."""
        with self._lock:
            for key in (item, None):
                for entry in self._faults.get(key, ()):
                    if entry[1] is None:
                        return entry[0]  # type: ignore[no-any-return]
                    if entry[1] > 0:
                        entry[1] -= 1
                        return entry[0]  # type: ignore[no-any-return]
        return None

    def record(self, call: StubCall) -> None:
        """Remember a call."""
        with self._lock:
            self._calls.append(call)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def completion(body: Body, text: str, *, has_usage: bool = True) -> Body:
    """The answer's body: the same for the same request and text."""
    words_in, words_out = len(messages_text(body).split()), len(text.split())
    usage = {"prompt_tokens": words_in, "completion_tokens": words_out, "total_tokens": words_in + words_out}
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model", "stub"),
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        **({"usage": usage} if has_usage else {}),
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, stub: LlmStub) -> None:
        self.stub = stub
        self._open: set[Any] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or hung up is no error here."""

    def drop_all(self) -> None:
        for request in list(self._open):
            self.shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: _Server

    def do_POST(self) -> None:
        stub = self.server.stub
        body: Body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        item = stub.key_of(body)
        fault = stub.take_fault(item) or Fault()
        time.sleep(stub.delay_s + fault.delay_s)
        if fault.is_dropped:
            stub.record(StubCall(item, body, headers, 0))
            self.close_connection = True
            return
        status, content = self._answer(stub, body, fault)
        stub.record(StubCall(item, body, headers, status))
        self._send(status, content, fault)

    def _answer(self, stub: LlmStub, body: Body, fault: Fault) -> tuple[int, bytes]:
        if self.path != COMPLETIONS:
            return 404, _error("There is no such path.", "not_found")
        if fault.status != 200 or fault.body is not None:
            return fault.status, fault.body if fault.body is not None else _error("As the test wants it.", "fault")
        if not stub.has_schemas and body.get("response_format", {}).get("type") == "json_schema":
            return 400, _error("response_format json_schema is not supported", "invalid_request_error")
        return 200, json.dumps(completion(body, stub.reply(body), has_usage=stub.has_usage)).encode()

    def _send(self, status: int, content: bytes, fault: Fault) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json", **fault.headers}
        if fault.endless_bytes:
            self.close_connection = True
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        piece = b" " * 4096
        for _ in range(0, fault.endless_bytes, len(piece)):
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(_TRICKLE_S)
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the test's screen."""


def _error(message: str, kind: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": kind}}).encode()
