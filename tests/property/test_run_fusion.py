"""Messages about one run, in any order, split and repeated in any way, make one document."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from clearspan.ingest.run_document import (
    PARTS_MAX,
    SEEN_MAX,
    Op,
    RunDocument,
    RunPart,
    encode_document,
    fuse_documents,
    fuse_runs,
    new_part,
    parse_document,
    run_values,
)

EXAMPLES = 100
VALUES: list[Any] = [None, {}, [], 1, "a", {"k": 1}, ["t"]]
NAMES = ["name", "inputs", "outputs", "events", "tags", "unknown"]
KEYS = ["a", "b", "metadata", "runtime"]

small = st.sampled_from([None, 0, "x", "y", {}, {"p": 1}])
inner = st.none() | st.just(7) | st.dictionaries(st.sampled_from("pq"), small, max_size=2)
extras = st.dictionaries(st.sampled_from(KEYS), small | inner, max_size=4)
fields = st.builds(
    lambda plain, extra: plain | ({} if extra is None else {"extra": extra}),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=6),
    st.none() | extras,
)


def part_of(op: Op, given: dict[str, Any], at: int, key: str | None = None) -> RunPart:
    texts = {name: json.dumps(value).encode() for name, value in given.items()}
    return new_part(op, texts, received_ns=at, key_id=key, env=None)


parts = st.builds(
    part_of, st.sampled_from(["create", "update"]), fields, st.integers(0, 6), st.sampled_from([None, "k"])
)
many = st.lists(parts, min_size=1, max_size=PARTS_MAX)


def document(*given: RunPart) -> bytes:
    return encode_document(fuse_documents([RunDocument([each]) for each in given]))


def fused(documents: Iterable[bytes]) -> bytes:
    return reduce(fuse_runs, documents)


@settings(max_examples=EXAMPLES)
@given(many, st.randoms(use_true_random=False))
def test_order_grouping_and_repeats_change_nothing(given_parts: list[RunPart], chance: random.Random) -> None:
    expected = fused(document(each) for each in given_parts)
    documents = [document(each) for each in given_parts]
    documents += chance.choices(documents, k=3)
    chance.shuffle(documents)
    while len(documents) > 1:  # any tree of pairwise fusions
        a, b = documents.pop(chance.randrange(len(documents))), documents.pop(chance.randrange(len(documents)))
        documents.append(fuse_runs(a, b))
    assert documents[0] == expected
    assert fuse_runs(expected, expected) == expected
    assert encode_document(parse_document(expected)) == expected


@settings(max_examples=EXAMPLES)
@given(many)
def test_a_part_sent_again_later_changes_nothing(given_parts: list[RunPart]) -> None:
    whole = fused(document(each) for each in given_parts)
    for each in given_parts:
        again = RunPart(each.op, each.at + 100, each.hash, each.run, each.key, each.env)
        assert fuse_runs(whole, document(again)) == fuse_runs(document(again), whole) == whole


@settings(max_examples=EXAMPLES)
@given(many)
@example(
    [
        part_of("create", {"extra": {"metadata": {"p": 1}}}, 0),
        part_of("create", {"extra": {"metadata": 0}}, 1),
        part_of("update", {"extra": {"metadata": {}}}, 0),
    ]
)
def test_the_view_is_that_of_the_rules(given_parts: list[RunPart]) -> None:
    assert run_values(fused(document(each) for each in given_parts)) == told(given_parts)


def told(given_parts: Sequence[RunPart]) -> dict[str, Any]:
    """The rules of run_document.py read out loud: every part by itself, in order, nothing dropped on the way."""
    first: dict[str, RunPart] = {}
    for each in given_parts:
        known = first.get(each.hash)
        first[each.hash] = each if known is None or each.at < known.at else known
    view: dict[str, Any] = {}
    for each in sorted(first.values(), key=lambda each: (each.op == "update", each.at, each.hash)):
        for name, raw in each.run.items():
            value = json.loads(bytes(raw))
            if name not in view:
                view[name] = value
            elif name == "extra":
                view[name] = joined(view[name], value, {"metadata", "runtime"})
            elif each.op == "update" or value not in ({}, []):
                view[name] = value
    return view


def joined(older: dict[str, Any], newer: dict[str, Any], deeper: set[str]) -> dict[str, Any]:
    out = dict(older)
    for key, value in newer.items():
        if value is None and out.get(key) is not None:
            continue
        both_objects = isinstance(out.get(key), dict) and isinstance(value, dict)
        out[key] = joined(out[key], value, set()) if key in deeper and both_objects else value
    return out


@settings(max_examples=EXAMPLES)
@given(fields, st.lists(st.integers(0, 3), min_size=6, max_size=7))
def test_a_run_split_over_several_updates_reads_as_the_whole(given_fields: dict[str, Any], cuts: list[int]) -> None:
    pieces: list[dict[str, Any]] = [{} for _ in range(4)]
    for at, (name, value) in zip(cuts, given_fields.items(), strict=False):
        pieces[at][name] = value
    split = fused(document(part_of("update", piece, at)) for at, piece in enumerate(pieces))
    kept = {name: value for piece in pieces for name, value in piece.items()}
    assert run_values(split) == run_values(document(part_of("update", kept, 0)))


@settings(max_examples=20)
@given(st.integers(PARTS_MAX + 1, PARTS_MAX * 3))
def test_beyond_the_bound_what_was_received_last_still_counts(count: int) -> None:
    updates = [part_of("update", {"outputs": n, f"only_{n}": n}, n) for n in range(count)]
    whole = fused(document(each) for each in updates)
    found = parse_document(whole)
    assert len(found.parts) == PARTS_MAX
    assert len(found.seen) == min(count - PARTS_MAX, SEEN_MAX)
    assert run_values(whole) == {"outputs": count - 1} | {f"only_{n}": n for n in range(count)}
    for each in updates:  # also those that were joined into others
        assert fuse_runs(whole, document(each)) == whole


def test_large_updates_are_joined_early() -> None:
    updates = [part_of("update", {"outputs": f"{n}" + "x" * 400_000}, n) for n in range(12)]
    whole = fused(document(each) for each in updates)
    assert len(whole) < 1_500_000
    assert run_values(whole)["outputs"].startswith("11x")
