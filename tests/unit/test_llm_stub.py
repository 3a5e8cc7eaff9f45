"""The endpoint that tests run against: the same answer to the same request, and each call counted."""

from __future__ import annotations

import asyncio

import pytest
from openai import APIConnectionError, AsyncOpenAI, BadRequestError, RateLimitError

from clearspan.testing.llm_stub import Fault, LlmStub


def ask(stub: LlmStub, text: str, **more: object) -> str:
    async def run() -> str:
        async with AsyncOpenAI(api_key="k", base_url=stub.url, max_retries=0) as client:
            answer = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": text}],
                **more,  # type: ignore[arg-type]
            )
            return str(answer.choices[0].message.content)

    return asyncio.run(run())


def test_says_the_same_to_the_same_and_counts() -> None:
    with LlmStub() as stub:
        assert [ask(stub, "about item-1, please") for _ in range(2)] == ["echo: about item-1, please"] * 2
        ask(stub, "item-2")
        assert stub.counts == {"item-1": 2, "item-2": 1}
        assert stub.calls[0].headers["authorization"] == "Bearer k"


def test_fails_on_demand_and_only_as_often_as_told() -> None:
    with LlmStub() as stub:
        stub.fail("item-1", Fault(429, headers={"Retry-After": "0"}))
        stub.fail("item-1", Fault(is_dropped=True))
        with pytest.raises(RateLimitError):
            ask(stub, "item-1")
        with pytest.raises(APIConnectionError):
            ask(stub, "item-1")
        assert ask(stub, "item-1") == "echo: item-1"
        assert [call.status for call in stub.calls] == [429, 0, 200]


def test_may_not_know_schemas() -> None:
    with LlmStub(has_schemas=False) as stub, pytest.raises(BadRequestError):
        ask(stub, "item-1", response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}})
