"""Values of filters against what is stored and shown: whatever is shown can be asked for."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.ingest.metadata import scalar_text
from clearspan.model.clock import datetime_from_ns
from clearspan.model.errors import InvalidFilter
from clearspan.model.usage import pico_from_usd, usd_from_pico
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.query.compile_sql import compile_where
from clearspan.query.describe import describe, describe_shape
from clearspan.query.fields import FIELDS, Field, FieldType, find_field
from clearspan.query.operators import Operator
from clearspan.query.values import make_condition, metadata_text

SETTINGS = settings(derandomize=True, deadline=None)
SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters())),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=4,
)


def bound(name: str, value: object) -> object:
    """The one parameter that `name equals value` compares the column with."""
    condition = make_condition(name, find_field(name)[0], Operator.EQUALS, [value])
    (param,) = compile_where(condition, project_ids=None).params
    return param


@SETTINGS
@given(SCALARS)
def test_metadata_is_asked_for_as_it_is_stored(value: str | bool | int | float) -> None:
    assert metadata_text(value) == scalar_text(value)


@SETTINGS
@given(st.integers(0, 2**53))
def test_a_cost_shown_in_dollars_finds_itself(pico: int) -> None:
    usd = usd_from_pico(pico)
    assert usd is not None
    assert bound("total_cost", usd) == pico_from_usd(usd)
    assert bound("total_cost", str(Decimal(pico).scaleb(-12))) == pico


@SETTINGS
@given(st.integers(0, 10**15 - 1))  # up to 11 days: 15 digits, which a float keeps
def test_a_duration_shown_in_seconds_finds_itself(ns: int) -> None:
    assert bound("duration", ns / 1e9) == ns


@SETTINGS
@given(st.integers(-(10**18), 4 * 10**18))
def test_a_time_finds_itself(ns: int) -> None:
    whole = datetime_from_ns(ns).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%S")
    assert bound("start_time", f"{whole.zfill(19)}.{ns % 10**9:09d}Z") == ns


@SETTINGS
@given(st.sampled_from(FIELDS), st.sampled_from(Operator), st.lists(JSON, max_size=3))
def test_any_values_make_a_condition_or_a_refusal(field: Field, operator: Operator, values: list[object]) -> None:
    key = "k" if field.type is FieldType.METADATA else None
    try:
        condition = make_condition("label", field, operator, values, key=key)
    except InvalidFilter as error:
        refused = error
    else:
        assert decode_expr(encode_expr(condition)) == condition
        sql, params = compile_where(condition, project_ids=(1,))
        assert sql.count("?") == len(params)
        assert describe(condition)
        assert describe_shape(condition)
        return
    assert refused.fields == ("label",)
    assert refused.message.encode()
