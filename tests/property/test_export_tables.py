"""Tables of results give back what they were given, in every format, however the rows come in pieces."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clearspan.experiments.exports import COLUMNS, Format, new_table

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
nested = st.lists(st.none() | numbers | texts, max_size=2)
objects = st.dictionaries(texts, st.none() | st.booleans() | floats | nested, max_size=2)


def row_of(text: str, number: int, fraction: float, value: dict[str, Any], missing: set[str]) -> dict[str, Any]:
    by_kind: dict[str, Any] = {"text": text, "int": number, "float": fraction, "json": value}
    return {column.name: None if column.name in missing else by_kind[column.kind] for column in COLUMNS}


names = st.sets(st.sampled_from([column.name for column in COLUMNS]), max_size=4)
rows = st.lists(st.builds(row_of, texts, numbers, floats, objects, names), max_size=5)


def written(format: Format, pieces: list[list[dict[str, Any]]]) -> bytes:
    table = new_table(format)
    out = table.begin()
    for piece in pieces:
        out += table.rows(piece)
    return out + table.end()


@given(rows, st.integers(1, 4))
def test_json_lines_and_csv(given_rows: list[dict[str, Any]], size: int) -> None:
    pieces = [given_rows[at : at + size] for at in range(0, len(given_rows), size)]
    lines = written(Format.JSONL, pieces).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == given_rows
    read = list(csv.DictReader(io.StringIO(written(Format.CSV, pieces).decode(), newline="")))
    assert len(read) == len(given_rows)
    for row, told in zip(given_rows, read, strict=True):
        for column in COLUMNS:
            value, cell = row[column.name], told[column.name]
            if value is None:
                assert cell == ""
            elif column.kind == "json":
                assert json.loads(cell) == value
            elif column.kind == "float":
                assert float(cell) == value
            elif column.kind == "int":
                assert int(cell) == value
            else:
                assert cell.removeprefix("'") == value.removeprefix("'")
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_integers_beyond_64_bits_stay_exact_in_json() -> None:
    assert json.loads(written(Format.JSONL, [[{"scores": {"a": 2**70}}]])) == {"scores": {"a": 2**70}}


def test_the_columns_are_what_results_are_shown_with() -> None:
    source = (Path(__file__).parents[2] / "src/clearspan/api/respan/experiments/views.py").read_text()
    assert all(f'"{column.name}"' in source for column in COLUMNS)
