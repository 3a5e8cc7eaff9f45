"""JSON schemas over values that nobody has looked at, in bounded time.

`jsonschema` does what a schema says, and a schema can say what never ends: patterns that backtrack, references that
double at each level. So patterns are RE2's, items are compared by their text, every step is counted, and references
lead nowhere outside the schema.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from clearspan.experiments.evaluator_config import compile_pattern

STEPS_MAX: Final = 200_000
SECONDS_MAX: Final = 0.5
_CLOCK_STEPS: Final = 64
"""Steps between two looks at the clock."""

_steps: ContextVar[_Steps] = ContextVar("steps")
_Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class SchemaTrouble(Exception):
    """A schema that says nothing about a value; the text says why."""


class _Steps:
    """What one check has used up."""

    def __init__(self) -> None:
        self.count = 0
        self.ends = time.monotonic() + SECONDS_MAX

    def take(self) -> None:
        self.count += 1
        if self.count > STEPS_MAX or (self.count % _CLOCK_STEPS == 0 and time.monotonic() > self.ends):
            raise SchemaTrouble("the schema takes too long on this output")


def first_violation(schema: Mapping[str, Any] | bool, value: Any) -> str | None:
    """The first place where a value does not follow a schema, as `keyword at /path`; None: it follows.

    Raises:
        SchemaTrouble: the schema cannot be applied, or not in time.
    """
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    made: Any = _bounded_class(validator_for(schema, default=Draft202012Validator))
    token = _steps.set(_Steps())
    try:
        # Without a registry of ours, a reference to another address would be fetched.
        error = next(made(schema, registry=Registry()).iter_errors(value), None)
    except Unresolvable:
        raise SchemaTrouble("the schema refers to what it does not hold") from None
    except RecursionError:
        raise SchemaTrouble("the schema or the output is nested too deeply") from None
    finally:
        _steps.reset(token)
    if error is None:
        return None
    place = "/".join(str(part)[:100] for part in list(error.absolute_path)[:20])
    return f"{error.validator} at /{place}"[:500]


@lru_cache
def _bounded_class(found: Any) -> Any:
    """The validator of one draft with our own keywords, each step counted."""
    from jsonschema import validators

    extend: Any = validators.extend
    own: dict[str, _Keyword] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    keywords = {**found.VALIDATORS, **{name: work for name, work in own.items() if name in found.VALIDATORS}}
    return extend(found, {name: _counted(work) for name, work in keywords.items()})


def _counted(work: Any) -> _Keyword:
    def counting(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[Any]:
        _steps.get().take()
        for error in work(validator, said, value, schema) or ():
            _steps.get().take()
            yield error

    return counting


def _search(pattern: str, text: str) -> bool:
    try:
        return compile_pattern(pattern).search(text) is not None
    except ValueError:  # also text that is not valid Unicode
        raise SchemaTrouble("a pattern of the schema cannot be applied") from None


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _pattern(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(value, "string") and not _search(said, value):
        yield _error("does not match")


def _pattern_properties(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    for pattern, under in said.items():
        for key, each in value.items():
            _steps.get().take()
            if _search(pattern, key):
                yield from validator.descend(each, under, path=key, schema_path=pattern)


def _additional_properties(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    known, patterns = schema.get("properties", {}), list(schema.get("patternProperties", {}))
    for key, each in value.items():
        _steps.get().take()
        if key in known or any(_search(pattern, key) for pattern in patterns):
            continue
        if validator.is_type(said, "object"):
            yield from validator.descend(each, said, path=key)
        elif said is False:
            yield _error("is not expected")


def _unique_items(validator: Any, said: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not said or not validator.is_type(value, "array"):
        return
    seen: set[str] = set()
    for each in value:
        _steps.get().take()
        # 1 and 1.0 are one value of JSON, and have two spellings.
        name = json.dumps(_by_value(each), sort_keys=True)
        if name in seen:
            yield _error("is not unique")
            return
        seen.add(name)


def _by_value(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _by_value(each) for key, each in value.items()}
    return [_by_value(each) for each in value] if isinstance(value, list) else value
