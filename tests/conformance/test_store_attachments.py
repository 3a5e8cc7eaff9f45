"""Attachments: stored whichever of them and their run comes first, and hidden, purged and refused with the trace."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from clearspan.model.errors import NotFound
from clearspan.model.span import Attachment, TraceBatch
from clearspan.model.trace import Scope, Window
from clearspan.store.port import WAITING_NS_MAX
from clearspan.store.spans import PIECE_BYTES, AttachmentInfo
from clearspan.testing.build import T0_NS
from clearspan.testing.runs import attachment_batch, create, run_batches, run_id, update
from clearspan.testing.stores import Stores, visible

SCOPE = Scope((1,))
ANY_TIME = Window()
IMAGE = Attachment(run_id(2), "image", "image/png", bytes(range(256)) * 5)
LARGE = Attachment(run_id(2), "large", "audio/wav", b"\x01\x02\x03" * PIECE_BYTES)
EMPTY = Attachment(run_id(1), "empty", "text/plain", b"")
ALL = (IMAGE, LARGE, EMPTY)


def write(stores: Stores, *batches: TraceBatch, at_ns: int = 0) -> list[tuple[int, int, int, str | None]]:
    return [tuple(each) for each in stores.writer.write(batches, received_ns=T0_NS + at_ns)]  # type: ignore[misc]


def a_trace() -> list[TraceBatch]:
    return run_batches(create(1, trace=1), create(2, trace=1), at_s=0)


def info(each: Attachment) -> AttachmentInfo:
    return AttachmentInfo(each.name, each.mime_type, len(each.data), hashlib.sha256(each.data).digest())


def listed(stores: Stores, scope: Scope = SCOPE) -> dict[str, list[AttachmentInfo]]:
    """span_id → its attachments, of every trace that there may be."""
    keys = [(pk, run_id(number)) for pk in range(1, 9) for number in range(1, 5)]
    return {span_id: each for (_, span_id), each in stores.spans.list_attachments(scope, keys).items()}


def read(stores: Stores, each: Attachment, trace: int = 1) -> bytes | None:
    found = stores.spans.read_attachment(SCOPE, run_id(trace), each.span_id, each.name)
    if found is None:
        return None
    pieces = list(found[1])
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert found[0] == info(each)
    return b"".join(pieces)


def delete(stores: Stores, name: str, trace: int = 1, rows_max: int = 10) -> dict[str, int]:
    planned = stores.deletions.plan_ids(SCOPE, [run_id(trace)], ANY_TIME)
    counts = stores.deletions.count_targets([line.trace_pk for line in planned])
    stores.deletions.hide(name, SCOPE, None, ANY_TIME, planned, b"{}")
    number, more = 0, True
    while more:
        _, more = stores.deletions.purge_batch(name, number, rows_max=rows_max)
        number += 1
    progress = stores.deletions.progress(name)
    assert progress is not None
    assert {key: progress.purged.get(key, 0) for key in counts} == counts
    assert not any(stores.deletions.remaining(name).values())
    return counts


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_any_order_of_runs_and_attachments(stores: Stores, order: tuple[int, ...], together: bool, named: bool) -> None:
    trace_id = run_id(1) if named else ""
    shares = [a_trace(), [attachment_batch(trace_id, IMAGE, EMPTY)], [attachment_batch(trace_id, LARGE)]]
    batches = [batch for at in order for batch in shares[at]]
    for share in [batches] if together else [[batch] for batch in batches]:
        for stored, repeated, refused, _ in write(stores, *share):
            assert stored
            assert (repeated, refused) == (0, 0)
    assert listed(stores) == {run_id(1): [info(EMPTY)], run_id(2): [info(IMAGE), info(LARGE)]}
    assert [read(stores, each) for each in ALL] == [each.data for each in ALL]
    assert write(stores, attachment_batch(trace_id, *ALL)) == [(0, 3, 0, None)]


def test_with_its_run_in_one_batch(stores: Stores) -> None:
    (batch,) = a_trace()
    assert write(stores, batch._replace(attachments=ALL)) == [(5, 0, 0, None)]
    assert write(stores, batch._replace(attachments=ALL)) == [(0, 5, 0, None)]
    assert read(stores, LARGE) == LARGE.data


def test_of_two_of_one_name_the_larger_hash_stays(stores: Stores) -> None:
    rivals = [IMAGE._replace(data=bytes([n]) * n * PIECE_BYTES, mime_type=f"x/{n}") for n in range(1, 4)]
    rivals += [each._replace(mime_type="x/9") for each in rivals]
    winner = max(rivals, key=lambda each: (hashlib.sha256(each.data).digest(), each.mime_type))
    write(stores, *a_trace())
    for each in rivals:
        write(stores, attachment_batch(run_id(1), each))
    assert listed(stores) == {run_id(2): [info(winner)]}
    assert read(stores, winner) == winner.data
    counts = delete(stores, "del-1")
    assert (counts["attachment"], counts["attachment_piece"]) == (1, len(winner.data) // PIECE_BYTES)
    for each in rivals:  # they wait, though the trace is purged: nobody knows whose they are
        write(stores, attachment_batch("", each._replace(span_id=run_id(4))))
    write(stores, *run_batches(create(4, trace=4), at_s=0))
    assert listed(stores) == {run_id(4): [info(winner)]}


def test_what_waits_is_nowhere_to_be_seen_and_not_for_ever(stores: Stores) -> None:
    assert write(stores, attachment_batch("", IMAGE), attachment_batch(run_id(1), EMPTY)) == [(1, 0, 0, None)] * 2
    assert visible(stores.reader, [1]) == {}
    assert listed(stores) == {}
    write(stores, attachment_batch("", LARGE), at_ns=WAITING_NS_MAX - 1)
    write(stores, *a_trace(), at_ns=WAITING_NS_MAX)
    assert listed(stores) == {run_id(2): [info(LARGE)]}


def test_in_another_project_it_waits_on(stores: Stores) -> None:
    write(stores, attachment_batch("", IMAGE, project_id=2), *a_trace())
    assert listed(stores, Scope((1, 2))) == {}
    write(stores, *run_batches(create(1, trace=1), create(2, trace=1), project_id=2))
    assert listed(stores, Scope((2,))) == {run_id(2): [info(IMAGE)]}
    assert listed(stores) == {}


def test_what_waits_in_a_project_goes_with_it(stores: Stores) -> None:
    files = [IMAGE._replace(name=f"{number}") for number in range(25)]
    write(stores, attachment_batch("", *files), attachment_batch("", IMAGE, project_id=2))
    assert stores.annotating.purge_project_annotations(1) == 25
    assert stores.annotating.purge_project_annotations(1) == 0
    write(stores, *a_trace(), *run_batches(create(2, trace=2), project_id=2))
    assert listed(stores) == {}
    assert listed(stores, Scope((2,))) == {run_id(2): [info(IMAGE)]}


def test_an_update_leaves_them(stores: Stores) -> None:
    write(stores, *a_trace(), attachment_batch("", *ALL))
    write(stores, *run_batches(update(2, trace=1), at_s=1))
    assert [read(stores, each) for each in ALL] == [each.data for each in ALL]


@pytest.mark.parametrize("rows_max", [1, 10, 1000])
def test_they_are_purged_with_the_trace(stores: Stores, rows_max: int) -> None:
    write(stores, *a_trace(), attachment_batch(run_id(1), *ALL))
    write(stores, *run_batches(create(3, trace=3)), attachment_batch("", IMAGE._replace(span_id=run_id(3))))
    counts = delete(stores, "del-1", rows_max=rows_max)
    assert (counts["attachment"], counts["attachment_piece"]) == (3, 4)
    assert listed(stores) == {run_id(3): [info(IMAGE)]}


def test_hidden_ones_are_not_there(stores: Stores) -> None:
    write(stores, *a_trace(), attachment_batch("", *ALL))
    found = stores.spans.read_attachment(SCOPE, run_id(1), run_id(2), "large")
    assert found is not None
    _, pieces = found
    next(pieces)
    planned = stores.deletions.plan_ids(SCOPE, [run_id(1)], ANY_TIME)
    stores.deletions.hide("del-1", SCOPE, None, ANY_TIME, planned, b"{}")
    with pytest.raises(NotFound):
        next(pieces)
    assert listed(stores) == {}
    assert read(stores, IMAGE) is None
    assert write(stores, attachment_batch("", IMAGE)) == [(0, 0, 1, "del-1")]
    assert write(stores, attachment_batch(run_id(1), IMAGE, LARGE)) == [(0, 0, 2, "del-1")]
    assert write(stores, attachment_batch("", EMPTY, IMAGE._replace(span_id=run_id(4)))) == [(1, 0, 1, "del-1")]
    progress = stores.deletions.progress("del-1")
    assert progress is not None
    assert progress.late_refused == 4
    stores.deletions.cancel("del-1")
    assert read(stores, LARGE) == LARGE.data


def test_refused_runs_take_along_what_waited_for_them(stores: Stores) -> None:
    write(stores, *run_batches(create(1, trace=1)))
    write(stores, attachment_batch("", IMAGE))
    delete(stores, "del-1")
    assert write(stores, *run_batches(create(2, trace=1))) == [(0, 0, 1, "del-1")]
    assert write(stores, attachment_batch("", EMPTY)) == [(0, 0, 1, "del-1")], "a root is named as its trace"
    stores.deletions.lift_tombstone(1, run_id(1))
    write(stores, *a_trace())
    assert listed(stores) == {}


def test_scopes_hold(stores: Stores) -> None:
    write(stores, *a_trace(), attachment_batch(run_id(1), *ALL))
    for scope in (Scope(()), Scope((2,)), Scope((1,), "prod")):
        assert listed(stores, scope) == {}
        assert stores.spans.read_attachment(scope, run_id(1), run_id(2), "image") is None
    assert stores.spans.read_attachment(SCOPE, run_id(1), run_id(2), "none") is None
    assert stores.spans.list_attachments(SCOPE, []) == {}
