"""An HTTP client for an app in this process.

Starlette's own test client goes over to the event loop's thread eight times a request, and each time waits for a busy
interpreter; this one goes once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import httpx
from starlette.types import ASGIApp, Message

PEER = ("testclient", 50000)


@contextmanager
def app_client(app: ASGIApp, *, base_url: str) -> Iterator[httpx.Client]:
    """A client that any thread may use, while the app is up in a thread of its own.

    An exception that the app does not answer is raised by the request, as nothing stands between to log it.
    """
    with _running(app) as loop, httpx.Client(
        transport=_Transport(app, loop), base_url=base_url, follow_redirects=True
    ) as client:  # fmt: skip
        yield client


@contextmanager
def _running(app: ASGIApp) -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of a thread in which the app has started; it is stopped at the end."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with _lifespan(app):
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def tell_early_end(ended: Future[None]) -> None:
        if not started.done():
            started.set_exception(ended.exception() or NotUp())

    with ThreadPoolExecutor(1, thread_name_prefix="app") as thread:
        served = thread.submit(asyncio.run, serve())
        served.add_done_callback(tell_early_end)
        loop, stop = started.result()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(stop.set)
            served.result()


class NotUp(RuntimeError):
    """The app ended, without an error, before it was up."""


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """The app's start and end, as the ASGI lifespan protocol has them."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, inbox.get, outbox.put))

    async def tell(step: str) -> None:
        await inbox.put({"type": f"lifespan.{step}"})
        answer = asyncio.ensure_future(outbox.get())
        await asyncio.wait({answer, living}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await living  # raises what it ended with
        assert answer.result()["type"] == f"lifespan.{step}.complete", answer.result()

    await tell("startup")
    try:
        yield
    finally:
        await tell("shutdown")
        await living


class _Transport(httpx.BaseTransport):
    """Hands each request over to the loop's thread, whole, and brings its answer back, whole."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._asgi = httpx.ASGITransport(app, client=PEER)
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            stream = request.stream
            assert isinstance(stream, httpx.SyncByteStream)
            asked = httpx.Request(request.method, request.url, headers=request.headers, stream=_Chunks(stream))
            asked.headers = request.headers  # not those that a stream without a length would add
            answer = await self._asgi.handle_async_request(asked)
            content = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(content))

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()


class _Chunks(httpx.AsyncByteStream):
    """A request's body in the pieces that the test gave it in."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._stream:
            yield chunk
