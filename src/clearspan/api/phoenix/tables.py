"""Tables as `pandas` reads them (its orient `table`), several in one multipart answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from clearspan.api.errors import dump_json

PANDAS_VERSION: Final = "1.4.0"
"""Of the table schema, which has not changed since."""
_INT64: Final = range(-(2**63), 2**63)


class Table(NamedTuple):
    """Rows with named columns.

    Attributes:
        index_names: what names a row.
        rows: each with a value for every column that it has.
        index_rows: for each row the values of its index.
        columns: names in their order, without those of the index.
        times: columns of times, as ISO 8601 in UTC.
    """

    index_names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    index_rows: Sequence[Sequence[Any]]
    columns: Sequence[str]
    times: frozenset[str] = frozenset()


def render_table(table: Table) -> bytes:
    """One table as JSON. Each name is preceded by its place and an underscore, so that no two are equal."""
    names = [f"{place}_{name}" for place, name in enumerate((*table.index_names, *table.columns))]
    count = len(table.index_names)
    rows = [
        dict(zip(names, (*place, *(row.get(name) for name in table.columns)), strict=True))
        for place, row in zip(table.index_rows, table.rows, strict=True)
    ]
    fields = []
    for name, said in zip(names, (*table.index_names, *table.columns), strict=True):
        values = [row[name] for row in rows]
        fields.append({"name": name, **_type_of(values, is_time=said in table.times)})
    schema = {"fields": fields, "primaryKey": names[:count], "pandas_version": PANDAS_VERSION}
    return dump_json({"schema": schema, "data": rows})


def render_tables(tables: Sequence[Table], boundary: str) -> Iterator[bytes]:
    """The parts of a `multipart/mixed` body."""
    for table in tables:
        yield f"--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode()
        yield render_table(table)
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _type_of(values: Sequence[Any], *, is_time: bool) -> dict[str, str]:
    """The type under which every value of a column comes back as it is; `any` where there is no other."""
    if is_time and values:
        return {"type": "datetime", "tz": "UTC"}
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return {"type": "boolean"}
    if kinds == {int} and all(value in _INT64 for value in values):
        return {"type": "integer"}
    if kinds & {int, float} and kinds <= {int, float, type(None)} and all(map(_is_exact, values)):
        return {"type": "number"}
    return {"type": "string"} if kinds == {str} else {"type": "any"}


def _is_exact(value: float | None) -> bool:
    """Whether a float holds the value; a missing one is not a number there."""
    return value is None or (math.isfinite(value) and abs(value) < 2**53)
