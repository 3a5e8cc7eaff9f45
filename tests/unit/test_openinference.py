"""Attributes in OpenInference's forms: flat, nested, as columns of a table; and kinds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clearspan.ingest.openinference import CONVENTIONS, DEPTH_MAX, KINDS, columns, flatten, nested
from clearspan.ingest.semconv import parse_kind
from clearspan.model.span import KINDS as MODEL_KINDS

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc.0", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def test_every_kind_is_one_of_the_model_and_comes_back() -> None:
    assert set(KINDS) <= MODEL_KINDS
    # What a span says in OpenInference's word is stored as a kind that is told by the same word.
    for word in set(KINDS.values()):
        assert KINDS[parse_kind(word) or ""] == word


def test_objects_and_lists_of_objects_are_opened() -> None:
    said = {"a": {"b": 1, "c": {}}, "l": [1, 2], "d": [{"x": 1}, {"y": [2]}], "metadata": '{"t":{"u":1}}', "e": []}
    assert dict(flatten(said)) == {
        "a.b": 1, "a.c": {}, "l": [1, 2], "d.0.x": 1, "d.1.y": [2], "metadata.t.u": 1, "e": [],
    }  # fmt: skip


def test_what_is_no_json_stays_text() -> None:
    for text in ("plain", "{broken", "3", '"quoted"', ""):
        assert dict(flatten({"metadata": text})) == {"metadata": text}


def test_what_is_under_a_key_is_put_together() -> None:
    flat = {"d.0.x": 1, "d.1.y": 2, "d.10.z": 3, "da": 4, "m.k.0": "a", "m.k.j": "b"}
    assert nested(flat, "d") == [{"x": 1}, {"y": 2}, {"z": 3}]
    assert nested(flat, "m") == {"k": {"0": "a", "j": "b"}}
    assert nested(flat, "nothing") is None


def test_columns_are_conventions_and_first_parts() -> None:
    flat = {
        "llm.token_count.prompt": 1, "llm.token_count.prompt_details.cache_read": 2,
        "retrieval.documents.0.document.id": 3, "metadata.tier": 4, "own.deep.key": 5, "plain": 6,
    }  # fmt: skip
    assert columns(flat) == {
        "llm.token_count.prompt": 1,
        "llm.token_count.prompt_details": {"cache_read": 2},
        "retrieval.documents": [{"document": {"id": 3}}],
        "metadata": {"tier": 4},
        "own": {"deep": {"key": 5}},
        "plain": 6,
    }
    assert all(key == key.strip(".") for key in CONVENTIONS)


def test_hostile_depths_are_bounded() -> None:
    deep: Any = {"x": 1}
    for _ in range(5_000):
        deep = {"x": deep}
    assert len(dict(flatten({"a": deep}))) == 1
    key = ".".join("k" * 5_000)
    found = columns({key: 1})["k"]
    for _ in range(DEPTH_MAX - 1):
        found = found["k"]
    assert set(found) == {key[2 * DEPTH_MAX + 0 :]} or len(found) == 1


@given(st.dictionaries(st.text("abc.0", min_size=1, max_size=6), VALUES, max_size=4))
def test_any_attributes_are_flattened_and_shown(attributes: dict[str, Any]) -> None:
    flat = dict(flatten(attributes))
    assert all(not isinstance(value, dict) or not value for value in flat.values())
    shown = columns(flat)
    assert bool(shown) is bool(flat)
    for key in attributes:
        nested(flat, key)
