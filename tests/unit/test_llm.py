"""The client for language models: what is asked again, what is told, and that nothing secret or said leaves it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clearspan.api.logs import configure_logging
from clearspan.experiments.llm import (
    Completion,
    LlmClient,
    LlmError,
    LlmNotConfigured,
    LlmRefused,
    LlmUnavailable,
)
from clearspan.ingest.pricing import PriceBook
from clearspan.model.errors import InvalidInput
from clearspan.settings import Settings
from clearspan.testing.clock import FixedClock
from clearspan.testing.llm_stub import Fault, LlmStub

KEY = "canary-key-of-the-endpoint"
SAID = "canary-of-what-the-item-says"
SOON = {"Retry-After": "0.01"}
SCHEMA = {"type": "object"}


def settings(stub: LlmStub, **changes: Any) -> Settings:
    said = {
        "llm_base_url": stub.url,
        "llm_api_key": SecretStr(KEY),
        "llm_model": "gpt-4o-mini",
        "llm_allow_private": True,
        "llm_retries_max": 2,
        "llm_timeout_s": 2.0,
    }
    return Settings(**(said | changes))


def with_client(made: Settings, work: Callable[[LlmClient], Awaitable[Any]], prices: PriceBook | None = None) -> Any:
    async def run() -> Any:
        client = LlmClient(made, prices, FixedClock())
        try:
            return await work(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def ask(made: Settings, text: str = f"item-1 {SAID}", prices: PriceBook | None = None, **parameters: Any) -> Completion:
    found = with_client(made, lambda client: client.complete([{"role": "user", "content": text}], **parameters), prices)
    assert isinstance(found, Completion)
    return found


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that this process logs, at the finest level."""
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    configure_logging("debug", stream)
    yield stream
    root.handlers[:], root.level = before


def test_tells_text_tokens_and_cost_by_the_price_tables(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('[[price]]\nmodel = "gpt-4o-mini"\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 2\n')
    with LlmStub() as stub:
        found = ask(settings(stub), "item-1 two", PriceBook(own))
        assert found.text == "echo: item-1 two"
        assert (found.prompt_tokens, found.completion_tokens) == (2, 3)
        assert found.cost_usd == Decimal("0.000008")
        assert found.raw["object"] == "chat.completion"


def test_unknown_tokens_and_prices_are_not_zero() -> None:
    with LlmStub(has_usage=False) as stub:
        found = ask(settings(stub), prices=PriceBook())
        assert (found.prompt_tokens, found.completion_tokens, found.cost_usd) == (None, None, None)
    with LlmStub() as stub:
        assert ask(settings(stub, llm_model="made-at-home"), prices=PriceBook()).cost_usd is None


def test_parameters_are_sent_and_others_refused() -> None:
    with LlmStub() as stub:
        ask(settings(stub), temperature=0.5, max_tokens=7, seed=None, model="other")
        body = stub.calls[0].body
        assert (body["temperature"], body["max_tokens"], body["model"]) == (0.5, 7, "other")
        assert "seed" not in body
        for name in ("extra_headers", "extra_body", "stream", "timeout", "n"):
            with pytest.raises(InvalidInput, match=name):
                ask(settings(stub), **{name: {}})
        assert len(stub.calls) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_passing_failure_is_asked_again(status: int) -> None:
    with LlmStub() as stub:
        stub.fail("item-1", Fault(status, headers=SOON, times=2))
        assert ask(settings(stub)).text.startswith("echo")
        assert [call.status for call in stub.calls] == [status, status, 200]


def test_waits_as_long_as_the_endpoint_says() -> None:
    with LlmStub() as stub:
        stub.fail("item-1", Fault(429, headers={"Retry-After": "0.4"}))

        async def work(client: LlmClient) -> float:
            started = asyncio.get_running_loop().time()
            await client.complete([{"role": "user", "content": "item-1"}])
            return asyncio.get_running_loop().time() - started

        assert with_client(settings(stub), work) >= 0.4


@pytest.mark.parametrize(
    ("fault", "error", "calls"),
    [
        (Fault(429, headers=SOON, times=None), LlmUnavailable, 3),
        (Fault(500, headers=SOON, times=None), LlmUnavailable, 3),
        (Fault(400, times=None), LlmRefused, 1),
        (Fault(401, times=None), LlmRefused, 1),
        (Fault(404, times=None), LlmRefused, 1),
        (Fault(307, headers={"Location": "http://127.0.0.1:1/"}, times=None), LlmRefused, 1),
        (Fault(body=b"<html>no</html>", times=None), LlmRefused, 1),
        (Fault(body=b"[]", times=None), LlmRefused, 1),
        (Fault(body=b'{"choices": []}', times=None), LlmRefused, 1),
        (Fault(body=b'{"choices": [{"message": {"content": null}}]}', times=None), LlmRefused, 1),
        (Fault(headers={"Content-Type": "text/html"}, body=b"no", times=None), LlmRefused, 1),
    ],
    ids=lambda each: str(each.status) if isinstance(each, Fault) else None,
)
def test_a_failure_that_stays(fault: Fault, error: type[LlmError], calls: int) -> None:
    with LlmStub() as stub:
        stub.fail("item-1", fault)
        with pytest.raises(error):
            ask(settings(stub))
        assert len(stub.calls) == calls


def test_slow_and_unreachable_endpoints() -> None:
    with LlmStub() as stub:
        stub.fail("item-1", Fault(delay_s=1.0))
        with pytest.raises(LlmUnavailable, match="too long"):
            ask(settings(stub, llm_timeout_s=0.2, llm_retries_max=0))
        gone = stub.url
    made = Settings(llm_base_url=gone, llm_model="m", llm_allow_private=True, llm_retries_max=0)
    with pytest.raises(LlmUnavailable, match="cannot be reached"):
        ask(made)


def test_a_private_endpoint_needs_the_operators_word() -> None:
    with LlmStub() as stub:
        with pytest.raises(LlmRefused, match="may not be asked"):
            ask(settings(stub, llm_allow_private=False, llm_retries_max=0))
        assert not stub.calls


def test_without_endpoint_or_model_there_is_nothing_to_ask() -> None:
    assert not LlmClient(Settings(), None, FixedClock()).is_configured
    with pytest.raises(LlmNotConfigured, match="CLEARSPAN_LLM_BASE_URL"):
        ask(Settings(llm_model="m"))
    with LlmStub() as stub, pytest.raises(InvalidInput, match="CLEARSPAN_LLM_MODEL"):
        ask(settings(stub, llm_model=None))


def test_an_endpoint_without_schemas_is_asked_without_from_then_on() -> None:
    async def work(client: LlmClient) -> None:
        for number in range(2):
            await client.complete_json([{"role": "user", "content": f"item-{number}"}], None, SCHEMA)

    with LlmStub(has_schemas=False) as stub:
        with_client(settings(stub), work)
        assert [call.status for call in stub.calls] == [400, 200, 200]
    with LlmStub() as stub:
        with_client(settings(stub), work)
        assert [call.body["response_format"]["type"] for call in stub.calls] == ["json_schema"] * 2


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_neither_key_nor_what_was_said_is_logged_or_told(status: int, logged: io.StringIO) -> None:
    """A canary key and text, every library's log at its finest, and an endpoint that says both back."""
    repeated = json.dumps({"error": {"message": f"{KEY} {SAID}"}}).encode()
    with LlmStub() as stub:
        stub.fail("item-1", Fault(status, headers=SOON, body=None if status == 200 else repeated, times=None))
        made = settings(stub, llm_retries_max=1)
        told = ""
        try:
            ask(made)
        except LlmError as error:
            chain: BaseException | None = error
            while chain is not None:
                told += repr(chain) + str(vars(chain))
                chain = chain.__cause__ or chain.__context__
            logging.getLogger("clearspan.test").exception("failed", exc_info=error)
        assert stub.calls[0].headers["authorization"] == f"Bearer {KEY}"
    for text in (told, logged.getvalue(), repr(made)):
        assert KEY not in text
        assert SAID not in text
    assert status == 200 or "failed" in logged.getvalue()
