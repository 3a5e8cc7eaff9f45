"""From what a caller wrote to a checked condition: types, units, ranges, and how many values an operator takes.

Wrong values are refused, never bent: a filter that means something else than its author thinks may delete the
wrong traces. In particular an empty list of values, `null` as a value, an empty text to search for and several
values for a comparison are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from clearspan.model.clock import ns_from_datetime
from clearspan.model.errors import InvalidFilter
from clearspan.model.ids import normalise_id
from clearspan.query.ast import Condition, Value
from clearspan.query.fields import Field, FieldType
from clearspan.query.operators import ALLOWED, EQUALITY, ORDER, PRESENCE, SUBSTRING, Operator

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_NUMBER_CHARS_MAX = 400
_EXPONENT_MAX = 300  # |value| < 10**301, well inside a float
_EXPONENT_MIN = -800  # below the digits of the smallest float
_INT_BITS_MAX = 1000

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(?:([zZ])|([+-])(\d\d):?(\d\d))?)?", re.ASCII
)


class _Refused(ValueError):
    """A value that its field's type does not take; the text says what it takes."""


def make_condition(
    label: str, field: Field, operator: Operator, values: Sequence[object], *, key: str | None = None
) -> Condition:
    """Check one condition and bring its values into the tree's form.

    Args:
        label: the field as the caller spelled it, for errors.
        operator: IS_NULL with the value false becomes IS_NOT_NULL.
        values: JSON-like values as received. Presence tests take none, `""` or true; IS_NULL takes one truth value.
        key: of a field that is named with one.
    Raises:
        InvalidFilter: `.fields` is the label; the message names it, what was given, and what is allowed.
    """
    if operator not in ALLOWED[field.type]:
        allowed = ", ".join(sorted(ALLOWED[field.type]))
        raise _error(label, f"the operator {operator} does not fit a field of type {field.type}; allowed: {allowed}")
    if key is not None and not is_unicode(key):
        raise _error(label, "the key is not valid Unicode")
    if operator in PRESENCE:
        return Condition(field, _presence(label, operator, values), (), key)
    if not values:
        raise _error(label, "the list of values is empty; to find missing values use `isnull` or `empty`")
    if len(values) > 1 and operator not in EQUALITY:
        raise _error(label, f"{operator} takes one value, {len(values)} were given")
    try:
        checked = tuple([_value(field, operator, value) for value in values])
    except _Refused as refused:
        raise _error(label, str(refused)) from None
    return Condition(field, operator, checked, key)


def _error(label: str, message: str) -> InvalidFilter:
    return InvalidFilter(f"filter `{label[:200]}`: {message}", fields=(label,))


def _presence(label: str, operator: Operator, values: Sequence[object]) -> Operator:
    if len(values) > 1:
        raise _error(label, f"{operator} takes at most one value, {len(values)} were given")
    if operator is not Operator.IS_NULL:
        if values and values[0] not in ("", None) and values[0] is not True:
            raise _error(label, f'{operator} takes no value but "" or true, not {shown(values[0])}')
        return operator
    try:
        return Operator.IS_NULL if not values or _truth(values[0]) else Operator.IS_NOT_NULL
    except _Refused as refused:
        raise _error(label, str(refused)) from None


def _value(field: Field, operator: Operator, value: object) -> Value:
    if value is None:
        raise _Refused("null is not a value; to find missing values use `isnull`")
    match field.type:
        case FieldType.INT | FieldType.MONEY | FieldType.DURATION | FieldType.SECONDS | FieldType.SCORE:
            return _number(value)
        case FieldType.TIME:
            return _time_ns(value)
        case FieldType.BOOL:
            return _truth(value)
        case FieldType.METADATA:
            if operator in ORDER and not isinstance(value, str):
                raise _Refused(f"metadata is compared as text, where 10 comes before 9; {shown(value)} is not text")
            text = metadata_text(value)
        case FieldType.VERSION if isinstance(value, int) and not isinstance(value, bool):
            text = str(value) if value.bit_length() <= _INT_BITS_MAX else _refuse_size()
        case _:
            text = _text(value)
    return _checked_text(field, operator, text)


def _checked_text(field: Field, operator: Operator, text: str) -> str:
    if not is_unicode(text):
        raise _Refused("the text is not valid Unicode")
    if operator in SUBSTRING and not text:
        raise _Refused(f"{operator} with an empty text would match everything; use not_empty or isnull")
    if operator is Operator.FULL_TEXT_SEARCH or field.type is FieldType.SEARCH:
        if not text.strip():
            raise _Refused("the text to search for is blank")
    elif operator in EQUALITY and field.type is FieldType.ID:
        try:
            return normalise_id(text)
        except ValueError as error:
            raise _Refused(str(error)) from None
    elif operator in EQUALITY and field.choices and text not in field.choices:
        raise _Refused(f"{shown(text)} is not one of its values; allowed: {', '.join(field.choices)}")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Refused(f"text is needed, not {shown(value)}")
    return value


def metadata_text(value: object) -> str:
    """The text that a metadata value is stored and compared as: text as it is, numbers and booleans as JSON.

    Raises:
        ValueError: a list, an object, NaN or infinity.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        _refuse_size()
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise _Refused(f"text, a number, true or false is needed, not {shown(value)}")


def _refuse_size() -> str:
    raise _Refused("the number is out of range")


def _number(value: object) -> Decimal:
    """A finite number of bounded size, exactly: a float through its shortest decimal form."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise _Refused(f"a number is needed, not {shown(value)}")
    if isinstance(value, str) and (len(value) > _NUMBER_CHARS_MAX or not _NUMBER.fullmatch(value)):
        raise _Refused(f"a number is needed, not {shown(value)}")
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        _refuse_size()
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite():
        raise _Refused(f"a finite number is needed, not {shown(value)}")
    exponent = number.as_tuple().exponent
    if number.adjusted() > _EXPONENT_MAX or (isinstance(exponent, int) and exponent < _EXPONENT_MIN):
        _refuse_size()
    return number


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _Refused(f"true or false is needed, not {shown(value)}")


def _time_ns(value: object) -> int:
    """ISO 8601 date or date-time → Unix nanoseconds, all nine digits kept; without an offset it is UTC."""
    found = _ISO.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _Refused(f"a time like 2026-01-31T12:00:00Z is needed, not {shown(value)}")
    date, clock, second, fraction, _, sign, hours, minutes = found.groups()
    try:
        at = datetime.fromisoformat(f"{date}T{clock or '00:00'}:{second or '00'}").replace(tzinfo=UTC)
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    except ValueError:
        raise _Refused(f"{shown(value)} is not a time") from None
    if offset >= timedelta(hours=24) or int(minutes or 0) > 59:
        raise _Refused(f"{shown(value)} is not a time")
    offset_ns = (offset.days * 86_400 + offset.seconds) * 1_000_000_000
    ns = ns_from_datetime(at) + int((fraction or "").ljust(9, "0"))
    return ns + offset_ns if sign == "-" else ns - offset_ns


def is_unicode(text: str) -> bool:
    """Whether text can be stored at all: lone surrogates cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """A caller's value as an error message may quote it: JSON, cut to 80 characters, safe to encode."""
    if isinstance(value, int) and value.bit_length() > _INT_BITS_MAX:
        return "a very large number"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}…"
