"""Run ids are UUIDs that turn back into the span they were worked out from."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from clearspan.model.ids import normalise_id
from clearspan.model.runs import derived_from, is_hashed, is_run_id, may_be_hashed, run_id_of

HEX16 = st.integers(0, 2**64 - 1).map("{:016x}".format)
HEX32 = st.integers(0, 2**128 - 1).map("{:032x}".format)
ODD = st.text(st.characters(exclude_characters="/", exclude_categories=("Cc", "Cs")), min_size=1, max_size=40).map(
    normalise_id
)
ANY = st.one_of(HEX16, HEX32, ODD)


@given(ANY, ANY, st.booleans())
def test_every_span_has_one_uuid(trace_id: str, span_id: str, is_root: bool) -> None:
    made = run_id_of(trace_id, span_id, is_root)
    assert is_run_id(made)
    assert normalise_id(str(uuid.UUID(made))) == made
    assert made == run_id_of(trace_id, span_id, is_root)


@given(ANY, HEX32, st.booleans())
def test_a_uuid_names_itself(trace_id: str, span_id: str, is_root: bool) -> None:
    assert run_id_of(trace_id, span_id, is_root) == span_id
    assert not is_hashed(trace_id, span_id, is_root)


@given(HEX32, st.one_of(HEX16, ODD.filter(lambda text: not is_run_id(text))))
def test_a_root_is_named_by_its_trace(trace_id: str, span_id: str) -> None:
    assert run_id_of(trace_id, span_id, is_root=True) == trace_id


@given(HEX32, HEX16)
def test_a_derived_id_turns_back(trace_id: str, span_id: str) -> None:
    made = run_id_of(trace_id, span_id, is_root=False)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (8, uuid.RFC_4122)
    derived = derived_from(made)
    assert derived is not None
    assert derived.span_id == span_id
    assert derived.trace_id_min <= trace_id <= derived.trace_id_max
    assert derived.trace_id_min[:14] == trace_id[:14]
    assert not is_hashed(trace_id, span_id, is_root=False)


@given(HEX32)
def test_what_turns_back_is_what_it_was_made_from(run_id: str) -> None:
    derived = derived_from(run_id)
    parsed = uuid.UUID(run_id)
    assert (derived is not None) == (parsed.version == 8 and parsed.variant == uuid.RFC_4122)
    if derived is not None:
        assert run_id_of(derived.trace_id_min, derived.span_id, is_root=False) == run_id
        assert run_id_of(derived.trace_id_max, derived.span_id, is_root=False) == run_id


@given(ANY, ANY, st.booleans())
def test_the_rest_is_hashed_and_says_so(trace_id: str, span_id: str, is_root: bool) -> None:
    made = run_id_of(trace_id, span_id, is_root)
    if is_hashed(trace_id, span_id, is_root):
        assert may_be_hashed(made)
        assert uuid.UUID(made).version == 5
        assert made != run_id_of(trace_id, span_id + "x", is_root) or is_run_id(span_id + "x")
    else:
        assert made in (trace_id, span_id) or derived_from(made) is not None
