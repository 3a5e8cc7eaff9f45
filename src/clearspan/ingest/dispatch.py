"""The table of semconv.py, compiled for speed: attribute key in wire bytes → what to do with the attribute.

Every key that ever comes is looked up once in words (prefixes, namespaces) and from then on found by one dict
access. The dict stops learning at `_LEARNED_MAX`, so that a sender of endless new keys cannot fill memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from clearspan.ingest import semconv
from clearspan.ingest.metadata import Pair, flatten, parse_object, scalar_text, unknown_pair
from clearspan.ingest.wire import any_scalar, any_value, attribute_key
from clearspan.model.usage import is_count, pico_from_usd

WirePair = tuple[str, str | bytes]
"""A metadata pair, or the name and bytes of an attribute that holds several."""

Reader = Callable[[bytes, int], Any]
Collector = Callable[[bytes, int, "list[WirePair]"], None]
Rule = tuple[int, int, Reader, Collector | None]

_LEARNED_MAX: Final = 20_000
_LEARNED_KEY_BYTES_MAX: Final = 256
_TAGS_MAX: Final = 64
_COUNT_MAX: Final = 2**53
_OBJECT_CHARS_MAX: Final = 256 * 1024
_COMMA_TAGS: Final = semconv.COMMA_TAGS.encode()

SLOTS: Final[dict[str, int]] = {field.name: i for i, field in enumerate(semconv.FIELDS)}
UNRANKED: Final = 255
NO_SLOT: Final = -1


def read_text(attribute: bytes, at: int) -> str | None:
    """Text within TEXT_CHARS_MAX, a number in its JSON form; None for nothing, "" and Logfire's stand-in."""
    value = any_scalar(attribute, at)
    if type(value) is str:
        if not value or (value[0] == "[" and value.startswith(semconv.SCRUBBED)):
            return None
        return value if len(value) <= semconv.TEXT_CHARS_MAX else value[: semconv.TEXT_CHARS_MAX]
    return None if value is None else scalar_text(value)


def read_object(attribute: bytes, at: int) -> str | None:
    """The text of an attribute that holds an object in some notation, uncut; None when it is absurdly
    long."""
    value = any_scalar(attribute, at)
    return value if isinstance(value, str) and 0 < len(value) <= _OBJECT_CHARS_MAX else None


def read_number(attribute: bytes, at: int) -> float | None:
    """A finite number ≥ 0, also when it comes as text."""
    return parse_number(any_scalar(attribute, at))


def read_count(attribute: bytes, at: int) -> int | None:
    """A whole number from 0 to 2⁵³, also when it comes as a double or as text."""
    value = any_scalar(attribute, at)
    return value if type(value) is int and 0 <= value <= _COUNT_MAX else parse_count(value)


def read_money(attribute: bytes, at: int) -> int | None:
    """US dollars ≥ 0 → pico-dollars."""
    return parse_money(any_scalar(attribute, at))


def read_flag(attribute: bytes, at: int) -> bool | None:
    """A boolean, also as text."""
    return parse_flag(any_scalar(attribute, at))


def read_raw(attribute: bytes, at: int) -> bytes:
    """The attribute itself: tags are decoded only for a context that is new in its request."""
    return attribute


def decode_tags(attribute: bytes) -> tuple[str, ...]:
    """Tags of an attribute that holds a list of texts, a JSON list in a text, or names joined by ", "."""
    value = any_value(attribute)
    if isinstance(value, str) and value[:1] != "[" and attribute_key(attribute)[0] == _COMMA_TAGS:
        value = [each.strip() for each in value[:65_536].split(",")]
    return parse_tags(value) or ()


def read_kind(attribute: bytes, at: int) -> str | None:
    """One of model.span.KINDS; None for an undefined word, so that a lesser attribute may say more."""
    value = any_scalar(attribute, at)
    return semconv.parse_kind(value) if isinstance(value, str) else None


def parse_number(value: object) -> float | None:
    """A finite number ≥ 0 from JSON-like input; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def parse_count(value: object) -> int | None:
    """A token count from JSON-like input; None for anything that cannot be one: missing is not zero."""
    if isinstance(value, str) and len(value) <= 16 and value.isascii() and value.isdigit():
        value = int(value)
    return int(value) if is_count(value) else None  # type: ignore[call-overload]


def parse_money(value: object) -> int | None:
    """US dollars ≥ 0 from JSON-like input → pico-dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    pico = pico_from_usd(str(value) if isinstance(value, int) else value)
    return pico if pico is not None and pico >= 0 else None


def parse_flag(value: object) -> bool | None:
    """A boolean from JSON-like input."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def parse_tags(value: object) -> tuple[str, ...] | None:
    """Tags from JSON-like input: distinct, in order, at most 64 of at most 256 characters."""
    if isinstance(value, str):
        value = _tags_from_text(value)
    if not isinstance(value, list):
        return None
    texts = [scalar_text(each)[:256] for each in value if isinstance(each, str | int | float) and each != ""]
    return tuple(dict.fromkeys(texts))[:_TAGS_MAX] or None


def _tags_from_text(text: str) -> object:
    if text.startswith("["):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            pass
    return text[:65_536].split(", ")


_READERS: Final[dict[str, Reader]] = {
    "text": read_text,
    "object": read_object,
    "count": read_count,
    "number": read_number,
    "money": read_money,
    "flag": read_flag,
    "tags": read_raw,
    "kind": read_kind,
}


def _collect_named(name: str, attribute: bytes, at: int, pairs: list[WirePair]) -> None:
    """An attribute that is one metadata value, or an object of them."""
    value = any_scalar(attribute, at)
    if isinstance(value, str):
        pairs.append((name, value))
    elif value is None:
        pairs.extend(flatten(any_value(attribute), name))
    else:
        pairs.append((name, scalar_text(value)))


def _collect_object(name: str, attribute: bytes, at: int, pairs: list[WirePair]) -> None:
    """An attribute that holds all metadata as one object; decoded later, as tags are."""
    pairs.append((name, attribute))


def decode_pairs(pairs: list[WirePair]) -> Iterator[Pair]:
    """Metadata pairs with the objects among them flattened; what should be one and is not is a value like others."""
    for name, value in pairs:
        if isinstance(value, str):
            yield name, value
            continue
        decoded = any_value(value)
        found = parse_object(decoded) if isinstance(decoded, str) else decoded
        if isinstance(found, dict):
            yield from flatten(found)
        elif isinstance(decoded, str | int | float | bool) and (pair := unknown_pair(name, decoded)):
            yield pair


def _collect_unknown(name: str, attribute: bytes, at: int, pairs: list[WirePair]) -> None:
    """An attribute outside the table and its noise."""
    if pair := unknown_pair(name, any_scalar(attribute, at)):
        pairs.append(pair)


def _no_reader(attribute: bytes, at: int) -> None:
    return None


class Rules(dict[bytes, tuple[Rule, ...] | None]):
    """key → the rules of that attribute, None for one that ingest does not read; learns on the first
    sight."""

    def __missing__(self, key: bytes) -> tuple[Rule, ...] | None:
        rules = _rules_for(semconv.modern(key.decode("utf-8", "replace"))) or None
        if len(self) < _LEARNED_MAX and len(key) <= _LEARNED_KEY_BYTES_MAX:
            self[key] = rules
        return rules


def _rules_for(key: str) -> tuple[Rule, ...]:
    """What one key means, usually one rule: a name may carry two fields (`ai.usage.tokens`) and be metadata
    too."""
    rules: list[Rule] = [
        (slot, field.keys.index(key), _READERS[field.read], None)
        for slot, field in enumerate(semconv.FIELDS)
        if key in field.keys
    ]
    collect: Collector | None = None
    if key in semconv.METADATA_OBJECTS:
        collect = partial(_collect_object, key)
    elif (name := semconv.metadata_key(key)) is not None:
        collect = partial(_collect_named, name)
    elif not rules and not semconv.is_noise(key):
        collect = partial(_collect_unknown, key)
    if collect is not None:
        rules.append((NO_SLOT, UNRANKED, _no_reader, collect))
    return tuple(rules)


RULES: Final = Rules()
_EMPTY_SLOTS: Final[list[Any]] = [None] * len(SLOTS)
_NO_RANKS: Final[list[int]] = [*[UNRANKED] * len(SLOTS), -1]  # the last one is NO_SLOT's: nothing ranks below it

Effect = tuple[int, int, Any]
"""(slot, rank, value), or (NO_SLOT, UNRANKED, metadata pairs)."""

_REMEMBERED_BYTES_MAX: Final = 160
_REMEMBERED_MAX: Final = 16_384


class Effects(dict[bytes, tuple[Effect, ...]]):
    """attribute → what it sets. For one request: its spans repeat most of their short attributes byte by byte, and
    a dict finds one of those in a tenth of the time that reading it takes."""

    def __missing__(self, attribute: bytes) -> tuple[Effect, ...]:
        effects = _effects_of(attribute)
        if len(self) < _REMEMBERED_MAX:
            self[attribute] = effects
        return effects


def _effects_of(attribute: bytes) -> tuple[Effect, ...]:
    """What one KeyValue sets. Nothing for keys of over 127 bytes and for odd layouts: the payload keeps them."""
    if len(attribute) < 2:
        return ()  # neither key nor value
    at = attribute[1] + 2
    rules = RULES[attribute[2:at]]
    if rules is None or attribute[0] != 0x0A or at > 0x81:
        return ()  # the last two say that it was no key: looked at only here, for most attributes are not promoted
    effects: list[Effect] = []
    for slot, rank, read, collect in rules:
        if collect is not None:
            pairs: list[WirePair] = []
            collect(attribute, at, pairs)
            if pairs:
                effects.append((NO_SLOT, UNRANKED, pairs))
        elif (value := read(attribute, at)) is not None:
            effects.append((slot, rank, value))
    return tuple(effects)


def read_attributes(attributes: Any, effects: Effects) -> tuple[list[Any], list[int], list[WirePair]]:
    """One pass over repeated KeyValue bytes: (values by slot, rank of each by slot, metadata pairs).

    Args:
        effects: of the same request.
    """
    slots, ranks, pairs = _EMPTY_SLOTS[:], _NO_RANKS[:], []  # type: tuple[list[Any], list[int], list[WirePair]]
    for attribute in attributes:
        found = effects[attribute] if len(attribute) <= _REMEMBERED_BYTES_MAX else _effects_of(attribute)
        for slot, rank, value in found:
            if rank < ranks[slot]:
                slots[slot] = value
                ranks[slot] = rank
            elif slot == NO_SLOT:
                pairs += value
    return slots, ranks, pairs
