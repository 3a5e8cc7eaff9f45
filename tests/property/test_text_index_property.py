"""No text that a reader may find is ever missed, and the index equals a plain dict through any history."""

from __future__ import annotations

import json
import random
import sys

import apsw
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from clearspan.store.sqlite import text_index
from clearspan.store.sqlite.schema import migrations
from clearspan.store.sqlite.text_index import SEGMENT_TRACES, signature

# Letters that fold to several, to ASCII, or only in some places; marks; escapes; scripts without case.
TRICKY = "ßẞſKÅİıŉǰΐΰﬁﬂﬃﬅﬆΣςσéÉÀàЖжԱև天气预報東京の空😀🎷\u0307\u0301\u2028\ufffd /\\\"'<>&\t\n\r\x00\x7fabcXYZ019"
TEXTS = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=40)


def as_span(text: str) -> bytes:
    span = Span(name="chat", trace_id=b"\xc3\x9f" * 8, span_id=b"\xef\xac\x81\x5c\x75\x00\x30\x41")
    attribute = span.attributes.add(key="input.value")
    attribute.value.string_value = text
    return span.SerializeToString()


STORED = [
    lambda text: text.encode(),
    as_span,
    lambda text: json.dumps(text).encode(),
    lambda text: json.dumps(text, ensure_ascii=False).encode(),
    lambda text: as_span(json.dumps([{"content": text}])),
    lambda text: as_span(json.dumps({"arguments": json.dumps({"city": text})})),
    lambda text: as_span(json.dumps({"x": text}).replace("/", "\\/").replace("<", "\\u003C").replace("&", "\\u0026")),
]


def has_bits(bitmap: bytes, bits: list[int]) -> bool:
    flags = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return all(flags[bit] for bit in bits)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    text=TEXTS,
    stored=st.sampled_from(range(len(STORED))),
    span=st.tuples(st.integers(0, 40), st.integers(1, 40)),
    case=st.sampled_from([str, str.upper, str.lower, str.casefold, str.title]),
)
def test_what_a_reader_finds_is_a_candidate(text, stored, span, case) -> None:  # type: ignore[no-untyped-def]
    needle = case(text[span[0] : span[0] + span[1]])
    bitmap = signature([b"{}", STORED[stored](text), b"other"])
    if needle in text or needle.casefold() in text.casefold():
        assert has_bits(bitmap, text_index.query_bits(needle, phrase=True)), (text, needle)
        assert has_bits(bitmap, text_index.query_bits(needle)), (text, needle)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), words=st.data())
def test_words_from_anywhere_are_a_candidate(texts: list[str], words: st.DataObject) -> None:
    known = sorted({word for text in texts for word in text.casefold().split()})
    if known:
        chosen = words.draw(st.lists(st.sampled_from(known), max_size=4))
        bitmap = signature([as_span(json.dumps(text)) for text in texts])
        assert has_bits(bitmap, text_index.query_bits(" ".join(chosen)))


def test_the_folding_tables_cover_all_of_unicode() -> None:
    to_ascii, varying = set(), set()
    for code in range(0x80, sys.maxunicode + 1):
        char = chr(code)
        folded = char.casefold()
        if folded != char:
            varying |= {char, *folded}
            if min(folded) < "\x80":
                to_ascii.add(char.encode())
    assert text_index._folds_to_ascii().keys() == to_ascii
    assert text_index._varying_characters() == {char for char in varying if char >= "\x80"}


PKS = st.integers(1, 3 * SEGMENT_TRACES)
NEEDLES = ["saxophone", "trombone", "天气预报", "clarinet"]


class Index(RuleBasedStateMachine):
    """Staging, sealing, late signatures and purges against trace_pk → words."""

    def __init__(self) -> None:
        super().__init__()
        self.conn = apsw.Connection(":memory:")
        self.conn.execute(next(m.sql for m in migrations() if m.name == "text_index"))
        self.words: dict[int, set[str]] = {}
        self.blocks: dict[tuple[int, str], set[int]] = {}  # (trace_pk, word) → where it is
        self.block_no = 0

    @rule(pks=st.lists(PKS, max_size=40), word=st.sampled_from(NEEDLES))
    def add(self, pks: list[int], word: str) -> None:
        self.block_no += 1
        text_index.add(self.conn, [(pk, self.block_no, signature([word.encode()])) for pk in set(pks)])
        self._note(pks, word)

    @rule(pks=st.lists(PKS, max_size=4), words=st.lists(st.sampled_from(NEEDLES), min_size=1, max_size=12))
    def add_large(self, pks: list[int], words: list[str]) -> None:
        """Blocks with so much text that one signature for all of them would tell nothing."""
        for word in words:
            self.block_no += 1
            noise = random.Random(self.block_no).randbytes(6_000)
            bits = signature([word.encode(), noise.hex().encode(), noise])
            text_index.add(self.conn, [(pk, self.block_no, bits) for pk in set(pks)])
            self._note(pks, word)

    def _note(self, pks: list[int], word: str) -> None:
        for pk in pks:
            self.words.setdefault(pk, set()).add(word)
            self.blocks.setdefault((pk, word), set()).add(self.block_no)

    @rule(segment=st.integers(0, 3))
    def seal(self, segment: int) -> None:
        text_index.seal(self.conn, segment)

    @rule(pks=st.lists(PKS, max_size=40), all_of_them=st.booleans())
    def purge(self, pks: list[int], all_of_them: bool) -> None:
        victims = list(self.words) if all_of_them else pks
        assert text_index.count(self.conn, victims) == text_index.purge(self.conn, victims)
        assert text_index.count(self.conn, victims) == 0
        for pk in victims:
            self.words.pop(pk, None)
            for word in NEEDLES:
                self.blocks.pop((pk, word), None)

    @invariant()
    def answers_equal_the_model(self) -> None:
        for needle in NEEDLES:
            answer = text_index.candidates(self.conn, needle)
            expected = {pk for pk, words in self.words.items() if needle in words}
            assert expected <= set(answer.trace_pks.tolist()) <= self.words.keys()
            assert all((pk in answer) == (pk in set(answer.trace_pks.tolist())) for pk in self.words)
            for pk in expected & answer.blocks.keys():
                for block_no in self.blocks[pk, needle]:
                    assert any(first <= block_no <= last for first, last in answer.blocks[pk]), (pk, needle, block_no)
        both = text_index.candidates(self.conn, "saxophone trombone")
        assert {pk for pk, words in self.words.items() if words >= {"saxophone", "trombone"}} <= set(
            both.trace_pks.tolist()
        )

    def teardown(self) -> None:
        self.conn.close()


def test_any_history_equals_the_model() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Index,
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
