"""After a key is taken out of the metadata of runs, no file holds what it said, and every other byte is there."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from clearspan.files.pages import scan_database
from clearspan.ingest.langsmith import RunSource, batch_runs, decode_runs
from clearspan.ingest.run_parts import RunOperation
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.store.port import METADATA_TRACES_MAX
from clearspan.store.sqlite import fsck, text_index
from clearspan.testing.local_store import open_local_store
from clearspan.testing.needles import needle_of, scan_folder, scan_values

SEED = 20261124
RUNS = 40
SCOPE, ALL = Scope((1,)), Window()


@pytest.mark.parametrize("is_sealed", [False, True])
def test_no_link_is_left_in_any_file(tmp_path: Path, is_sealed: bool) -> None:
    """Each run came in two messages that said the key, so that a superseded record has it, too."""
    rng = random.Random(SEED)
    links, words = ([needle_of(rng.randbytes(12)) for _ in range(RUNS)] for _ in range(2))
    store = open_local_store(tmp_path, b"s" * 32)
    for number, (link, word) in enumerate(zip(links, words, strict=True)):
        run_id = f"{number + 1:032x}"
        fields = {"trace_id": run_id, "extra": {"metadata": {"source_run_id": link, "n": number}}}
        said = {
            "name": "n",
            "start_time": "2026-01-01T00:00:00Z",
            "inputs": {"q": f"{word} {rng.randbytes(999).hex()}"},
        }
        for is_update, each in ((False, fields | said), (True, fields)):
            operation = RunOperation(
                is_update, run_id, {key: msgspec.json.encode(value) for key, value in each.items()}
            )
            runs = decode_runs([operation], RunSource(number + is_update)).runs
            store.writer.submit(batch_runs(1, runs, None).batches, 1).result()
    if is_sealed:
        text_index.seal(store.writer._service.conn, 0)  # type: ignore[attr-defined]
    lines = store.deletions.plan(SCOPE, None, ALL, received_before_ns=2**63 - 1, limit=RUNS)
    assert RUNS <= METADATA_TRACES_MAX
    assert store.deletions.purge_metadata(lines, "source_run_id") == RUNS
    for link, word in zip(links[::7], words[::7], strict=True):
        for text, count in ((word, 1), (link, 0)):
            where = Condition(field_named("text"), Operator.CONTAINS, (text,))
            assert store.reader.count_traces(SCOPE, where, ALL) == count
    store.close()
    assert scan_database(tmp_path / "traces.db").is_clean
    assert fsck.check(tmp_path).violations == []
    database = tmp_path / "traces.db"
    assert scan_folder(tmp_path, set(links)) == scan_values(database, set(links)) == []
    assert {hit.needle for hit in scan_values(database, set(words))} == set(words), "the scan finds what is there"
