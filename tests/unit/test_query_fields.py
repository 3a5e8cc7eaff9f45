"""The field registry: against the schema, the oracle and the contract's lists."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import pytest

import clearspan
from clearspan.model.errors import InvalidFilter
from clearspan.query.evaluate import _OF_SPAN, _OF_TRACE
from clearspan.query.fields import FIELDS, METADATA, SCORES, FieldType, Level, allowed_names, find_field

MIGRATIONS = Path(clearspan.__path__[0]) / "store/sqlite/migrations"
SCHEMAS = (MIGRATIONS / "0001_traces.sql", MIGRATIONS / "0008_annotations.sql")

# Respan's published lists.
LIST_TRACE = [
    "trace_unique_id",
    "name",
    "customer_identifier",
    "environment",
    "organization_key_id",
    "trace_group_identifier",
    "session_identifier",
    "root_span_unique_id",
    "span_count",
    "llm_call_count",
    "error_count",
    "total_cost",
    "total_prompt_tokens",
    "total_completion_tokens",
    "total_request_tokens",
    "duration",
    "metadata__k",
    "total_tokens",
    "workflow_name",
]
LIST_SPAN = [
    "span_unique_id",
    "span_name",
    "span_workflow_name",
    "span_parent_id",
    "model",
    "provider_id",
    "deployment_name",
    "prompt_id",
    "prompt_name",
    "prompt_version_number",
    "log_type",
    "log_method",
    "status",
    "status_code",
    "error_class",
    "error_fingerprint",
    "cost",
    "latency",
    "time_to_first_token",
    "tokens_per_second",
    "routing_time",
    "prompt_tokens",
    "completion_tokens",
    "prompt_cache_hit_tokens",
    "prompt_cache_creation_tokens",
]
BULK = [
    "trace_unique_id",
    "customer_identifier",
    "environment",
    "start_time",
    "end_time",
    "span_count",
    "llm_call_count",
    "error_count",
    "total_cost",
    "total_prompt_tokens",
    "total_completion_tokens",
    "total_tokens",
    "metadata__k",
]


@pytest.mark.parametrize(("names", "level"), [(LIST_TRACE, Level.TRACE), (LIST_SPAN, Level.SPAN)])
def test_every_field_of_the_contract_is_known_at_its_level(names: list[str], level: Level) -> None:
    assert {find_field(name)[0].level for name in names} == {level}


def test_bulk_deletion_takes_exactly_the_contracts_fields() -> None:
    assert set(allowed_names(bulk_delete=True)) == {name.replace("__k", "__<key>") for name in BULK}
    for name in BULK:
        find_field(name, bulk_delete=True)
    for name in ("model", "scores__exact"):
        with pytest.raises(InvalidFilter, match="bulk deletion") as caught:
            find_field(name, bulk_delete=True)
        assert caught.value.fields == (name,)


def test_names_and_aliases_are_unique_and_canonical_names_are_found() -> None:
    names = [name for field in FIELDS for name in (field.name, *field.aliases)]
    assert len(names) == len(set(names))
    for field in FIELDS:
        if field not in (METADATA, SCORES):
            assert find_field(field.name) == (field, None)


def test_aliases_of_older_clients() -> None:
    assert find_field("workflow_name")[0].name == "name"
    assert find_field("total_request_tokens")[0].name == "total_tokens"
    assert find_field("trace_id")[0].name == "trace_unique_id"


def test_every_column_exists_and_nullable_says_what_the_schema_says() -> None:
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE store_fact (name TEXT, value INTEGER)")
    for schema in SCHEMAS:
        db.execute(schema.read_text())
    nullable = {
        f"{alias}.{name}": not required and not primary
        for alias, table in (("t", "trace"), ("s", "span"), ("m", "metadata"), ("a", "annotation"))
        for _, name, _, required, _, primary in db.execute(f"PRAGMA table_info({table})")
    }
    for field in FIELDS:
        columns = re.findall(r"\b[tsma]\.\w+", field.sql)
        assert columns, field.name
        assert set(columns) <= set(nullable), field.name
        if field.sql == columns[0] and field is not METADATA:
            assert field.nullable == nullable[columns[0]], field.name


def test_the_oracle_reads_every_field() -> None:
    elsewhere = (FieldType.METADATA, FieldType.SCORE, FieldType.SEARCH)
    of_trace = {f.name for f in FIELDS if f.level is Level.TRACE and f.type not in elsewhere}
    assert set(_OF_TRACE) == of_trace
    assert set(_OF_SPAN) == {f.name for f in FIELDS if f.level is Level.SPAN}


def test_metadata_carries_its_key_whatever_is_in_it() -> None:
    assert find_field("metadata__a.b c'__d") == (METADATA, "a.b c'__d")


def test_scores_carry_the_name_of_their_annotations() -> None:
    assert find_field("scores__exact match__2") == (SCORES, "exact match__2")
    assert SCORES.level is Level.TRACE


@pytest.mark.parametrize(
    "name", ["bogus", "metadata", "metadata__", "scores", "scores__", "", "Name", "t.name", "customer_identifer"]
)
def test_unknown_fields_are_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        find_field(name)
    assert caught.value.fields == (name,)
    assert f"`{name}`" in caught.value.message


def test_a_near_miss_is_pointed_out() -> None:
    with pytest.raises(InvalidFilter, match="did you mean `customer_identifier`"):
        find_field("customer_identifer")
