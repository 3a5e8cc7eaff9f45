"""Prices: the operator's, the tables', and none."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot

from clearspan.ingest.pricing import PriceBook, UnitPrices
from clearspan.model.errors import InvalidInput
from clearspan.model.usage import PICO_PER_USD

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
BOOK = PriceBook()


def test_a_known_call_costs_what_its_source_said() -> None:
    """Pydantic AI reported 0.00015885 USD for this call."""
    counts = {"prompt_tokens": 1187, "completion_tokens": 96, "cached_tokens": 1024}
    assert BOOK.price("openai", "gpt-4o-mini-2024-07-18", NOW_NS, **counts) == (158_850_000, "prices")


def test_prices_change_with_the_day() -> None:
    may_2025 = int(datetime(2025, 5, 1, tzinfo=UTC).timestamp()) * 10**9
    assert BOOK.price("openai", "o3", may_2025, prompt_tokens=10**6)[0] == 10 * PICO_PER_USD
    assert BOOK.price("openai", "o3", NOW_NS, prompt_tokens=10**6)[0] == 2 * PICO_PER_USD


def test_unknown_is_unpriced_never_zero() -> None:
    assert BOOK.price("openai", "no-such-model", NOW_NS, prompt_tokens=5) == (None, None)
    assert BOOK.price("my-vllm", "gpt-4o-mini", NOW_NS, prompt_tokens=5) == (None, None)
    assert BOOK.price(None, "llama-3.3-70b", NOW_NS, prompt_tokens=5) == (None, None)


def test_the_model_that_answered_counts_else_the_one_asked_for() -> None:
    asked = BOOK.price("openai", "gpt-4o-mini", NOW_NS, prompt_tokens=100)
    assert BOOK.price("openai", "unheard-of", NOW_NS, prompt_tokens=100, asked_model="gpt-4o-mini") == asked


def test_words_of_the_conventions_for_providers() -> None:
    for word, model in (("aws.bedrock", "amazon.nova-lite-v1:0"), ("gcp.gemini", "gemini-2.5-pro"), ("xai", "grok-3")):
        assert BOOK.price(word, model, NOW_NS, prompt_tokens=1000)[0], word


def test_tiers_begin_just_past_their_start() -> None:
    prices = [BOOK.price("google", "gemini-2.5-pro", NOW_NS, prompt_tokens=n)[0] for n in (200_000, 200_001)]
    calls = [
        calc_price(Usage(input_tokens=n), "gemini-2.5-pro", provider_id="google", genai_request_timestamp=NOW)
        for n in (200_000, 200_001)
    ]
    assert prices == [round(call.total_price * PICO_PER_USD) for call in calls]
    assert prices[1] > 1.9 * prices[0]


def test_tiers_count_for_all_tokens() -> None:
    small, large = (BOOK.price("google", "gemini-2.5-pro", NOW_NS, prompt_tokens=n)[0] for n in (100_000, 400_000))
    assert small is not None
    assert large is not None
    assert large > 4 * small


def test_cache_counted_apart_is_added() -> None:
    inside = BOOK.price("anthropic", "claude-sonnet-4-5", NOW_NS, prompt_tokens=1100, cached_tokens=1000)
    apart = BOOK.price("anthropic", "claude-sonnet-4-5", NOW_NS, prompt_tokens=100, cached_tokens=1000)
    assert inside == apart


@pytest.mark.parametrize("seed", range(3))
def test_every_model_agrees_with_the_tables(seed: int) -> None:
    rng = random.Random(seed)
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            prompt = rng.randint(1, 400_000)
            completion, cached, created = (
                rng.randint(0, 5_000),
                rng.randint(0, prompt // 2),
                rng.randint(0, prompt // 4),
            )
            usage = Usage(
                input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached, cache_write_tokens=created
            )
            try:
                price = calc_price(usage, model.id, provider_id=provider.id, genai_request_timestamp=NOW).total_price
                expected = round(price * PICO_PER_USD)
            except (LookupError, ValueError):
                expected = None
            found = BOOK.price(
                provider.id, model.id, NOW_NS, prompt_tokens=prompt, completion_tokens=completion,
                cached_tokens=cached, cache_creation_tokens=created,
            )  # fmt: skip
            assert found[0] == expected, (provider.id, model.id)
            compared += expected is not None
    assert compared > 1_000


def test_sums_are_rounded_half_to_even() -> None:
    prices = UnitPrices(prompt=500_000, completion=0, cached=0, cache_creation=0)
    assert [prices.cost(tokens, 0, 0, 0) for tokens in (1, 2, 3, 5)] == [0, 1, 2, 2]


def operator_book(tmp_path: Path, text: str) -> PriceBook:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return PriceBook(path)


def test_the_operators_prices_win(tmp_path: Path) -> None:
    book = operator_book(
        tmp_path,
        """
        [[price]]
        model = "Llama-3.3*"
        input_usd_per_mtok = 0.2
        output_usd_per_mtok = 0.6
        cached_input_usd_per_mtok = 0.05

        [[price]]
        model = "llama-3.3-70b"
        provider = "my-vllm"
        input_usd_per_mtok = 1
        output_usd_per_mtok = 1

        [[price]]
        model = "gpt-4o-mini*"
        input_usd_per_mtok = 9
        output_usd_per_mtok = 9
        from = 2026-06-01
        """,
    )
    million = {"prompt_tokens": 10**6, "completion_tokens": 10**6, "cached_tokens": 500_000}
    assert book.price(None, "llama-3.3-8B", NOW_NS, **million) == (725 * PICO_PER_USD // 1000, "operator")
    assert book.price("my-vllm", "llama-3.3-70b", NOW_NS, prompt_tokens=10**6)[0] == PICO_PER_USD
    assert book.price("other", "llama-3.3-70b", NOW_NS, prompt_tokens=10**6)[0] == PICO_PER_USD // 5
    assert book.price("openai", "gpt-4o-mini", NOW_NS, prompt_tokens=10**6) == (9 * PICO_PER_USD, "operator")
    january = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**9
    assert book.price("openai", "gpt-4o-mini", january, prompt_tokens=10**6)[1] == "prices"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[price]\n", "cannot be read"),
        ("x = 1", r"\[\[price\]\] tables and nothing else"),
        ("[[price]]\nmodel = 'm'\ninput = 1", "unknown key 'input'"),
        ("[[price]]\nmodel = 'm'\ninput_usd_per_mtok = 1", "output_usd_per_mtok"),
        ("[[price]]\nmodel = '*'\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1", "model must be a name"),
        ("[[price]]\nmodel = 'm'\ninput_usd_per_mtok = -1\noutput_usd_per_mtok = 1", "from 0 to"),
        ("[[price]]\nmodel = 'm'\ninput_usd_per_mtok = nan\noutput_usd_per_mtok = 1", "from 0 to"),
        ("[[price]]\nmodel = 'm'\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1\nfrom = 'May'", "must be a day"),
        ("[[price]]\nmodel = 'm'\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1\nprovider = 1", "provider"),
    ],
)
def test_a_wrong_price_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        operator_book(tmp_path, text)


def test_a_missing_price_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        PriceBook(tmp_path / "none.toml")
