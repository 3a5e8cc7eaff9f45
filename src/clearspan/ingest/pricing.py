"""What a call cost, in pico-dollars: the operator's price file first, else the genai-prices tables, else
unknown.

genai-prices answers a call in about 80 µs, so its prices are asked for once per (provider, model, UTC day)
and the rest is integer arithmetic, also where the price of all tokens depends on how many go in. Models whose
price depends on more than that, such as the hour, are asked for each time. Nothing here uses the network.

The operator's file is TOML, one table per model. A model is matched by its whole name, or by its beginning
when the name ends in `*`; the longest match wins, and an entry that names a provider wins over one that
does not:

    [[price]]
    model = "llama-3.3-70b*"
    provider = "my-vllm"            # optional
    input_usd_per_mtok = 0.20       # required; per million tokens
    output_usd_per_mtok = 0.60      # required
    cached_input_usd_per_mtok = 0.05       # optional: as input
    cache_creation_usd_per_mtok = 0.25     # optional: as input
    from = 2026-01-01               # optional: first UTC day it holds; of several that do, the latest wins
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import InvalidInput
from clearspan.model.usage import PICO_PER_USD

TOKENS_PER_PRICE: Final = 1_000_000
_NS_PER_DAY: Final = 86_400 * 10**9
_CACHED_MODELS_MAX: Final = 10_000
_MAX_PICO: Final = 2**63 - 1

Priced = tuple[int | None, str | None]
UNPRICED: Final[Priced] = (None, None)

_PROVIDER_ALIASES: Final = {
    "aws.bedrock": "aws",
    "aws_bedrock": "aws",
    "amazon-bedrock": "aws",
    "bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "azure_openai": "azure",
    "azure-openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "vertex_ai": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "gemini": "google",
    "xai": "x-ai",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "together_ai": "together",
    "moonshot_ai": "moonshotai",
}
"""Words of the semantic conventions and of instrumentations → provider ids of genai-prices."""


class UnitPrices(NamedTuple):
    """Pico-dollars per million tokens of each sort; cached and cache-creating tokens are part of the
    prompt's."""

    prompt: int
    completion: int
    cached: int
    cache_creation: int

    def cost(self, prompt: int, completion: int, cached: int, cache_creation: int) -> int:
        """Pico-dollars, rounded half to even."""
        plain = prompt - cached - cache_creation
        scaled = (
            plain * self.prompt
            + completion * self.completion
            + cached * self.cached
            + cache_creation * self.cache_creation
        )
        whole, rest = divmod(scaled, TOKENS_PER_PRICE)
        return whole + (2 * rest > TOKENS_PER_PRICE or (2 * rest == TOKENS_PER_PRICE and whole % 2 == 1))


Tiers = tuple[tuple[int, UnitPrices], ...]
"""(more than so many tokens in, prices of all tokens), the most tokens first; the last one's number is NO_TOKENS."""

NO_TOKENS: Final = -1


class OperatorPrice(NamedTuple):
    """One `[[price]]` of the operator's file."""

    pattern: str  # lower case, without the star
    is_prefix: bool
    provider: str | None
    starts: date
    prices: UnitPrices

    def matches(self, provider: str | None, model: str, day: date) -> bool:
        named = model.startswith(self.pattern) if self.is_prefix else model == self.pattern
        return named and day >= self.starts and self.provider in (None, provider)

    def rank(self) -> tuple[bool, bool, int, date]:
        return (self.provider is not None, not self.is_prefix, len(self.pattern), self.starts)


class PriceBook:
    """Prices calls; shared by all threads of a server. The first price that needs the tables loads them
    (180 ms)."""

    def __init__(self, operator_file: Path | None = None) -> None:
        """
        Args:
            operator_file: see the module's text; None for none.
        Raises:
            InvalidInput: the file is not as the module's text says, with the place.
        """
        self._operator = () if operator_file is None else load_operator_prices(operator_file)
        self._unit_prices = lru_cache(_CACHED_MODELS_MAX)(self._find_unit_prices)

    def warm(self) -> None:
        """Loads the tables now, so that no request waits for it."""
        self.price("openai", "gpt-4o-mini", 0, prompt_tokens=1)

    def price(
        self,
        provider: str | None,
        model: str,
        at_ns: int,
        *,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cached_tokens: int = 0,
        cache_creation_tokens: int = 0,
        asked_model: str | None = None,
    ) -> Priced:
        """What one call cost and who says so.

        Args:
            provider: as the wire says, any family's word; None lets the model's name decide.
            model: the model that answered.
            at_ns: when, for prices change.
            prompt_tokens: with the cached ones. Where cached and created ones exceed it, the source counts
            them
                apart (Anthropic's convention) and they are added.
            asked_model: tried when nobody knows `model`.
        Returns:
            (pico-dollars, "operator" or "prices"); (None, None) when nobody knows the model or the amount
            is absurd.
        """
        if cached_tokens + cache_creation_tokens > prompt_tokens:
            prompt_tokens += cached_tokens + cache_creation_tokens
        day = at_ns // _NS_PER_DAY
        for name in (model,) if asked_model in (None, model) else (model, asked_model):
            found = self._unit_prices(provider, name, day)
            if found is None:
                continue
            tiers, who = found
            counts = (prompt_tokens, completion_tokens, cached_tokens, cache_creation_tokens)
            if tiers:
                prices = next(prices for above, prices in tiers if prompt_tokens > above)
                pico: int | None = prices.cost(*counts)
            else:
                pico = _ask_each_time(provider, name, at_ns, counts)
            return (pico, who) if pico is not None and 0 <= pico <= _MAX_PICO else UNPRICED
        return UNPRICED

    def _find_unit_prices(self, provider: str | None, model: str, day: int) -> tuple[Tiers, str] | None:
        """(prices, who says so); prices empty: known, but to be asked each time. None: unknown."""
        when = datetime_from_ns(day * _NS_PER_DAY)
        lowered = model.lower()
        fitting = [each for each in self._operator if each.matches(provider, lowered, when.date())]
        if fitting:
            return ((NO_TOKENS, max(fitting, key=OperatorPrice.rank).prices),), "operator"
        model_info = _find_model(provider, model)
        if model_info is None:
            return None
        return _unit_prices_of(model_info, when), "prices"


def _find_model(provider: str | None, model: str) -> Any | None:
    """genai-prices' entry of a model, None when it has none.

    A provider that the wire states but the tables do not know stays unknown: a model served at home has the
    name of one that is sold. Only when none is stated does the model's name decide.
    """
    from genai_prices.data_snapshot import get_snapshot

    known = None if provider is None else _PROVIDER_ALIASES.get(provider.lower(), provider.lower())
    try:
        return get_snapshot().find_provider_model(model, None, known, None)[1]
    except LookupError:
        return None


def _unit_prices_of(model_info: Any, when: datetime) -> Tiers:
    """Per-token prices of one day; empty for prices by the hour and prices per request."""
    from genai_prices.types import ModelPrice, StartDateConstraint, TieredPrices

    if not isinstance(model_info.prices, ModelPrice) and any(
        each.constraint is not None and not isinstance(each.constraint, StartDateConstraint)
        for each in model_info.prices
    ):
        return ()
    stated = {key: value for key, value in vars(model_info.get_prices(when)).items() if value is not None}
    if stated.get("requests_kcount") or not all(isinstance(value, Decimal | TieredPrices) for value in stated.values()):
        return ()
    starts = {tier.start for value in stated.values() if isinstance(value, TieredPrices) for tier in value.tiers}

    def at(start: int) -> UnitPrices:
        """The prices of calls with more than `start` tokens in, up to the next start."""
        amounts: dict[str, Decimal] = {}
        for key, value in stated.items():
            if isinstance(value, TieredPrices):
                passed = [tier.price for tier in value.tiers if tier.start <= start]
                value = passed[-1] if passed else value.base
            amounts[key] = value
        prompt = _pico(amounts.get("input_mtok", Decimal(0)))
        return UnitPrices(
            prompt=prompt,
            completion=_pico(amounts.get("output_mtok", Decimal(0))),
            cached=_pico(amounts["cache_read_mtok"]) if "cache_read_mtok" in amounts else prompt,
            cache_creation=_pico(amounts["cache_write_mtok"]) if "cache_write_mtok" in amounts else prompt,
        )

    return tuple((start, at(start)) for start in sorted(starts | {NO_TOKENS}, reverse=True))


def _ask_each_time(provider: str | None, model: str, at_ns: int, counts: tuple[int, int, int, int]) -> int | None:
    """The price of one call from the tables, hours included."""
    from genai_prices import Usage

    info = _find_model(provider, model)
    if info is None:
        return None
    usage = Usage(
        input_tokens=counts[0], output_tokens=counts[1], cache_read_tokens=counts[2], cache_write_tokens=counts[3]
    )
    try:
        price = info.get_prices(datetime_from_ns(at_ns)).calc_price(usage)
    except ValueError:
        return None
    return _pico(price["total_price"])


def _pico(usd: Decimal) -> int:
    return round(usd * PICO_PER_USD)


def load_operator_prices(path: Path) -> tuple[OperatorPrice, ...]:
    """Reads the operator's file; raises InvalidInput with the place of the first fault."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"the price file cannot be read: {error}") from error
    entries = document.get("price", [])
    if set(document) - {"price"} or not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InvalidInput("the price file holds [[price]] tables and nothing else")
    return tuple(_operator_price(entry, i + 1) for i, entry in enumerate(entries))


def _operator_price(entry: Any, number: int) -> OperatorPrice:
    known = {
        "model", "provider", "from", "input_usd_per_mtok", "output_usd_per_mtok", "cached_input_usd_per_mtok",
        "cache_creation_usd_per_mtok",
    }  # fmt: skip
    where = f"[[price]] number {number} of the price file"
    if not isinstance(entry, dict) or (unknown := set(entry) - known):
        raise InvalidInput(f"{where}: unknown key {sorted(unknown)[0]!r}" if entry else f"{where}: not a table")

    def amount(key: str, default: int | None = None) -> int:
        value: Any = entry.get(key)
        if value is None and default is not None:
            return default
        is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not is_number or not Decimal(value).is_finite() or not 0 <= value <= 1_000_000:
            raise InvalidInput(f"{where}: {key} must be an amount in USD from 0 to 1,000,000")
        return _pico(Decimal(value))

    model, provider, starts = entry.get("model"), entry.get("provider"), entry.get("from", date(1970, 1, 1))
    if not isinstance(model, str) or not model.rstrip("*"):
        raise InvalidInput(f"{where}: model must be a name")
    if provider is not None and not isinstance(provider, str):
        raise InvalidInput(f"{where}: provider must be a name")
    if not isinstance(starts, date) or isinstance(starts, datetime):
        raise InvalidInput(f"{where}: from must be a day such as 2026-01-01")
    prompt = amount("input_usd_per_mtok")
    prices = UnitPrices(
        prompt,
        amount("output_usd_per_mtok"),
        amount("cached_input_usd_per_mtok", prompt),
        amount("cache_creation_usd_per_mtok", prompt),
    )
    return OperatorPrice(model.lower().rstrip("*"), model.endswith("*"), provider, starts, prices)
