"""Completions from the one endpoint that the operator set, in OpenAI's form.

The `openai` package speaks it: it knows which answers may be asked again, and waits as `Retry-After` says. What leaves
goes through the egress guard. The key stands in the settings and in the package's client only; no answer and no error
of the endpoint's is logged or told, for both may quote the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson

from clearspan.ingest.pricing import PriceBook
from clearspan.model.clock import Clock
from clearspan.model.errors import ClearspanError, InvalidInput
from clearspan.settings import Settings, variable_of

PARAMETERS: Final = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty", "stop",
        "seed", "response_format", "tools", "tool_choice", "parallel_tool_calls", "logit_bias", "reasoning_effort",
        "verbosity",
    }
)  # fmt: skip
"""What a caller may say beyond model and messages: nothing that changes where the request goes, or its headers."""
CONNECTIONS_MAX: Final = 64
_LOGGERS: Final = ("openai", "httpx2", "httpcore2")
_PICO: Final = Decimal(10) ** -12
_REFUSED: Final = {
    400: "The endpoint does not take this request.",
    401: "The endpoint does not take the key.",
    403: "The endpoint refuses the key.",
    404: "The endpoint does not know the model, or is none.",
    413: "The request is too large for the endpoint.",
    422: "The endpoint does not take this request.",
}


class Completion(NamedTuple):
    """One answer of a model."""

    text: str
    model: str  # that answered
    prompt_tokens: int | None
    completion_tokens: int | None
    raw: dict[str, Any]  # the endpoint's body
    cost_usd: Decimal | None = None  # None: nobody knows the price


class LlmError(ClearspanError):
    """The language model gave no answer."""

    code = "llm_failed"


class LlmNotConfigured(LlmError):
    """There is no endpoint for language models: the operator sets one."""

    code = "llm_not_configured"


class LlmUnavailable(LlmError):
    """The endpoint cannot be reached, is too busy or failed; later it may answer."""

    code = "llm_unavailable"


class LlmRefused(LlmError):
    """The endpoint refused the request; it would again."""

    code = "llm_refused"

    def __init__(self, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status  # of the endpoint's answer


class LlmClient:
    """Asks the endpoint of the settings. Belongs to one event loop; its requests may run at the same time.

    Args:
        settings: the `llm_` ones.
        prices: what calls cost; None: nobody knows.
    """

    def __init__(self, settings: Settings, prices: PriceBook | None, clock: Clock) -> None:
        self._settings, self._prices, self._clock = settings, prices, clock
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._without_schemas: set[str] = set()

    @property
    def is_configured(self) -> bool:
        """Whether there is an endpoint."""
        return self._settings.llm_base_url is not None

    @property
    def default_model(self) -> str | None:
        """What is asked where nobody names a model."""
        return self._settings.llm_model

    async def complete(
        self, messages: Sequence[Mapping[str, Any]], model: str | None = None, **parameters: Any
    ) -> Completion:
        """The first choice of one completion, asked again while that may help.

        Args:
            messages: `{"role": …, "content": …}` each.
            model: None takes the setting `llm_model`.
            parameters: of PARAMETERS; those that are None are not sent.
        Raises:
            InvalidInput: an unknown parameter, or no model.
            LlmNotConfigured, LlmUnavailable, LlmRefused: see there; nothing of the endpoint's answer is told.
        """
        if unknown := set(parameters) - PARAMETERS:
            raise InvalidInput(f"{min(unknown)} is not a parameter of a completion.", fields=(min(unknown),))
        wanted = model or self._settings.llm_model
        if wanted is None:
            raise InvalidInput(
                f"No model is named, and {variable_of('llm_model')} is not set.", code="no_model", fields=("model",)
            )
        client = await self._open()
        said = {name: value for name, value in parameters.items() if value is not None}
        body = await _asked(client, {"model": wanted, "messages": list(messages), **said})
        return self._completion(body, wanted)

    async def complete_json(
        self,
        messages: Sequence[Mapping[str, Any]],
        model: str | None,
        schema: Mapping[str, Any],
        **parameters: Any,
    ) -> Completion:
        """As `complete`, held to a JSON schema where the endpoint can be: one that answers 400 to the schema is asked
        without it, from then on at once. The text need not follow the schema; check it."""
        wanted = model or self._settings.llm_model or ""
        if wanted not in self._without_schemas:
            form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
            try:
                return await self.complete(messages, model, response_format=form, **parameters)
            except LlmRefused as error:
                if error.status not in (400, 422):
                    raise
        found = await self.complete(messages, model, **parameters)
        self._without_schemas.add(wanted)
        return found

    async def aclose(self) -> None:
        """End its connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _open(self) -> Any:
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    # In a thread: the package takes most of a second to import.
                    self._client = await asyncio.to_thread(_make_client, self._settings)
        return self._client

    def _completion(self, body: dict[str, Any], asked_model: str) -> Completion:
        try:
            text = body["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise LlmRefused("The endpoint's answer has no text.")
        usage = body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens_in, tokens_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        answered = body.get("model")
        model = answered if isinstance(answered, str) and answered else asked_model
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
        cost = self._cost(model, asked_model, tokens_in, tokens_out, cached or 0)
        return Completion(text, model, tokens_in, tokens_out, body, cost)

    def _cost(
        self, model: str, asked_model: str, tokens_in: int | None, tokens_out: int | None, cached: int
    ) -> Decimal | None:
        if self._prices is None or tokens_in is None or tokens_out is None:
            return None
        pico, _ = self._prices.price(
            self._settings.llm_provider,
            model,
            self._clock.now_ns(),
            prompt_tokens=tokens_in,
            completion_tokens=tokens_out,
            cached_tokens=min(cached, tokens_in),
            asked_model=asked_model,
        )
        return None if pico is None else pico * _PICO


async def _asked(client: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The body of the answer to a request. Errors are told anew, without what the endpoint said and without a cause
    that could be logged with it."""
    import openai

    failure: LlmError
    try:
        answer = await client.chat.completions.with_raw_response.create(**request)
        body = orjson.loads(answer.content)
        if isinstance(body, dict):
            return body
        failure = LlmRefused("The endpoint's answer is not of OpenAI's form.")
    except openai.APITimeoutError:
        failure = LlmUnavailable("The endpoint took too long.")
    except openai.APIConnectionError as error:
        failure = _unreached(error)
    except openai.APIStatusError as error:
        failure = _refused(error.status_code)
    except (openai.OpenAIError, ValueError):
        failure = LlmRefused("The endpoint's answer is not of OpenAI's form.")
    raise failure


def _unreached(error: Exception) -> LlmError:
    from clearspan.experiments.egress import AnswerTooLarge, EgressRefused

    if isinstance(error.__cause__, EgressRefused):
        return LlmRefused(f"The endpoint may not be asked: {error.__cause__}")
    if isinstance(error.__cause__, AnswerTooLarge):
        return LlmRefused("The endpoint's answer is too large.")
    return LlmUnavailable("The endpoint cannot be reached.")


def _refused(status: int) -> LlmError:
    if status in (408, 409, 429) or status >= 500:
        return LlmUnavailable(f"The endpoint answered {status}.")
    return LlmRefused(_REFUSED.get(status, f"The endpoint answered {status}."), status=status)


def _make_client(settings: Settings) -> Any:
    """The package's client behind the guard. Raises LlmNotConfigured."""
    if settings.llm_base_url is None:
        raise LlmNotConfigured(f"There is no endpoint for language models: {variable_of('llm_base_url')} is not set.")
    import httpx2
    import openai

    from clearspan.experiments.egress import EgressPolicy, EgressTransport

    for name in _LOGGERS:  # on `debug` they log requests, with messages and keys
        logging.getLogger(name).setLevel(logging.CRITICAL)
    url = urlsplit(settings.llm_base_url)
    assert url.hostname is not None, "the settings check it"
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    allowed = frozenset({(url.hostname.lower(), port)}) if settings.llm_allow_private else frozenset()
    transport = EgressTransport(
        EgressPolicy(allowed), seconds_max=settings.llm_timeout_s, connections_max=CONNECTIONS_MAX
    )
    key = settings.llm_api_key
    try:
        base_url = httpx2.URL(settings.llm_base_url)
    except httpx2.InvalidURL:
        raise LlmNotConfigured(f"{variable_of('llm_base_url')} is no address.") from None
    return openai.AsyncOpenAI(
        # The package wants a text, and would look for one in the environment.
        api_key=key.get_secret_value() if key is not None else "none",
        organization="",
        project="",
        base_url=base_url,
        timeout=settings.llm_timeout_s,
        max_retries=settings.llm_retries_max,
        http_client=httpx2.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=settings.llm_timeout_s
        ),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
