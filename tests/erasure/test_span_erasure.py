"""After a purge of single spans no file holds a byte of them, and every byte of the spans beside them is there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clearspan.files.pages import scan_database
from clearspan.model.annotation import AnnotationTarget
from clearspan.model.span import Attachment, SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.store.annotations import AnnotationWrite
from clearspan.store.port import HideOutcome
from clearspan.store.sqlite import fsck, text_index
from clearspan.store.sqlite.open import SqliteStore
from clearspan.testing.build import Built, make_annotation, make_batch, make_log, make_span
from clearspan.testing.local_store import open_local_store
from clearspan.testing.needles import needle_of, scan_folder, scan_values

SEED = 20261123
TRACES = 24
SCOPE, ALL = Scope((1,)), Window()


class Planted:
    """Traces of three spans, each of which has needles of its own wherever anything of it is kept."""

    def __init__(self) -> None:
        self.random = random.Random(SEED)
        self.needles: dict[str, list[str]] = {}
        self.superseded: set[str] = set()
        self.words: dict[str, str] = {}  # of the needles the one that a search for text finds

    def needle(self, span_id: str) -> str:
        made = needle_of(self.random.randbytes(12))
        self.needles.setdefault(span_id, []).append(made)
        return made

    def parts(self, span_id: str, at: int) -> list[Built]:
        context = SpanContext(
            customer_identifier=self.needle(span_id),
            session_id=self.needle(span_id),
            environment=self.needle(span_id),
            tags=(self.needle(span_id),),
            metadata=((self.needle(span_id), self.needle(span_id)),),
        )
        self.words[span_id] = self.needle(span_id)
        span = make_span(
            span_id,
            start_s=at,
            context=context,
            name=self.needle(span_id),
            text=f"{self.words[span_id]} {self.random.randbytes(self.random.randint(9, 4000)).hex()}",
        )
        log = make_log(span_id, at_s=at, text=self.needle(span_id), context=SpanContext(tags=(self.needle(span_id),)))
        return [span, log]

    def fill(self, store: SqliteStore) -> None:
        for number in range(TRACES):
            trace_id = f"{number:032x}"
            ids = [f"{number:030x}{n:02x}" for n in range(3)]
            superseded = make_span(ids[0], text=self.needle(ids[0]))
            self.superseded.update(self.needles[ids[0]])
            files = [Attachment(each, self.needle(each), "text/plain", self.needle(each).encode()) for each in ids]
            batches = [
                make_batch(trace_id, [superseded, *self.parts(ids[1], number)]),
                make_batch(trace_id, [*self.parts(ids[0], number + 9), *self.parts(ids[2], number - 5)]),
            ]
            batches[1] = batches[1]._replace(attachments=tuple(files))
            store.writer.submit(batches, 1).result()
            said = [
                make_annotation(
                    target=AnnotationTarget.SPAN,
                    number=int(each, 16),
                    trace_id=trace_id,
                    span_id=each,
                    explanation=self.needle(each),
                )
                for each in ids
            ]
            store.annotations.put_annotations([AnnotationWrite((1,), each) for each in said], received_ns=1)


def delete(store: SqliteStore, span_ids: list[str], deletion_id: str) -> None:
    lines = store.deletions.plan_spans(SCOPE, span_ids)
    assert store.deletions.hide(deletion_id, SCOPE, None, ALL, lines, b"{}") == HideOutcome(len(span_ids), 0, 0)
    number, more = 0, True
    while more:
        _, more = store.deletions.purge_batch(deletion_id, number, rows_max=100)
        number += 1
    store.deletions.settle(deletion_id)
    assert not any(store.deletions.remaining(deletion_id).values())


@pytest.mark.parametrize("is_sealed", [False, True])
def test_no_needle_of_a_deleted_span_is_left_in_any_file(tmp_path: Path, is_sealed: bool) -> None:
    made = Planted()
    store = open_local_store(tmp_path)
    made.fill(store)
    if is_sealed:
        text_index.seal(store.writer._service.conn, 0)  # type: ignore[attr-defined]
    victims = made.random.sample(sorted(made.needles), k=TRACES) + [f"{7:030x}{n:02x}" for n in range(3)]
    delete(store, sorted(set(victims)), "del_1")
    assert fsck.check(tmp_path, pages=False).violations == []
    for span_id, word in made.words.items():
        where = Condition(field_named("text"), Operator.CONTAINS, (word,))
        assert store.reader.count_traces(SCOPE, where, ALL) == (span_id not in victims)
    store.close()
    gone = {needle for span_id in victims for needle in made.needles[span_id]}
    kept = {needle for span_id in made.needles.keys() - set(victims) for needle in made.needles[span_id]}
    assert scan_folder(tmp_path, gone) == [], f"seed {SEED}"
    assert scan_values(tmp_path / "traces.db", gone) == [], f"seed {SEED}"
    assert scan_database(tmp_path / "traces.db").is_clean
    seen = {hit.needle for hit in scan_values(tmp_path / "traces.db", kept)}
    assert kept - seen <= made.superseded
    assert fsck.check(tmp_path).violations == []
