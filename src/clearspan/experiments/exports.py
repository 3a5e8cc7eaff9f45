"""Tables of results as JSON Lines, CSV or Parquet, made page by page; nothing is ever written to a file.

A row is the wire form of a result, as lists show it. JSON Lines gives it whole; CSV and Parquet have one column per
key of COLUMNS, with scores and metadata as JSON. A table ends only where its rows did: who is cut off sees that.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import orjson

from clearspan.model.errors import InvalidInput

ROW_GROUP_ROWS: Final = 5_000
ROW_GROUP_BYTES: Final = 16 * 2**20
"""Parquet keeps that much of a table in memory before it is sent."""


class Format(StrEnum):
    """What a table is written as."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"

    @property
    def media_type(self) -> str:
        """Its content type."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES: Final[Mapping[Format, str]] = {
    Format.JSONL: "application/x-ndjson",
    Format.CSV: "text/csv; charset=utf-8",
    Format.PARQUET: "application/vnd.apache.parquet",
}


class Column(NamedTuple):
    """One column of a table."""

    name: str
    kind: str  # "text" | "int" | "float" | "json"; times are ISO text


COLUMNS: Final = (
    *(Column(name, "text") for name in ("id", "name", "status", "error_message", "comparison_key")),
    *(Column(name, "text") for name in ("input", "output", "expected_output")),
    *(Column(name, "text") for name in ("start_time", "end_time")),
    Column("duration", "float"),
    *(Column(name, "int") for name in ("span_count", "llm_call_count", "error_count")),
    Column("total_cost", "float"),
    *(Column(name, "int") for name in ("total_tokens", "total_prompt_tokens", "total_completion_tokens")),
    *(Column(name, "text") for name in ("model", "environment", "customer_identifier", "root_span_unique_id")),
    *(Column(name, "json") for name in ("metadata", "scores")),
)
"""Keys of a row that CSV and Parquet show, in their order."""

Row = Mapping[str, Any]


class Table(Protocol):
    """Turns rows into bytes, in the order begin, rows (any number of times), end."""

    def begin(self) -> bytes:
        """What stands before the first row."""
        ...

    def rows(self, rows: Sequence[Row]) -> bytes:
        """More rows; some formats keep them for later."""
        ...

    def end(self) -> bytes:
        """What is left, and what ends the table."""
        ...


def new_table(format: Format) -> Table:
    """An empty table. Raises InvalidInput for Parquet where pyarrow is not installed."""
    match format:
        case Format.JSONL:
            return _JsonLines()
        case Format.CSV:
            return _Csv()
        case Format.PARQUET:
            return _Parquet()


class _JsonLines:
    def begin(self) -> bytes:
        return b""

    def rows(self, rows: Sequence[Row]) -> bytes:
        return b"".join(_json(row) + b"\n" for row in rows)

    def end(self) -> bytes:
        return b""


class _Csv:
    """RFC 4180, UTF-8. Spreadsheets run cells that begin like a formula: those get an apostrophe before them."""

    _FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

    def begin(self) -> bytes:
        return self._lines([[column.name for column in COLUMNS]])

    def rows(self, rows: Sequence[Row]) -> bytes:
        return self._lines([[self._cell(column, row.get(column.name)) for column in COLUMNS] for row in rows])

    def end(self) -> bytes:
        return b""

    def _cell(self, column: Column, value: Any) -> Any:
        if value is None:
            return ""
        if column.kind == "json":
            return _json(value).decode()
        text: str = value if isinstance(value, str) else str(value)
        return f"'{text}" if column.kind == "text" and text.startswith(self._FORMULA) else text

    @staticmethod
    def _lines(lines: Sequence[Sequence[Any]]) -> bytes:
        out = io.StringIO()
        csv.writer(out).writerows(lines)
        return out.getvalue().encode()


class _Sink(io.RawIOBase):
    """Where pyarrow writes: bytes that are taken away as they come, so that no table is ever whole in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        """What was written since the last call."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


class _Parquet:
    def __init__(self) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise InvalidInput(
                "Parquet needs pyarrow on the server: install clearspan[parquet].", fields=("format",)
            ) from None
        self._arrow = pyarrow
        types = {"text": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "json": pyarrow.string()}
        self._schema = pyarrow.schema([(column.name, types[column.kind]) for column in COLUMNS])
        self._sink = _Sink()
        self._writer = pyarrow.parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._kept: list[dict[str, Any]] = []
        self._kept_bytes = 0

    def begin(self) -> bytes:
        return self._sink.take()

    def rows(self, rows: Sequence[Row]) -> bytes:
        for row in rows:
            kept = {column.name: _plain(column, row.get(column.name)) for column in COLUMNS}
            self._kept.append(kept)
            self._kept_bytes += sum(len(value) for value in kept.values() if isinstance(value, str))
        if len(self._kept) >= ROW_GROUP_ROWS or self._kept_bytes >= ROW_GROUP_BYTES:
            self._flush()
        return self._sink.take()

    def end(self) -> bytes:
        self._flush()
        self._writer.close()
        return self._sink.take()

    def _flush(self) -> None:
        if self._kept:
            self._writer.write_table(self._arrow.Table.from_pylist(self._kept, schema=self._schema))
        self._kept, self._kept_bytes = [], 0


def _plain(column: Column, value: Any) -> Any:
    return _json(value).decode() if column.kind == "json" and value is not None else value


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer over 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
