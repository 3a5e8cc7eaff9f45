"""Parquet as an export makes it, read again by pyarrow. Environment: CLEARSPAN_SRC. Prints one JSON object."""

import io
import json
import os
import sys

sys.path.insert(0, os.environ["CLEARSPAN_SRC"])

import pyarrow.parquet

from clearspan.experiments import exports

ROWS = [
    {
        "id": f"r{n}",
        "input": "=1 é" if n else None,
        "duration": n / 4,
        "total_cost": None if n == 1 else 0.1,
        "total_tokens": 2**40 + n,
        "scores": {"accuracy": {"numerical_value": n}},
        "metadata": {},
    }
    for n in range(7)
]


def main() -> dict:
    exports.ROW_GROUP_ROWS = 3
    table = exports.new_table(exports.Format.PARQUET)
    pieces = [table.begin(), *(table.rows(ROWS[at : at + 2]) for at in range(0, 7, 2)), table.end()]
    file = pyarrow.parquet.ParquetFile(io.BytesIO(b"".join(pieces)))
    read = file.read().to_pylist()
    return {
        "columns": file.schema_arrow.names == [column.name for column in exports.COLUMNS],
        "row_groups": file.num_row_groups,
        "sent_before_the_end": sum(len(piece) for piece in pieces[:-1]) > 4,
        "ids": [row["id"] for row in read],
        "same": all(row[name] == given.get(name) for row, given in zip(read, ROWS, strict=True)
                    for name in ("id", "input", "duration", "total_cost", "total_tokens", "output")),
        "scores": [json.loads(row["scores"])["accuracy"]["numerical_value"] for row in read],
    }  # fmt: skip


print(json.dumps(main()))
