"""What the offline check says of annotations that lie where they should not."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from clearspan.model.annotation import AnnotationTarget
from clearspan.model.span import SpanContext
from clearspan.store.annotations import AnnotationWrite
from clearspan.store.sqlite import fsck
from clearspan.store.sqlite.open import DATABASE
from clearspan.testing.build import T0_NS, make_annotation, make_trace
from clearspan.testing.local_store import open_local_store

T = AnnotationTarget
_IDLE = "annotation that waits for what is there, or does not wait for what is not"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = open_local_store(tmp_path)
    store.writer.submit([make_trace("t", context=SpanContext(session_id="s"))], T0_NS).result()
    said = [
        make_annotation(number=1, trace_id="t", span_id="t.0"),
        make_annotation(number=2, trace_id="t", span_id="late"),
        make_annotation(number=3, target=T.TRACE, trace_id="t"),
        make_annotation(number=4, target=T.TRACE, trace_id="later"),
        make_annotation(number=5, target=T.SESSION, session_id="s"),
        make_annotation(number=6, target=T.SESSION, session_id="later"),
        make_annotation(number=7, target=T.PROJECT),
    ]
    store.annotations.put_annotations([AnnotationWrite((1,), each) for each in said], received_ns=T0_NS)
    store.close()
    return tmp_path


def test_a_sound_store_has_no_violation(data: Path) -> None:
    assert fsck.check(data).violations == []


@pytest.mark.parametrize(
    ("sql", "invariant"),
    [
        ("UPDATE annotation SET trace_pk = 77 WHERE trace_id = 'later'", "annotation of a trace that is not there"),
        ("UPDATE annotation SET project_id = 2 WHERE target = 'trace'", "annotation in another project or trace"),
        ("UPDATE annotation SET of_root = 1 - of_root WHERE span_id = 't.0'", "annotation that is wrong about whether"),
        ("UPDATE annotation SET waits_ns = 1 WHERE span_id = 't.0'", _IDLE),
        ("UPDATE annotation SET waits_ns = NULL WHERE span_id = 'late'", _IDLE),
        ("UPDATE annotation SET waits_ns = NULL WHERE session_id = 'later'", _IDLE),
        ("UPDATE annotation SET waits_ns = 1 WHERE target = 'project'", _IDLE),
    ],
)
def test_what_is_wrong_is_named(data: Path, sql: str, invariant: str) -> None:
    conn = apsw.Connection(str(data / DATABASE))
    conn.execute(sql)
    conn.close()
    (found,) = [each for each in fsck.check(data, pages=False).violations if "annotation" in each.invariant]
    assert found.invariant.startswith(invariant)
    assert found.count == 1
