"""Attachments and fused runs in traces.db: one transaction, checked by fsck, priced only when a run needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from clearspan.files.vfs import open_writer
from clearspan.ingest.pricing import PriceBook
from clearspan.model.span import Attachment
from clearspan.model.trace import Scope
from clearspan.store.sqlite import fsck
from clearspan.store.sqlite.schema import migrate
from clearspan.store.sqlite.writer import Writer
from clearspan.testing.build import T0_NS, make_trace
from clearspan.testing.local_store import open_local_store
from clearspan.testing.runs import attachment_batch, create, run_batches, run_id, update
from clearspan.testing.stores import visible

FILE = Attachment(run_id(1), "file", "text/plain", b"words" * 300_000)
MODEL = {"ls_model_name": "gpt-4o", "ls_provider": "openai"}
USAGE = {"usage_metadata": {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000}}


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[apsw.Connection]:
    open_local_store(tmp_path).close()
    opened = open_writer(tmp_path / "traces.db")
    migrate(opened)
    yield opened
    opened.close()


def rows(conn: apsw.Connection) -> dict[str, int]:
    tables = ("span", "attachment", "attachment_piece", "attachment_waiting")
    return {table: conn.execute(f"SELECT count(*) FROM {table}").get for table in tables}


def test_a_write_that_fails_at_an_attachment_leaves_nothing(conn: apsw.Connection) -> None:
    writer = Writer(conn, bytes(32))
    writer.write([attachment_batch("", FILE)], received_ns=T0_NS)
    before = rows(conn)
    conn.execute("CREATE TRIGGER no BEFORE INSERT ON attachment_piece BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(apsw.ConstraintError):
        writer.write(run_batches(create(1, trace=1)), received_ns=T0_NS)
    assert rows(conn) == before == {"span": 0, "attachment": 0, "attachment_piece": 0, "attachment_waiting": 1}
    conn.execute("DROP TRIGGER no")
    writer.write(run_batches(create(1, trace=1)), received_ns=T0_NS)
    assert rows(conn) == {"span": 1, "attachment": 1, "attachment_piece": 2, "attachment_waiting": 0}


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        ("UPDATE attachment_piece SET data = zeroblob(9)", "bytes of attachments are those that came"),
        ("DELETE FROM attachment", "pieces of attachments belong to one"),
        ("INSERT INTO attachment_piece VALUES (99 << 20, x'00')", "attachment_piece without trace"),
        ("UPDATE attachment SET trace_pk = 99", "attachment without trace"),
    ],
)
def test_fsck_names_what_is_wrong(tmp_path: Path, damage: str, invariant: str) -> None:
    store = open_local_store(tmp_path)
    store.writer.submit([*run_batches(create(1, trace=1)), attachment_batch("", FILE)], T0_NS).result()
    store.close()
    assert fsck.check(tmp_path).violations == []
    conn = open_writer(tmp_path / "traces.db")
    conn.execute(damage)
    conn.close()
    assert invariant in [each.invariant for each in fsck.check(tmp_path).violations]


def test_prices_are_asked_for_by_the_first_run_in_parts_and_are_those_of_ingest(conn: apsw.Connection) -> None:
    prices = PriceBook()
    asked: list[int] = []

    def ask() -> PriceBook:
        asked.append(1)
        return prices

    writer = Writer(conn, bytes(32), ask)
    begin = create(1, trace=1, run_type="llm", extra={"metadata": MODEL})
    end = update(1, trace=1, outputs=USAGE)
    writer.write([make_trace("t"), *run_batches(begin, prices=prices)], received_ns=T0_NS)
    assert not asked
    writer.write([make_trace("t", duration_s=9), *run_batches(end, at_s=1, prices=prices)], received_ns=T0_NS)
    assert asked
    (at_once,) = run_batches(begin, end, prices=prices)
    cost = conn.execute("SELECT cost_pico FROM span WHERE span_id = ?", (run_id(1),)).get
    assert cost == at_once.spans[0].cost_pico > 0  # type: ignore[operator]


def test_both_parts_in_one_commit_of_the_writer_process(tmp_path: Path) -> None:
    """The group of a commit holds batches of many requests: the second part meets the first before it is stored."""
    store = open_local_store(tmp_path)
    parts = [*run_batches(create(1, trace=1)), *run_batches(update(1, trace=1, outputs={"a": 1}), at_s=1)]
    store.writer.submit([*parts, *reversed(parts)], T0_NS).result()
    (seen,) = visible(store.reader, [1]).values()
    assert seen.spans[0].span.end_ns > T0_NS
    assert [row.detail for row in store.reader.find_spans(Scope((1,)), [run_id(1)])] == seen.spans
    store.close()
    assert fsck.check(tmp_path).violations == []
