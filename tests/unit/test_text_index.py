"""The text index: staged and sealed signatures answer alike, and a purge clears both."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest

from clearspan.files.pages import scan_database
from clearspan.files.vfs import open_database
from clearspan.model.errors import StoreDamaged
from clearspan.store.sqlite import text_index
from clearspan.store.sqlite.schema import migrate
from clearspan.store.sqlite.text_index import SEGMENT_TRACES, candidates, signature

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golfing", "hotels", "天气预报", "東京の空"]


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = open_database(tmp_path / "traces.db", page_size=8192)
    migrate(connection)
    yield connection
    connection.close()


def fill(conn: apsw.Connection, traces: int, seed: int = 7) -> dict[int, str]:
    """Traces 1 … n of some words each, all staged; their texts."""
    rng = random.Random(seed)
    texts = {pk: " ".join(rng.sample(WORDS, 3)) + f" number{pk:06d}" for pk in range(1, traces + 1)}
    text_index.add(conn, [(pk, 0, signature([text.encode()])) for pk, text in texts.items()])
    return texts


def found(conn: apsw.Connection, needle: str, *, phrase: bool = False) -> set[int]:
    return set(candidates(conn, needle, phrase=phrase).trace_pks.tolist())


def staged(conn: apsw.Connection) -> int:
    return int(conn.execute("SELECT count(*) FROM text_doc").get)


def stored_bits(conn: apsw.Connection) -> int:
    """Set bits in every stored blob."""
    blobs = conn.execute("SELECT bits FROM text_doc UNION ALL SELECT data FROM text_slice").fetchall()
    return sum(int.from_bytes(blob, "big").bit_count() for (blob,) in blobs)


def test_a_signature_is_the_same_whatever_the_case_and_the_batch() -> None:
    assert signature([b"Hello World"]) == signature([b"hello world"])
    one = np.frombuffer(signature([b"first record", b"second one"]), np.uint8)
    for record in (b"first record", b"second one"):
        own = [bit for start in range(len(record) - 3) if (bit := text_index._hash(record[start : start + 4])) >= 0]
        assert all(one[bit // 8] >> bit % 8 & 1 for bit in own)
    assert len(signature([])) == len(signature([b"x" * 100_000])) == text_index.SIGNATURE_BYTES


def test_bits_of_a_needle_are_bits_of_the_text_around_it() -> None:
    text = "The quick brown fox jumps over 12 lazy dogs; 东京天气预报。"
    bits = np.unpackbits(np.frombuffer(signature([text.encode()]), np.uint8), bitorder="little")
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            assert all(bits[bit] for bit in text_index.query_bits(text[start:end], phrase=True))


@pytest.mark.parametrize("needle", ["", "abc", "a b c", '"""""', "\\\\\\\\", "\n\n\n\n", "京", "éèêë", "ab ab"])
def test_a_needle_without_a_usable_gram_filters_nothing(conn: apsw.Connection, needle: str) -> None:
    fill(conn, 3)
    answer = candidates(conn, needle)
    assert answer.unfiltered
    assert 2 in answer
    assert 99 in answer


def test_a_long_needle_asks_for_a_bounded_number_of_bits() -> None:
    assert len(text_index.query_bits("".join(map(chr, range(0x4E00, 0x5E00))))) == text_index.QUERY_BITS_MAX


def test_words_may_be_anywhere_and_a_phrase_may_not(conn: apsw.Connection) -> None:
    text_index.add(conn, [(1, 0, signature([b"golden retriever"])), (2, 0, signature([b"retriever of golden age"]))])
    assert found(conn, "golden retriever") == {1, 2}
    assert found(conn, "golden retriever", phrase=True) == {1}


def test_words_in_different_batches_of_a_trace_are_found_together(conn: apsw.Connection) -> None:
    """One word sealed, the other late."""
    fill(conn, SEGMENT_TRACES)
    text_index.add(conn, [(5, 1, signature([b"saxophone"]))])
    text_index.seal(conn, 0)
    text_index.add(conn, [(5, 2, signature([b"trombone"])), (6, 1, signature([b"trombone"]))])
    assert found(conn, "saxophone trombone") == {5}
    text_index.seal(conn, 0)
    assert found(conn, "saxophone trombone") == {5}
    assert found(conn, "trombone") == {5, 6}


def test_sealing_changes_no_answer(conn: apsw.Connection) -> None:
    texts = fill(conn, 3 * SEGMENT_TRACES)
    needles = [*WORDS, "number000300", "number0003", "天气", "absentword"]
    before = {needle: found(conn, needle) for needle in needles}
    for needle in needles:
        assert {pk for pk, text in texts.items() if needle in text} <= before[needle]
    assert before["number000300"] == {300}
    text_index.seal(conn, 1)
    assert {needle: found(conn, needle) for needle in needles} == before
    text_index.seal(conn, 0)
    text_index.seal(conn, 2)
    text_index.seal(conn, 3)
    assert staged(conn) == 0
    for needle in needles:  # a search over sealed segments may stop early: more candidates, none missed
        assert before[needle] <= found(conn, needle)
    assert found(conn, "absentword") == set()


def test_candidates_come_newest_first_up_to_a_limit(conn: apsw.Connection) -> None:
    fill(conn, SEGMENT_TRACES + 10)
    text_index.seal(conn, 0)
    newest = candidates(conn, "number000", limit=3)
    assert newest.trace_pks.tolist() == [SEGMENT_TRACES + 10, SEGMENT_TRACES + 9, SEGMENT_TRACES + 8]
    assert SEGMENT_TRACES + 10 in newest
    assert 1 not in newest


def test_segments_are_sealed_oldest_first_once_they_are_settled(
    conn: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not text_index.seal_next(conn)
    monkeypatch.setattr(text_index, "SETTLED_TRACES", 100)
    fill(conn, 2 * SEGMENT_TRACES + 99)
    assert text_index.segment_to_seal(conn) == 0
    assert text_index.seal_next(conn)
    assert not text_index.seal_next(conn)  # the second is not settled
    text_index.add(conn, [(2 * SEGMENT_TRACES + 100, 0, signature([b"one more"]))])
    assert text_index.seal_next(conn)
    assert staged(conn) == 101


def test_late_signatures_wait_until_they_are_many(conn: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "SETTLED_TRACES", 0)
    monkeypatch.setattr(text_index, "LATE_ROWS_MAX", 4)
    fill(conn, 3 * SEGMENT_TRACES)
    while text_index.seal_next(conn):
        pass
    late = [
        (pk, 1, signature([b"late arrival"])) for pk in (3, SEGMENT_TRACES + 3, SEGMENT_TRACES + 4, SEGMENT_TRACES + 5)
    ]
    text_index.add(conn, late)
    assert not text_index.seal_next(conn)
    text_index.add(conn, [(4, 1, signature([b"late arrival"]))])
    assert text_index.segment_to_seal(conn) == 1
    assert text_index.seal_next(conn)
    assert found(conn, "late arrival") >= {3, 4, *(SEGMENT_TRACES + n for n in (3, 4, 5))}


def word(n: int) -> str:
    return "".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=12))


def block_of(word: str, seed: int) -> bytes:
    """The signature of a block of noise and one word: nearly half of its bits are set."""
    rng = random.Random(seed)
    return signature([word.encode(), rng.randbytes(4_000).hex().encode(), rng.randbytes(1_500)])


def blocks(conn: apsw.Connection, trace_pk: int, needle: str) -> list[int] | None:
    """Which of the first 100 blocks of a trace a search looks at; None: any."""
    ranges = candidates(conn, needle, phrase=True).blocks.get(trace_pk)
    return None if ranges is None else [n for n in range(100) for first, last in ranges if first <= n <= last]


def test_a_large_trace_is_looked_at_only_where_the_needle_may_be(conn: apsw.Connection) -> None:
    texts = fill(conn, SEGMENT_TRACES - 1)
    text_index.add(conn, [(5, n, block_of(word(n), n)) for n in range(1, 20)])
    for _ in range(2):  # staged, then sealed
        assert blocks(conn, 5, word(17)) == [17]
        assert 5 in candidates(conn, word(17))
        assert 5 in candidates(conn, f"{word(3)} {word(17)}")
        assert 5 not in candidates(conn, "xylophonists")
        assert 5 not in candidates(conn, f"{word(17)} xylophonists")
        text_index.seal(conn, 0)
    assert staged(conn) >= 19  # dense by themselves; 0 and 1 may be one piece
    assert conn.execute("SELECT count(*) FROM text_doc WHERE trace_pk <> 5").get == 0
    assert 0 in (blocks(conn, 5, texts[5].split()[-1]) or [])
    text_index.add(conn, [(5, 30, signature([b"late violoncello"]))])
    assert blocks(conn, 5, "violoncello") == list(range(30, 100))
    text_index.seal(conn, 0)
    assert 30 in (blocks(conn, 5, "violoncello") or [])
    assert text_index.count(conn, [5]) == text_index.purge(conn, [5]) >= 19
    assert 5 not in candidates(conn, word(17))
    assert staged(conn) == 0


def test_neighbouring_small_blocks_of_a_large_trace_become_one_piece(conn: apsw.Connection) -> None:
    rng = random.Random(3)
    text_index.add(
        conn, [(7, n, signature([word(n).encode(), rng.randbytes(2_000).hex().encode()])) for n in range(80)]
    )
    before = {n: blocks(conn, 7, word(n)) for n in range(80)}
    assert all(n in (found or []) for n, found in before.items())
    text_index.seal(conn, 0)
    assert 4 <= staged(conn) <= 40
    for bits in conn.execute("SELECT bits FROM text_doc"):
        assert int.from_bytes(bits[0], "big").bit_count() <= text_index.PIECE_BITS
    for n in range(80):
        assert n in (blocks(conn, 7, word(n)) or [])
    assert sum(len(blocks(conn, 7, word(n)) or []) for n in range(80)) < 80 * 80 / 3


def test_what_was_sealed_of_a_trace_before_it_grew_is_looked_at_too(conn: apsw.Connection) -> None:
    text_index.add(conn, [(9, 0, block_of(word(0), 1)), (10, 0, signature([b"small"]))])
    text_index.seal(conn, 0)
    assert staged(conn) == 0
    text_index.add(conn, [(9, n, block_of(word(n), n)) for n in (1, 2, 3)] + [(10, 1, signature([b"tiny"]))])
    text_index.seal(conn, 0)
    assert staged(conn) == 3  # of 9; 10 is still small
    assert blocks(conn, 9, word(0)) == [0]
    assert blocks(conn, 9, word(2)) == [2]
    assert found(conn, "smalltiny") == set()
    assert found(conn, "small tiny") >= {10}
    assert text_index.count(conn, [9]) == text_index.purge(conn, [9]) == 4


def test_pieces_are_not_late_signatures(conn: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "SETTLED_TRACES", 0)
    monkeypatch.setattr(text_index, "LATE_ROWS_MAX", 2)
    fill(conn, 2 * SEGMENT_TRACES)
    text_index.add(conn, [(5, n, block_of("word", n)) for n in range(1, 10)])
    while text_index.seal_next(conn):
        pass
    assert conn.execute("SELECT count(*) FROM text_doc WHERE trace_pk = 5").get == 9
    assert text_index.segment_to_seal(conn) is None


def test_a_purge_clears_staged_rows_and_sealed_columns(conn: apsw.Connection, tmp_path: Path) -> None:
    texts = fill(conn, 2 * SEGMENT_TRACES)
    text_index.seal(conn, 0)
    text_index.add(conn, [(7, 1, signature([b"late saxophone"]))])
    victims = [7, 8, SEGMENT_TRACES - 1, SEGMENT_TRACES, SEGMENT_TRACES + 50]
    assert text_index.count(conn, victims) == 6  # 7 is in both places
    assert text_index.purge(conn, [*victims, 7, 10**9]) == 6
    assert text_index.count(conn, victims) == 0
    assert text_index.purge(conn, victims) == 0
    for pk in victims:
        assert pk not in candidates(conn, f"number{pk:06d}")
    for pk in set(texts) - set(victims):
        assert pk in candidates(conn, f"number{pk:06d}")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert scan_database(tmp_path / "traces.db").is_clean


def test_purging_everything_leaves_no_bit_and_no_segment(conn: apsw.Connection) -> None:
    texts = fill(conn, 2 * SEGMENT_TRACES)
    text_index.seal(conn, 0)
    assert stored_bits(conn) > 0
    assert text_index.purge(conn, list(texts)) == len(texts)
    assert stored_bits(conn) == 0
    assert conn.execute("SELECT count(*) FROM text_segment").get == 0
    assert conn.execute("SELECT count(*) FROM text_slice").get == 0


def test_a_count_sees_a_single_bit(conn: apsw.Connection) -> None:
    fill(conn, SEGMENT_TRACES)
    text_index.seal(conn, 0)
    text_index.purge(conn, [9])
    assert text_index.count(conn, [9]) == 0
    data = bytearray(conn.execute("SELECT data FROM text_slice WHERE slice_id = 40").get)
    data[31 * 200 + 1] |= 2  # trace 9 is bit 1 of byte 1
    conn.execute("UPDATE text_slice SET data = ? WHERE slice_id = 40", (bytes(data),))
    assert text_index.count(conn, [9]) == 1
    assert text_index.count(conn, [8, 10]) == 2


def test_a_count_sees_bits_in_slices_of_any_length(conn: apsw.Connection) -> None:
    fill(conn, SEGMENT_TRACES)
    text_index.seal(conn, 0)
    text_index.purge(conn, [9])
    row = bytearray(31)
    row[1] |= 2  # trace 9 is bit 1 of byte 1
    whole = conn.execute("SELECT data FROM text_slice WHERE slice_id = 40").get
    for change in ("data || ?", "substr(data, 1, 31) || ?", "substr(data, 1, 31 * 255) || ? || x'FF'"):
        conn.execute(f"UPDATE text_slice SET data = CAST({change} AS BLOB) WHERE slice_id = 40", (bytes(row),))
        assert text_index.count(conn, [9]) == 1
        with pytest.raises(StoreDamaged):
            text_index.purge(conn, [9])
        conn.execute("UPDATE text_slice SET data = ? WHERE slice_id = 40", (whole,))
    assert text_index.count(conn, [9]) == 0


def test_the_check_names_what_is_wrong(conn: apsw.Connection) -> None:
    fill(conn, SEGMENT_TRACES + 2)
    text_index.seal(conn, 0)
    columns = conn.execute("PRAGMA table_info(trace)").fetchall()
    marks = ", ".join("?" * len(columns))
    for pk in range(1, SEGMENT_TRACES + 3):
        row = [str(pk) if column[2] == "TEXT" else pk for column in columns]
        conn.execute(f"INSERT INTO trace VALUES ({marks})", row)
    assert list(text_index.check(conn)) == []
    conn.execute("DELETE FROM trace WHERE trace_pk IN (5, ?)", (SEGMENT_TRACES,))
    assert {(what, many) for what, many, _ in text_index.check(conn)} == {
        ("sealed text signatures belong to a trace", 1),
        ("staged text signatures belong to a trace", 1),
    }
    conn.execute("DELETE FROM text_slice WHERE slice_id = 3")
    assert "text segments are complete" in {what for what, _, _ in text_index.check(conn)}
    with pytest.raises(StoreDamaged):
        text_index.purge(conn, [6])


def test_escapes_of_json_do_not_hide_a_text(conn: apsw.Connection) -> None:
    text = "Zürich/Genève 🎷saxophone 天气预报 <b>"
    once = json.dumps({"content": text})
    bodies = [
        text,
        json.dumps({"content": text}, ensure_ascii=False),
        once,
        json.dumps({"arguments": once}),
        once.replace("/", "\\/").replace("<", "\\u003C"),
    ]
    text_index.add(conn, [(pk, 0, signature([body.encode()])) for pk, body in enumerate(bodies, 1)])
    for needle in (text, "ürich/Gen", "🎷sax", "天气", "ZÜRICH/GEN", " <b>"):
        answer = candidates(conn, needle, phrase=True)
        assert all(pk in answer for pk in range(1, 6)), needle


def test_a_run_of_backslashes_is_read_once() -> None:
    # As much data in runs of 16 KiB and in one of 1 MiB: a quadratic reading takes 64 times as long for the latter.
    short, long = 16 * 1024, 1024 * 1024
    cost = {}
    for size in (short, long):
        body = b"\\u0041" + b"\\" * size + b"x"
        started = time.perf_counter()
        for _ in range(long // size):
            text_index.signature([body])
        cost[size] = time.perf_counter() - started
    assert cost[long] < 20 * cost[short]
    for escapes in (1, 2, 3, 1001):
        variants = list(text_index._variants(b"<" + b"\\" * escapes + b"u0041" + b"\\" * escapes + b"/>"))
        assert variants == [b"<a/>"]
    assert list(text_index._variants(rb"\\\x\u0041\\\ud83c\\\udfb7\ud83d\\x\/")) == [
        rb"\\\xa" + "🎷".encode() + b"\xed\xa0\xbd" + rb"\\x/"
    ]
