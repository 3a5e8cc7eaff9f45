"""What every store must hold of taking a key out of the metadata of runs: it is as if nobody had ever said it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from clearspan.ingest.langsmith import RunSource, batch_runs, decode_runs
from clearspan.ingest.payload import decode_record
from clearspan.ingest.run_document import run_values, without_metadata
from clearspan.ingest.run_parts import RunOperation
from clearspan.model.errors import StoreDamaged
from clearspan.model.span import Attachment
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import METADATA, field_named
from clearspan.query.operators import Operator
from clearspan.store.port import HoldRow, PlannedTrace
from clearspan.testing.build import T0_NS, make_batch, make_span, with_metadata
from clearspan.testing.stores import Stores

A, B, C, D = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
LINK = "9" * 32
ONE = Scope((1,))
KEY = "source_run_id"


def write(stores: Stores, run_id: str, *, link: str | None = LINK) -> None:
    """A run in two messages of two requests: both may say the key."""
    metadata = {"own": "word", **({KEY: link} if link else {})}
    create = {"trace_id": run_id, "name": "n", "start_time": "2026-01-01T00:00:00Z", "inputs": {"q": "text"}}
    said = (
        (False, 0, create | {"extra": {"metadata": metadata, "item": {"n": 1.50}}}),
        (True, 1, {"trace_id": run_id, "extra": {"metadata": metadata | {"until": "later"}}}),
    )
    for is_update, number, fields in said:
        operation = RunOperation(is_update, run_id, {name: msgspec.json.encode(each) for name, each in fields.items()})
        runs = decode_runs([operation], RunSource(T0_NS + number, "key_1")).runs
        stores.writer.write(batch_runs(1, runs, None).batches, received_ns=T0_NS)


def lines(stores: Stores, *trace_ids: str) -> list[PlannedTrace]:
    return stores.deletions.plan_ids(ONE, trace_ids, Window())


def told(stores: Stores, trace_id: str) -> object:
    """Everything that reads say of a run, but for when and by which messages it came."""
    found = stores.reader.get_trace(ONE, trace_id)
    assert found is not None
    [one] = found.spans
    span = one.span._replace(content_hash=0)
    return found.row.summary, span, one.context, run_values(decode_record(one.record).raw)


def found_by(stores: Stores, field: str, operator: Operator, *values: str, key: str | None = None) -> int:
    where = Condition(METADATA if key else field_named(field), operator, values, key)
    return stores.reader.count_traces(ONE, where, Window())


def test_it_is_as_if_the_key_had_never_been_said(make_stores: Callable[[], Stores]) -> None:
    stores, plain = make_stores(), make_stores()
    for each in (A, B):
        write(stores, each)
        write(plain, each, link=None)
    file = Attachment(A, "file", "text/plain", b"bytes")
    stores.writer.write([make_batch(A, [])._replace(attachments=(file,))], received_ns=T0_NS)
    pks = lines(stores, A, B)
    assert found_by(stores, "", Operator.IN, LINK, key=KEY) == 2
    assert stores.deletions.purge_metadata(pks, KEY) == 2
    assert [told(stores, each) for each in (A, B)] == [told(plain, each) for each in (A, B)]
    assert lines(stores, A, B) == pks, "they are the same traces"
    assert found_by(stores, "", Operator.IN, LINK, key=KEY) == 0
    assert found_by(stores, "", Operator.IN, "word", key="own") == 2
    counted = stores.deletions.count_targets([each.trace_pk for each in pks])
    assert counted == plain.deletions.count_targets([each.trace_pk for each in lines(plain, A, B)]) | {
        "attachment": 1, "attachment_piece": 1,
    }  # fmt: skip
    assert stores.deletions.purge_metadata(pks, KEY) == 0


def test_a_later_message_and_a_deletion_go_on_as_ever(stores: Stores) -> None:
    write(stores, A)
    assert stores.deletions.purge_metadata(lines(stores, A), KEY) == 1
    fields = {"trace_id": f'"{A}"'.encode(), "outputs": b'{"a": "answer"}'}
    runs = decode_runs([RunOperation(True, A, fields)], RunSource(T0_NS + 5)).runs
    stores.writer.write(batch_runs(1, runs, None).batches, received_ns=T0_NS)
    found = stores.reader.get_trace(ONE, A)
    assert found is not None
    values = run_values(decode_record(found.spans[0].record).raw)
    assert (values["outputs"], values["extra"]["metadata"]) == ({"a": "answer"}, {"own": "word", "until": "later"})
    stores.deletions.hide("del_1", ONE, None, Window(), lines(stores, A), b"{}")
    more, batch_no = True, 0
    while more:
        _, more = stores.deletions.purge_batch("del_1", batch_no, rows_max=1)
        batch_no += 1
    assert not any(stores.deletions.remaining("del_1").values())


def test_what_is_held_hidden_or_no_run_stays_as_it_is(stores: Stores) -> None:
    for each in (A, B):
        write(stores, each)
    write(stores, C, link=None)
    span = make_span("0123456789abcdef", context=with_metadata({KEY: LINK}))
    stores.writer.write([make_batch(D, [span])], received_ns=T0_NS)
    given = lines(stores, A, B, C, D)
    stores.deletions.add_hold(HoldRow("hold_1", 1, ONE, None, (A,), Window(), "why", T0_NS, "key_1"))
    stores.deletions.hide("del_1", ONE, None, Window(), lines(stores, B), b"{}")
    before = told(stores, A)
    assert stores.deletions.purge_metadata([*given, PlannedTrace(10**9, 1, "gone")], KEY) == 0
    assert told(stores, A) == before
    stores.deletions.cancel("del_1")
    assert found_by(stores, "", Operator.IN, LINK, key=KEY) == 3


def test_a_document_without_the_key_keeps_its_bytes() -> None:
    for raw in (b'{"parts":[]}', b'{"parts":[{"op":"create","at":1,"hash":"h","run":{"extra":[1]}}]}'):
        assert without_metadata(raw, KEY) is raw
    with pytest.raises(StoreDamaged):
        without_metadata(b"[]", KEY)
