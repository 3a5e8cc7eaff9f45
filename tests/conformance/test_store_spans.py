"""Lists and figures of single spans: exact order, stable pages, nothing hidden, the same in every store."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearspan.api.langsmith.grammar import parse_filter
from clearspan.ingest import messages
from clearspan.model.annotation import Annotation, AnnotationTarget, AnnotatorKind
from clearspan.model.errors import ReadTooSlow
from clearspan.model.span import SpanContext
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Expr, RootSpan, SomeSpan
from clearspan.query.page import NEWEST_FIRST, OffsetPage
from clearspan.store.annotations import AnnotationWrite
from clearspan.store.memory import MemoryStore
from clearspan.store.spans import SpanOrder, SpanPosition, SpanRow
from clearspan.store.sqlite import span_entry, span_listing, span_slices, text_index
from clearspan.store.sqlite.reader import SqliteReader
from clearspan.store.sqlite.textsearch import Search
from clearspan.testing.build import SECOND_NS, T0_NS, make_batch, make_span, make_trace, with_metadata
from clearspan.testing.local_store import open_local_store
from clearspan.testing.runs import create, run_batches, run_id, update
from clearspan.testing.stores import TOMBSTONE_SECRET, Stores
from clearspan.testing.strategies import batches, scopes, windows

ALL = Scope((1, 2))
FILTERS = (
    'eq(run_type, "llm")',
    'neq(run_type, "llm")',
    "eq(is_root, true)",
    "not(eq(is_root, true))",
    'and(eq(is_root, true), eq(status, "error"))',
    'and(eq(metadata_key, "plan"), eq(metadata_value, "pro"))',
    'and(eq(metadata_key, "plan"), neq(metadata_value, "pro"))',
    'neq(metadata_key, "plan")',
    'has(tags, "x")',
    'search("hello world")',
    'not(search("hello"))',
    'search("日本語")',
    'like(input_value, "hello%")',
    'and(eq(input_key, "input"), eq(input_value, "hello world"))',
    'in(thread_id, ["s-1", "th"])',
    "gt(latency, 1)",
    "gt(total_tokens, 3)",
    'in(trace_id, ["t0", "t3"])',
    'or(eq(name, "span s0"), gte(total_cost, 0.001))',
)
FIRST = (1, 2, 3, 5, 1000)


def keys_of(rows: list[SpanRow]) -> list[tuple[int, int, str]]:
    return [(row.detail.span.start_ns, row.trace.trace_pk, row.detail.span.span_id) for row in rows]


def pages(
    stores: Stores, scope: Scope, where: Expr | None, window: Window, order: SpanOrder, limit: int
) -> Iterator[list[SpanRow]]:
    after: SpanPosition | None = None
    while True:
        page = stores.spans.list_spans(scope, where, window, order=order, after=after, limit=limit)
        yield page.rows
        if page.after is None:
            return
        assert len(page.rows) == limit, "a page that says there are more is full"
        after = page.after


def everything(stores: Stores, where: Expr | None = None, *, limit: int = 1000, **more: object) -> list[SpanRow]:
    """All rows, newest first."""
    found = pages(stores, ALL, where, Window(), SpanOrder.START_DESC, limit)
    return [row for page in found for row in page]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], tuple[Stores, Stores]]]:
    """Both stores, empty, as often as asked for."""
    made: list[Stores] = []

    def make() -> tuple[Stores, Stores]:
        while made:
            made.pop().close()
        sqlite = open_local_store(tmp_path_factory.mktemp("spans"), TOMBSTONE_SECRET)
        made.extend((Stores.of_memory(MemoryStore(TOMBSTONE_SECRET)), Stores.of_sqlite(sqlite)))
        return made[0], made[1]

    yield make
    for each in made:
        each.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(batches(), min_size=1, max_size=12),
    scopes(),
    windows(),
    st.lists(
        st.tuples(st.sampled_from((None, *FILTERS)), st.sampled_from(("", "root", "tree"))), min_size=6, max_size=6
    ),
    st.sampled_from(FIRST),
    st.integers(0, 2),
)
def test_both_stores_list_the_same_in_the_same_order(
    pair: Callable[[], tuple[Stores, Stores]],
    written: list,
    scope: Scope,
    window: Window,
    asked: list[tuple[str | None, str]],
    limit: int,
    hidden: int,
) -> None:
    memory, sqlite = pair()
    for store in (memory, sqlite):
        store.writer.write(written, received_ns=1)
        plan = store.deletions.plan(ALL, None, Window(), received_before_ns=2, limit=100)[:hidden]
        if plan:
            store.deletions.hide("d", ALL, None, Window(), plan, b"{}")
    for text, turn in asked:
        where = None if text is None else parse_filter(text)
        if where is not None and turn:
            where = RootSpan(where) if turn == "root" else SomeSpan(where)
        for order in SpanOrder:
            told = [
                [row for page in pages(s, scope, where, window, order, limit) for row in page] for s in (memory, sqlite)
            ]
            assert told[0] == told[1], (text, turn, order)
            keys = keys_of(told[1])
            by_start = order in (SpanOrder.START_ASC, SpanOrder.START_DESC)
            wanted = sorted(
                keys, key=lambda key: key if by_start else (key[1], key[0], key[2]), reverse=order.endswith("_desc")
            )
            assert keys == wanted
        assert memory.spans.span_stats(scope, where, window) == sqlite.spans.span_stats(scope, where, window)


def test_pages_hold_each_row_once_while_others_write(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_listing, "SLICE_TRACES_MIN", 1)
    first = [make_trace(f"a{n}", start_s=float(n % 7), span_count=3) for n in range(20)]
    stores.writer.write(first, received_ns=1)
    before = {(row.trace.summary.trace_id, row.detail.span.span_id) for row in everything(stores)}
    for order in SpanOrder:
        seen: list[tuple[str, str]] = []
        for number, rows in enumerate(pages(stores, ALL, None, Window(), order, 4)):
            seen += [(row.trace.summary.trace_id, row.detail.span.span_id) for row in rows]
            stores.writer.write([make_trace(f"{order}{number}", start_s=float(number % 9) - 1.5)], received_ns=2)
            if number > 200:
                break
        assert len(seen) == len(set(seen))
        assert before <= set(seen)


def test_traces_that_overlap_and_last_are_found(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices are cut by the starts of traces; spans may start long after."""
    monkeypatch.setattr(span_listing, "SLICE_TRACES_MIN", 1)
    monkeypatch.setattr(span_slices, "LONG_TRACES", 2)
    for number in range(30):
        spans = [
            make_span(f"s{n}", parent="s0" if n else None, start_s=number + n * (number % 5) * 40.0) for n in range(4)
        ]
        stores.writer.write([make_batch(f"t{number}", spans)], received_ns=number)
    for limit in (1, 7, 1000):
        keys = keys_of(
            [row for page in pages(stores, ALL, None, Window(), SpanOrder.START_DESC, limit) for row in page]
        )
        assert len(keys) == 120
        assert keys == sorted(keys, reverse=True)
    middle = Window(T0_NS + 100 * SECOND_NS, T0_NS + 200 * SECOND_NS)
    inside = stores.spans.list_spans(ALL, None, middle, limit=1000)
    wanted = [key for key in keys if middle.start_ns <= key[0] < middle.end_ns]  # type: ignore[operator]
    assert keys_of(inside.rows) == wanted
    assert 0 < len(wanted) < 120


@pytest.fixture
def runs(stores: Stores) -> Stores:
    """Three LangSmith traces of two runs and one of another dialect."""
    for number, (question, error) in enumerate(
        (("how tall is Zugspitze", None), ("rückwärts", "ValueError: no"), ("7", None))
    ):
        root, child = 10 * number + 1, 10 * number + 2
        batch = run_batches(
            create(root, trace=root, start_s=number, run_type="chain", inputs={"q": {"text": question, "n": number}}),
            update(root, trace=root, end_s=number + 2.0, outputs={"answers": ["yes", {"why": "because"}]}),
            create(child, trace=root, start_s=number + 0.5, run_type="llm", inputs={"prompt": "same for all"}),
            *([update(child, trace=root, end_s=number + 1.0, error=error)] if error else []),
        )
        stores.writer.write(batch, received_ns=number)
    context = with_metadata({"user": "anna"})
    stores.writer.write(
        [make_batch("b" * 32, [make_span("c" * 16, start_s=9.0, context=context, text="Zugspitze")])], received_ns=9
    )
    return stores


def found(stores: Stores, text: str) -> list[str]:
    return [row.detail.span.span_id.lstrip("0") for row in everything(stores, parse_filter(text))]


def test_a_parser_is_no_chain(stores: Stores) -> None:
    stores.writer.write(run_batches(create(1, trace=1), create(2, trace=1, run_type="parser")), received_ns=1)
    assert found(stores, 'eq(run_type, "parser")') == ["2"]
    assert found(stores, 'eq(run_type, "chain")') == ["1"]
    assert found(stores, 'neq(run_type, "chain")') == ["2"]


def test_the_runs_own_record_is_searched(runs: Stores) -> None:
    other = "c" * 16
    assert found(runs, 'search("zugspitze")') == [other, "1"]
    assert found(runs, 'and(eq(input_key, "q.text"), like(input_value, "%Zug%"))') == ["1"]
    assert found(runs, 'and(eq(input_key, "q.n"), eq(input_value, 2))') == ["15"]
    assert found(runs, 'eq(input_value, "7")') == ["15"]
    assert found(runs, 'and(eq(output_key, "answers"), eq(output_value, "yes"))') == ["15", "b", "1"]
    assert found(runs, 'eq(output_key, "answers.why")') == ["15", "b", "1"]
    assert found(runs, 'search(error, "valueerror")') == ["c"]
    assert found(runs, "neq(error, null)") == ["c"]
    assert found(runs, 'eq(status, "pending")') == ["16", "2"]
    assert found(runs, "eq(end_time, null)") == ["16", "2"]
    assert found(runs, 'search(inputs, "same for")') == ["16", "c", "2"]
    assert found(runs, 'not(search("same for all"))') == [other, "15", "b", "1"]
    assert found(runs, 'search("nowhere at all")') == []


def test_runs_are_found_by_their_ids(runs: Stores) -> None:
    assert found(runs, f'eq(id, "{run_id(2)}")') == ["2"]
    assert found(runs, f'eq(parent_run_id, "{run_id(1)}")') == ["2"]
    assert found(runs, f'eq(trace_id, "{run_id(11)}")') == ["c", "b"]
    assert found(runs, f'eq(id, "{"b" * 32}")') == ["c" * 16], "the root of another dialect's trace has the trace's id"
    assert found(runs, f'eq(id, "{"e" * 32}")') == []


def test_feedback_pairs_hold_on_one_annotation(runs: Stores) -> None:
    for number, (span, name, score) in enumerate((("1", "q", 0.2), ("1", "other", 0.9), ("b", "q", 0.9))):
        span_id = run_id(int(span, 16))
        said = dict.fromkeys(Annotation._fields) | {
            "annotation_id": f"{number:032x}", "target": AnnotationTarget.SPAN, "trace_id": span_id, "span_id": span_id,
            "name": name, "identifier": "", "kind": AnnotatorKind.HUMAN, "score": score, "source": "api",
            "created_ns": number, "updated_ns": number,
        }  # fmt: skip
        runs.annotating.put_annotations([AnnotationWrite((1,), Annotation(**said))], received_ns=number)  # type: ignore[arg-type]
    assert found(runs, 'and(eq(feedback_key, "q"), gt(feedback_score, 0.5))') == ["b"]
    assert found(runs, 'eq(feedback_key, "q")') == ["b", "1"]
    assert found(runs, 'and(eq(is_root, true), neq(feedback_key, "q"))') == ["c" * 16, "15"]
    # The same expression in a filter of traces.
    listed = runs.reader.list_traces(
        ALL, SomeSpan(parse_filter('eq(feedback_key, "q")')), Window(), NEWEST_FIRST, OffsetPage()
    )
    assert [row.summary.trace_id for row in listed.rows] == [run_id(11), run_id(1)]


def test_a_deletion_can_ask_for_single_spans(runs: Stores) -> None:
    where = SomeSpan(parse_filter('like(input_value, "%Zugspitze%")'))
    plan = runs.deletions.plan(ALL, where, Window(), received_before_ns=100, limit=10)
    assert [line.trace_id for line in plan] == [run_id(1), "b" * 32]
    assert runs.deletions.hide("d", ALL, where, Window(), plan, b"{}").hidden == 2
    assert found(runs, 'search("Zugspitze")') == []
    assert runs.spans.span_stats(ALL, None, Window()).count == 4


def test_a_narrow_entry_and_none_give_the_same(runs: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = (
        'search("zugspitze")',
        'has(metadata, \'{"user": "anna"}\')',
        f'eq(id, "{run_id(2)}")',
        'search("same for all")',
    )
    narrow = [found(runs, text) for text in texts]
    assert all(narrow)
    monkeypatch.setattr(span_entry, "GIVEN_MAX", 0)
    assert [found(runs, text) for text in texts] == narrow


def test_records_come_only_when_asked_for(runs: Stores) -> None:
    with_records = runs.spans.list_spans(ALL, None, Window(), limit=3).rows
    without = runs.spans.list_spans(ALL, None, Window(), limit=3, records=False).rows
    assert all(row.detail.record for row in with_records)
    assert [row.detail.record for row in without] == [b""] * 3
    assert keys_of(with_records) == keys_of(without)


def test_a_list_of_spans_that_takes_too_long_ends(stores: Stores) -> None:
    stores.writer.write([make_trace("t")], received_ns=1)
    if not isinstance(stores.reader, SqliteReader):
        return
    stores.reader.seconds_max = -1.0
    with pytest.raises(ReadTooSlow):
        stores.spans.list_spans(ALL, None, Window(), limit=1)
    with pytest.raises(ReadTooSlow):
        stores.spans.span_stats(ALL, None, Window())


def test_every_word_that_reading_makes_is_known_as_such() -> None:
    """A word that is not in the wire bytes must not be looked for there."""
    tree = ast.parse(Path(messages.__file__).read_text(encoding="utf-8"))
    said = [
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and isinstance(node.body[0], ast.Expr)
    ]
    made = {
        word.lower()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in said
        for word in re.findall(r"[^\W\d_]{4,}", node.value)
    }
    assert made <= span_entry.MADE_WORDS


def test_words_of_inputs_are_looked_for_in_the_signatures_first(runs: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look = text_index.candidates
    monkeypatch.setattr(
        text_index, "candidates", lambda conn, needle, **more: asked.append(needle) or look(conn, needle, **more)
    )
    assert found(runs, 'and(eq(input_key, "q.text"), like(input_value, "%tall%Zugspitze%"))') == ["1"]
    assert found(runs, 'like(input_value, "%rückwärts")') == ["b"]
    assert found(runs, 'eq(input_value, "7")') == ["15"]
    assert asked in ([], ["Zugspitze", "rückwärts"])


def test_a_thread_is_found_by_the_contexts_that_name_it(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a thread that the trace does not show, by its session where there is no thread, and in the scope alone."""
    here, other = SpanContext(thread_id="here", session_id="in"), SpanContext(thread_id="other")
    session = SpanContext(session_id="in")
    batches = [
        make_batch("t1", [make_span("a", context=other), make_span("b", parent="a", start_s=1, context=here)]),
        make_batch("t2", [make_span("c", start_s=2, context=session), make_span("d", parent="c", start_s=3)]),
        make_batch("t3", [make_span("e", start_s=4, context=here)], project_id=2),
        *(make_batch(f"n{n}", [make_span("n", start_s=5 + n, context=other)]) for n in range(20)),
    ]
    stores.writer.write(batches, received_ns=1)

    def ids(text: str, scope: Scope = ALL) -> list[str]:
        page = stores.spans.list_spans(scope, parse_filter(text), Window(), order=SpanOrder.START_ASC, limit=30)
        return [row.detail.span.span_id for row in page.rows]

    for read_max in (span_entry.THREAD_READ_MAX, 1):  # entered through the index, and not, for there is too much
        monkeypatch.setattr(span_entry, "THREAD_READ_MAX", read_max)
        assert ids('eq(thread_id, "here")') == ["b", "e"]
        assert ids('eq(thread_id, "here")', Scope((1,))) == ["b"]
        assert ids('eq(thread_id, "in")') == ["c"]
        assert ids('in(thread_id, ["in", "here", "none"])', Scope((1,))) == ["b", "c"]
        assert ids('eq(thread_id, "none")') == []
        assert ids('and(eq(is_root, true), eq(thread_id, "here"))') == ["e"]
        assert ids('not(eq(thread_id, "other"))') == ["b", "c", "d", "e"]
    if isinstance(stores.reader, SqliteReader):
        monkeypatch.undo()
        with stores.reader.snapshot() as conn:
            asked: list[str] = []
            search = Search(conn, unlimited=False, check=lambda: None)
            conn.exec_trace = lambda _, sql, __: asked.append(sql) or True
            entry = span_entry.enter(conn, ALL, parse_filter('eq(thread_id, "here")'), search)
            conn.exec_trace = None
            assert len(entry.trace_pks or ()) == 2
            (sql,) = asked
            plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", ('["here"]', 9))]
            assert plan[0] == "SEARCH c USING COVERING INDEX context_by_thread (<expr>=?)", plan


def test_no_query_of_a_page_reads_all_spans_or_traces(stores: Stores) -> None:
    """Every statement enters its tables by a key or an index."""
    if not isinstance(stores.reader, SqliteReader):
        return
    stores.writer.write([make_trace(f"t{n}", start_s=float(n)) for n in range(30)], received_ns=1)
    asked: dict[str, tuple] = {}

    def note(_: object, sql: str, bindings: object) -> bool:
        asked[sql] = bindings  # type: ignore[assignment]
        return True

    window = Window(T0_NS + 5 * SECOND_NS, T0_NS + 20 * SECOND_NS)
    texts = (
        None,
        "eq(is_root, true)",
        'eq(status, "error")',
        'and(eq(metadata_key, "k"), eq(metadata_value, "v"))',
        f'eq(id, "{run_id(1)}")',
        'eq(feedback_key, "q")',
        'search("hello world")',
        'eq(input_key, "a")',
        'eq(thread_id, "th")',
        'and(eq(is_root, true), in(thread_id, ["s-1", "th"]))',
    )
    with stores.reader.snapshot() as conn:
        conn.exec_trace = note
    try:
        for text in texts:
            where = None if text is None else parse_filter(text)
            for order in SpanOrder:
                for bounds in (window, Window()):
                    stores.spans.list_spans(Scope((1,)), where, bounds, order=order, limit=5)
    finally:
        conn.exec_trace = None
    with stores.reader.snapshot() as conn:
        for sql, bindings in asked.items():
            if not sql.startswith("SELECT"):
                continue
            plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
            scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
            assert [
                step for step in scans if not re.match(r"SCAN (hidden|text_segment|text_doc|CONSTANT)", step)
            ] == [], sql
