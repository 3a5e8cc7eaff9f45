"""Run documents: how the pieces of one run become one."""

from __future__ import annotations

import json
from typing import Any

from clearspan.ingest.run_document import RunDocument, encode_document, fuse_runs, new_part, run_values

RUN_ID = "01a2003e-6729-7a1e-be21-660f8b307f89"


def document(op: Any, at: int, **fields: Any) -> bytes:
    given = {name: json.dumps(value).encode() for name, value in {"id": RUN_ID, **fields}.items()}
    return encode_document(RunDocument([new_part(op, given, received_ns=at, key_id="key_1", env=None)]))


def test_an_update_replaces_what_the_create_says_and_null_replaces_nothing() -> None:
    create = document("create", 2, name="a", inputs={"q": 1}, outputs={}, tags=["x"], extra={"metadata": {"a": 1}})
    update = document("update", 1, name="b", inputs=None, outputs={"o": 2}, tags=["y"], extra={"metadata": {"b": 2}})
    both = fuse_runs(create, update)
    assert both == fuse_runs(update, create) == fuse_runs(both, create) == fuse_runs(both, update)
    assert run_values(both) == {
        "id": RUN_ID, "name": "b", "inputs": {"q": 1}, "outputs": {"o": 2}, "tags": ["y"],
        "extra": {"metadata": {"a": 1, "b": 2}},
    }  # fmt: skip


def test_a_part_that_came_again_changes_nothing() -> None:
    first, second = document("update", 1, outputs={"o": 1}), document("update", 2, outputs={"o": 2})
    both = fuse_runs(first, second)
    assert run_values(both)["outputs"] == {"o": 2}
    assert fuse_runs(both, document("update", 3, outputs={"o": 1})) == both
