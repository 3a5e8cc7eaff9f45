"""The drill's own parts: needles are found in whatever writing, evidence says what was seen, questions cover routes."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from clearspan.drill.evidence import leftovers, planted_rows, sightings
from clearspan.drill.look import Kinds, look_at_files
from clearspan.drill.needles import FORMS, Maker, Wanted, write
from clearspan.drill.plant import Post, late_spans, plant, posts, refused_records, shared_pair
from clearspan.drill.questions import Facts, questions
from clearspan.drill.report import LIMITS, Check, DrillReport, render_markdown
from clearspan.ingest.limits import IngestLimits
from clearspan.ingest.origin import Origin
from clearspan.ingest.otlp import (
    Decoder,
    decode_logs_json,
    decode_logs_protobuf,
    decode_traces_json,
    decode_traces_protobuf,
)
from clearspan.ingest.respan import decode_respan_json

SEED = 11
NOW_NS = 1_795_320_000_000_000_000


def maker_of(seed: int = SEED) -> Maker:
    return Maker(random.Random(seed).randbytes)


def seen_in(maker: Maker, data: bytes) -> set[str]:
    return {name for name, _ in maker.wanted().find(data)}


AROUND = {
    "plain": str.encode,
    "JSON": lambda text: json.dumps({"k": text}).encode(),
    "JSON in JSON": lambda text: json.dumps({"k": json.dumps([text])}).encode(),
    "UTF-16": lambda text: text.encode("utf-16-le"),
    "percent-encoded": lambda text: quote(text, safe="+/=").encode(),
    "binary": lambda text: b"\xff\x00" + text.encode() + b"\xfe",
}


@pytest.mark.parametrize(
    ("form", "around"),
    [(form, around) for form in FORMS for around in AROUND if (form, around) != ("base64", "UTF-16")],
)
def test_a_needle_is_found_however_it_is_written(form: str, around: str) -> None:
    maker = maker_of()
    assert seen_in(maker, AROUND[around](write(maker.raw(0, "f"), form))) == {"0"}


def test_capitals_hide_neither_hexadecimal_digits_nor_escapes() -> None:
    maker = maker_of()
    value = maker.raw(0, "f")
    escaped = json.dumps(write(value, "cjk")).upper().replace("\\U", "\\u")
    assert seen_in(maker, value.hex().upper().encode()) == seen_in(maker, escaped.encode()) == {"0"}


def test_bytes_are_found_raw_hex_and_in_base64() -> None:
    maker = maker_of()
    value = maker.raw(0, "f")
    for data in (value, value.hex().encode(), base64.b64encode(value), base64.urlsafe_b64encode(value)):
        assert seen_in(maker, b"x" + data + b"y") == {"0"}


def test_a_piece_of_a_needle_is_found_by_either_end() -> None:
    maker = maker_of()
    for form in FORMS:
        text = maker.text(0, "f").encode()
        for piece in (text[: len(text) * 2 // 3], text[len(text) // 3 :]):
            assert seen_in(maker, b"\0" + piece + b"\0") == {"fragment"}, (form, SEED)


def test_needles_of_another_kind_are_not_taken_for_these() -> None:
    one, other = maker_of(1), maker_of(2)
    assert seen_in(one, other.text(0, "f").encode()) == set()
    assert Wanted.load(json.loads(json.dumps(one.wanted().dump()))).marks == one.marks


def test_ids_are_needles_of_their_size_and_differ() -> None:
    maker = maker_of()
    ids = [maker.id(n, "id", size) for n in range(500) for size in (16, 8)]
    assert len(set(ids)) == len(ids)
    assert {len(each) for each in ids} == {16, 8}
    assert seen_in(maker, b" ".join(each.hex().encode() for each in ids)) == {str(n) for n in range(1000)}


def test_everything_planted_can_be_decoded_and_every_field_is_written_in_every_form() -> None:
    maker = maker_of()
    planted = plant(maker, shared_pair(maker), 24, NOW_NS)
    decoders = {
        ("/v1/traces", True): decode_traces_json,
        ("/v1/traces", False): decode_traces_protobuf,
        ("/v1/logs", True): decode_logs_json,
        ("/v1/logs", False): decode_logs_protobuf,
        ("/api/v1/traces/ingest", True): decode_respan_json,
    }
    sent = list(posts(planted))
    for post in sent:
        decoder = Decoder(Origin(1, "key_1", None), IngestLimits(), None, received_ns=NOW_NS)
        decoded = decoders[post.path, post.content_type == "application/json"](post.body, decoder)
        assert (decoded.rejected_count, decoded.span_count + decoded.log_count) == (0, post.records)
    bodies = b"\n".join(post.body for post in sent)
    found = seen_in(maker, bodies)
    assert {str(needle.number) for needle in maker.needles} - found == set()
    by_field: dict[str, set[str]] = {}
    for needle in maker.needles:
        by_field.setdefault(needle.field, set()).add(needle.form)
    assert by_field["span name"] == by_field["customer id"] == by_field["output"] == set(FORMS)
    assert len(by_field) > 60
    late = list(posts(late_spans(maker, planted, NOW_NS)))
    assert sum(post.records for post in late) == len(planted)
    assert any(needle.field.startswith("late: ") for needle in maker.needles)


def test_refusals_are_read_from_each_wires_answer() -> None:
    json_post = Post("/v1/traces", "application/json", b"", 9)
    assert refused_records(json_post, b"{}") == 0
    assert refused_records(json_post, b'{"partialSuccess": {"rejectedSpans": 4}}') == 4
    respan = Post("/api/v1/traces/ingest", "application/json", b"[]", 5)
    assert refused_records(respan, b'{"message": "Successfully ingested 2 spans. 3 spans refused"}') == 3
    assert refused_records(Post("/v1/logs", "application/x-protobuf", b"", 3), b"\x0a\x02\x08\x02") == 2


def test_files_are_searched_raw_packed_and_as_tables(tmp_path: Path) -> None:
    maker = maker_of()
    plain, packed, value, frame, cut = (maker.raw(n, "f").hex() for n in range(5))
    (tmp_path / "stray.bak").write_bytes(bytes(5 << 20) + plain.encode())
    squeezed = zstandard.compress(json.dumps({"k": packed}).encode() * 50)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "block").write_bytes(b"junk" + squeezed + b"junk")
    half = zstandard.compress(cut.encode() + random.Random(SEED).randbytes(200_000).hex().encode())
    (tmp_path / "half").write_bytes(half[: len(half) // 2])  # zstd gives the blocks that are whole, 128 KiB each
    with sqlite3.connect(tmp_path / "some.db") as conn:
        conn.execute("CREATE TABLE t (a, b)")
        conn.execute("INSERT INTO t VALUES (?, ?)", (value, zstandard.compress(frame.encode())))
    conn.close()
    found = look_at_files(tmp_path, [], Kinds({"gone": maker.wanted()}))
    assert found["files"] == 4
    assert found["unreadable"] == []
    where = {(place, name) for place, name, _ in found["hits"]}
    assert {
        ("stray.bak", "gone/0"),
        ("deep/block", "gone/1"),
        ("some.db:t", "gone/2"),
        ("some.db:t", "gone/3"),
    } <= where
    assert ("half", "gone/4") in where


def test_a_file_of_zeros_hides_nothing_beside_it(tmp_path: Path) -> None:
    maker = maker_of()
    (tmp_path / "reserve").write_bytes(bytes((16 << 20) - 10) + maker.raw(0, "f") + bytes(100))
    found = look_at_files(tmp_path, [], Kinds({"gone": maker.wanted()}))
    assert "gone/0" in [hit[1] for hit in found["hits"]], "it lies across two chunks"


def test_evidence_names_what_was_seen_and_what_not() -> None:
    maker = maker_of()
    for n in range(3):
        maker.text(n, "name")
    hits = [["a.db", "gone/0", "raw"], ["a.db:t", "gone/0", "value raw"], ["b", "kept/1", "raw"]]
    seen = sightings({"files": {"hits": hits}, "reads": {"hits": [["GET /x", "gone/fragment", "hex"]]}})
    assert [needle.number for needle in seen.missing("gone", maker.needles, "files")] == [1, 2]
    told = leftovers(seen, "gone", maker.needles)
    assert told == ["name (needle 0) in a.db (raw), a.db:t (value raw)", "a piece of a needle in GET /x (hex)"]
    nothing = sightings({"files": {"hits": []}, "reads": None})
    assert leftovers(nothing, "gone", maker.needles) == []
    [row] = planted_rows("gone", maker.needles, seen, nothing)
    assert (row["needles"], row["before"], row["after"]) == (
        3, {"files": 1, "reads": 0}, {"files": 0, "reads": 0},
    )  # fmt: skip


def test_every_described_get_is_asked_or_named() -> None:
    openapi = {
        "paths": {
            "/v1/deletions": {"get": {}, "post": {}},
            "/api/traces/{trace_unique_id}/": {"get": {}, "delete": {}},
            "/api/{unique_organization_id}/traces/{trace_unique_id}/": {"get": {}},
            "/v1/holds/{hold_id}": {"get": {}},
            "/v1/traces": {"post": {}},
        }
    }
    facts = Facts(["t 1", "t2"], [("k", "v")], [("environment", "e")], {
        "trace_unique_id": ["t 1", "t2"], "unique_organization_id": ["o"],
    })  # fmt: skip
    asked, left_out = questions(openapi, facts, "start_time=a&end_time=b")
    assert left_out == ["GET /v1/holds/{hold_id}"]
    paths = {question.path for question in asked if question.method == "GET"}
    assert {"/v1/deletions", "/api/traces/t%201/", "/api/o/traces/t%201/", "/api/o/traces/t2/"} <= paths
    assert all(question.method in ("GET", "POST") for question in asked)
    filters = [question.body["filters"] for question in asked if question.body]
    assert {"metadata__k": {"operator": "=", "value": ["v"]}} in filters
    assert {"text": {"operator": "contains", "value": ["e"]}} in filters


def test_a_report_is_as_good_as_its_worst_check() -> None:
    maker = maker_of()
    maker.text(0, "name")
    nothing = sightings({"files": {"hits": []}, "reads": None})
    look = {"pid": 1, "pages": None, "reads": None}
    look["files"] = {"files": 1, "bytes": 2, "frames": 3, "values": 4, "unreadable": []}
    report = DrillReport(
        version="0", started_at="a", ended_at="b", url="http://x", data="d", is_own_server=True,
        marks={kind: {"head": "aabb", "tail": "ccdd"} for kind in ("gone", "kept")},
        planted=planted_rows("gone", maker.needles, nothing, nothing),
        counts={"needles": 1, "kept_needles": 0, "gone_traces": 1, "kept_traces": 0, "requests": 1},
        deletion={"id": "del_1", "state": "verified", "times": {"hidden": "t"}, "counts": {}},
        receipt=None, looks={"before": look}, checks=[Check("one", True, "yes")],
    )  # fmt: skip
    assert report.ok
    assert "Nothing of what was deleted was found." in render_markdown(report)
    report.checks.append(Check("two | three", False, "a | b"))
    page = render_markdown(report)
    assert not report.ok
    assert "The drill failed" in page
    assert "a \\| b" in page
    assert all(limit in page for limit in LIMITS)
    assert json.loads(json.dumps(report.as_json()))["ok"] is False
    assert "grep" not in page, "the drill's own directory is gone when the report is read"
    assert "grep -rla aabb d`" in render_markdown(replace(report, is_own_server=False))
