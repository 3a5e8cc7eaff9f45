"""The parts under the routes: body limits, the gateway's budget, times, links, the shape of logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from clearspan.api.auth import Permission
from clearspan.api.errors import dump_json, failure_of
from clearspan.api.gateway import IngestGateway
from clearspan.api.limits import BodyLimits, RequestTimeout, read_body
from clearspan.api.logs import configure_logging
from clearspan.api.otlp.replies import encode_status
from clearspan.api.rates import RateLimited, RateLimits
from clearspan.api.respan.convert import SpanTexts, Tree, dump_detail
from clearspan.api.respan.window import default_window, open_window, parse_time, render_time
from clearspan.api.routing import spellings
from clearspan.model import errors
from clearspan.model.errors import InvalidPayload, InvalidTime, Overloaded, PayloadTooLarge
from clearspan.model.span import TraceBatch
from clearspan.settings import Settings
from clearspan.store.port import WriteOutcome
from clearspan.testing.build import make_trace
from clearspan.testing.clock import FixedClock

FOREVER_S = 3600.0
AT_ONCE_S = 0.02


def request_with(
    chunks: Sequence[bytes], *, hangs: bool = False, leaves: bool = False, length: str | None = None
) -> Request:
    """A request whose body arrives in these chunks, and then ends, hangs, or breaks off."""
    pending = list(chunks)

    async def receive() -> dict[str, Any]:
        if pending:
            chunk = pending.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(pending) or hangs or leaves}
        if leaves:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def read(request: Request, **limits: Any) -> bytes:
    return asyncio.run(read_body(request, BodyLimits(**{"bytes_max": 100, "first_byte_s": FOREVER_S, **limits})))


class TestBodies:
    def test_chunks_are_put_together(self) -> None:
        assert read(request_with([b"ab", b"", b"c"])) == b"abc"
        assert read(request_with([b""])) == b""

    def test_a_body_over_the_limit_is_refused_before_and_while_it_is_read(self) -> None:
        with pytest.raises(PayloadTooLarge):
            read(request_with([b"x"], length="101"))
        with pytest.raises(PayloadTooLarge):
            read(request_with([b"x" * 60, b"x" * 60], hangs=True))
        assert len(read(request_with([b"x" * 100], length="100"))) == 100

    @pytest.mark.parametrize("length", ["-1", "1e3", "ten", "１"])
    def test_a_length_that_is_no_number_is_refused(self, length: str) -> None:
        with pytest.raises((InvalidPayload, UnicodeError)):
            read(request_with([b"x"], length=length))

    def test_a_silent_client_is_cut_off(self) -> None:
        with pytest.raises(RequestTimeout):
            read(request_with([], hangs=True), first_byte_s=AT_ONCE_S)

    def test_a_client_that_stops_in_the_middle_is_cut_off_by_the_rate(self) -> None:
        with pytest.raises(RequestTimeout):
            read(request_with([b"x"], hangs=True), first_byte_s=AT_ONCE_S, bytes_per_s_min=1000)

    def test_a_client_that_leaves_is_a_broken_body(self) -> None:
        with pytest.raises(InvalidPayload):
            read(request_with([b"x"], leaves=True))

    def test_a_rate_of_zero_asks_for_the_first_byte_only(self) -> None:
        assert read(request_with([b"a", b"b"]), first_byte_s=AT_ONCE_S, bytes_per_s_min=0) == b"ab"


class SlowWriter:
    """A WriterClient that answers when the test lets it."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.written = 0

    async def write(self, batches: Sequence[TraceBatch], received_ns: int) -> list[WriteOutcome]:
        await self.may_answer.wait()
        self.written += len(batches)
        return [WriteOutcome(len(batch.spans), 0, 0, None) for batch in batches]

    def submit(self, batches: Sequence[TraceBatch], received_ns: int) -> Future[list[WriteOutcome]]:
        raise AssertionError("no thread writes here")


class TestGateway:
    def test_the_budget_is_held_until_the_request_ends(self) -> None:
        gateway = IngestGateway(SlowWriter(), FixedClock(), queue_bytes_max=100)
        with gateway.reserve() as first, gateway.reserve() as second:
            first.grow(60)
            first.grow_to(50)
            with pytest.raises(Overloaded):
                second.grow(41)
            second.grow(40)
            assert gateway.queued_bytes == 100
        assert gateway.queued_bytes == 0
        gateway.close()

    def test_a_client_that_hangs_up_does_not_stop_the_commit(self) -> None:
        async def scenario() -> int:
            writer = SlowWriter()
            gateway = IngestGateway(writer, FixedClock(), queue_bytes_max=100)
            task = asyncio.create_task(gateway.submit([make_trace("t1")]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            writer.may_answer.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gateway.close()
            return writer.written

        assert asyncio.run(scenario()) == 1

    def test_nothing_to_write_is_answered_without_the_writer(self) -> None:
        gateway = IngestGateway(SlowWriter(), FixedClock(), queue_bytes_max=100)
        assert asyncio.run(gateway.submit([])) == []
        gateway.close()


class TestRates:
    def test_a_budget_fills_up_evenly(self) -> None:
        clock = FixedClock()
        rates = RateLimits(Settings(rate_limit_delete=2), clock)
        for _ in range(100):
            rates.spend("key_1", Permission.READ)
        rates.spend("key_1", Permission.DELETE)
        rates.spend("key_1", Permission.DELETE)
        with pytest.raises(RateLimited) as refused:
            rates.spend("key_1", Permission.DELETE)
        assert refused.value.retry_after_s == 30
        failure = failure_of(refused.value)
        assert (failure.status, failure.headers["Retry-After"]) == (429, "30")
        rates.spend("key_2", Permission.DELETE)
        clock.advance(30)
        rates.spend("key_1", Permission.DELETE)
        with pytest.raises(RateLimited):
            rates.spend("key_1", Permission.DELETE)


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-01-01", "2026-01-01T00:00:00.000000Z"),
            ("2026-01-01T10:00", "2026-01-01T10:00:00.000000Z"),
            ("2026-01-01 10:00:00", "2026-01-01T10:00:00.000000Z"),
            ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.000000Z"),
            ("2026-01-01T10:00:00.5+02:00", "2026-01-01T08:00:00.500000Z"),
            ("2026-01-01T10:00:00 02:00", "2026-01-01T08:00:00.000000Z"),
            ("2026-01-01T10:00:00-0530", "2026-01-01T15:30:00.000000Z"),
            ("1970-01-01", "1970-01-01T00:00:00.000000Z"),
        ],
    )
    def test_forms(self, text: str, expected: str) -> None:
        assert render_time(parse_time(text, "start_time")) == expected

    @pytest.mark.parametrize(
        "text", ["", "now", "1767225600", "2026-1-1", "2026-02-30", "2026-01-01T25:00", "2026-01-01T10:00:00+25:00",
                 "0001-01-01T00:00:00+23:00", "9999-12-31", "２０２６-01-01", "2026-01-01T10:00:00ZZ"]
    )  # fmt: skip
    def test_what_is_no_time(self, text: str) -> None:
        with pytest.raises(InvalidTime) as refused:
            parse_time(text, "end_time")
        assert refused.value.fields == ("end_time",)

    @given(st.integers(min_value=0, max_value=2**63 - 1))
    def test_what_is_rendered_can_be_read(self, ns: int) -> None:
        text = render_time(ns)
        assert text is not None
        assert parse_time(text, "start_time") == ns // 1000 * 1000

    def test_nanoseconds_count(self) -> None:
        assert parse_time("1970-01-01T00:00:00.000000001Z", "start_time") == 1

    def test_windows(self) -> None:
        hour_ns = 3600 * 10**9
        found = default_window(None, None, 5 * hour_ns)
        assert (found.window, found.is_default) == ((4 * hour_ns, 5 * hour_ns), True)
        assert default_window("1970-01-01", None, hour_ns).window == (0, hour_ns)
        earliest = default_window(None, "1677-09-21T00:30:00Z", hour_ns).window
        assert earliest.start_ns == -(2**63 - 1)
        assert open_window(None, None).header() == "../..; source=request"
        assert open_window("1970-01-01", None).header() == "1970-01-01T00:00:00.000000Z/..; source=request"
        with pytest.raises(InvalidTime):
            open_window("2026-01-02", "2026-01-01")


class TestShapes:
    def test_every_error_has_a_status(self) -> None:
        def leaves(kind: type[Exception]) -> list[type[Exception]]:
            return [kind, *(each for sub in kind.__subclasses__() for each in leaves(sub))]

        internal = {errors.ClearspanError, errors.StoreDamaged}
        for kind in leaves(errors.ClearspanError):
            if kind.__module__ == "clearspan.model.errors" and kind not in internal:
                assert failure_of(kind()).status < 500 or kind is errors.Overloaded, kind

    def test_a_refusal_that_would_be_repeated_never_asks_for_a_repeat(self) -> None:
        """Respan's client sends again by itself on 408, 409, 429 and 5xx."""
        for kind in (errors.InvalidFilter, errors.Unguarded, errors.NotPermitted, errors.NotAuthenticated):
            assert failure_of(kind()).status in (400, 401, 403, 422)

    def test_json_that_orjson_refuses(self) -> None:
        found = json.loads(dump_json({"a": "x\ud800", "b": 2**70, "c": [float("nan")]}))
        assert (found["a"][0], "\ufffd" in found["a"], found["b"], found["c"]) == ("x", True, 2**70, [None])

    def test_a_status_message_longer_than_127_bytes(self) -> None:
        assert encode_status(3, "x" * 200)[:5] == b"\x08\x03\x12\xc8\x01"
        assert encode_status(3, "é")[-2:] == "é".encode()

    def test_trees_are_written_as_any_encoder_would(self) -> None:
        tree = Tree({name: {"id": name} for name in "abcd"}, {None: ["a", "d"], "a": ["b", "c"]})
        assert json.loads(dump_detail({"id": "t"}, tree)) == {
            "id": "t",
            "span_tree": [
                {"id": "a", "children": [{"id": "b", "children": []}, {"id": "c", "children": []}]},
                {"id": "d", "children": []},
            ],
        }
        assert dump_detail({"id": "t"}, Tree({}, {})) == b'{"id":"t","span_tree":[]}'
        assert SpanTexts(None, None, None).links is None

    def test_spellings(self) -> None:
        assert spellings("/a/", "/b", "/") == ["/a/", "/a", "/b", "/b/", "/"]


class TestLogs:
    def test_an_exceptions_text_is_never_logged(self) -> None:
        out = io.StringIO()
        root = logging.getLogger()
        before = root.handlers[:], root.level
        try:
            configure_logging("info", out)
            try:
                raise ValueError("needle in the message")
            except ValueError:
                logging.getLogger("some.library").exception("it failed")
        finally:
            root.handlers[:], level = before
            root.setLevel(level)
        line = json.loads(out.getvalue())
        assert (line["event"], line["exception"], line["logger"]) == ("it failed", "ValueError", "some.library")
        assert line["places"][0].startswith(f"{__name__}:")
        assert "needle" not in out.getvalue()
