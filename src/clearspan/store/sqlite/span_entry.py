"""The narrowest way into a filter of spans: a few traces that every match must be in, found by an index."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apsw
import orjson

from clearspan.model.runs import derived_from, may_be_hashed
from clearspan.model.trace import Scope
from clearspan.query.ast import Condition, Expr, Group, RootSpan, SomeEntry, SomeSpan
from clearspan.query.fields import RUN_ID, SPAN_TEXT, THREAD_ID, THREAD_OF_CONTEXT, Collection
from clearspan.query.operators import Operator
from clearspan.store.sqlite import text_index, textsearch

GIVEN_MAX = 2_000
"""A filter that leaves more traces than this is read in the order of the page, not out of them."""
THREAD_READ_MAX = 5 * GIVEN_MAX
"""Of a thread no more contexts are looked at, those of other projects included."""

_EQUAL = frozenset({Operator.EQUALS, Operator.IN})
_SHOWS = frozenset(
    {Operator.EQUALS, Operator.CONTAINS, Operator.ICONTAINS, Operator.IEXACT, Operator.STARTSWITH, Operator.ENDSWITH}
)
"""What only texts that hold the given one satisfy."""
_READ_AS_SENT = frozenset({SPAN_TEXT.name, "span_error"})
"""Texts that stand in the wire bytes as they are."""
_READ_ANEW = frozenset({"span_input", "span_output", "input_value", "output_value"})
"""Texts that reading may write anew: numbers, the layout of JSON, the words of messages. Of these only a word of
letters that reading does not make itself is looked for in the wire bytes."""
WORD_CHARS_MIN = 5
MADE_WORDS = frozenset(
    {
        "application", "args", "arguments", "assistant", "base", "blob", "call", "calls", "choice", "choices",
        "completion", "content", "contents", "data", "false", "finish", "function", "generations", "image", "input",
        "instructions", "message", "messages", "mime", "name", "octet", "output", "parts", "prompt", "reason",
        "response", "result", "role", "stream", "system", "text", "tool", "toolcallid", "toolname", "type", "user",
        "value",
    }
)  # fmt: skip
"""What ingest/messages.py writes by itself, in lower case."""
_WORD = re.compile(rf"[^\W\d_]{{{WORD_CHARS_MIN},}}")


class Entry(NamedTuple):
    """Where to look."""

    trace_pks: Sequence[int] | None  # every match is in one of these; None: no way in is narrow enough
    texts: Sequence[text_index.Candidates]  # and in each of these

    def keep(self, trace_pks: Sequence[int]) -> Sequence[int]:
        """Those of some traces that may hold a match."""
        for found in self.texts:
            trace_pks = [pk for pk in trace_pks if pk in found]
        return trace_pks


def span_conjuncts(expr: Expr) -> Iterator[Expr]:
    """Parts of an expression about one span that must all hold for that span."""
    if isinstance(expr, Group) and expr.connector == "AND":
        for child in expr.children:
            yield from span_conjuncts(child)
    else:
        yield expr


def enter(conn: apsw.Connection, scope: Scope, where: Expr | None, search: textsearch.Search) -> Entry:
    """The narrowest entry of a filter. Cost: a range of an index for each part that has one, up to GIVEN_MAX rows."""
    narrowest: Sequence[int] | None = None
    texts: list[text_index.Candidates] = []
    for part in _of_trace(where) if where is not None else ():
        found: Sequence[int] | None = None
        needle = _needle(part)
        if needle is not None:
            candidates = search.may_hold(Operator.ICONTAINS, needle)
            if not candidates.unfiltered:
                texts.append(candidates)
                found = candidates.trace_pks.tolist() if len(candidates.trace_pks) <= GIVEN_MAX else None
        elif isinstance(part, Condition) and part.operator in _EQUAL:
            found = _by_thread(conn, scope, part) if part.field == THREAD_ID else _by_id(conn, scope, part)
        elif isinstance(part, SomeEntry) and part.collection is Collection.METADATA:
            found = _by_metadata(conn, scope, part)
        if found is not None and (narrowest is None or len(found) < len(narrowest)):
            narrowest = found
    return Entry(narrowest, texts)


def _of_trace(expr: Expr) -> Iterator[Expr]:
    """Parts that must hold for some span of the trace of every match, or for that trace."""
    for part in span_conjuncts(expr):
        if isinstance(part, RootSpan | SomeSpan):
            yield from _of_trace(part.child)
        else:
            yield part


def _needle(part: Expr) -> str | None:
    """A text that the wire bytes of every match must show; None: the part names none."""
    if isinstance(part, SomeEntry):
        found = (_needle(each) for each in span_conjuncts(part.child))
        return max((each for each in found if each is not None), key=len, default=None)
    if not isinstance(part, Condition) or len(part.values) != 1 or not isinstance(part.values[0], str):
        return None
    text = part.values[0]
    if part.field.name in _READ_AS_SENT:
        return text if part.operator in _SHOWS else None
    if part.field.name not in _READ_ANEW or part.operator not in _SHOWS | {Operator.LIKE}:
        return None
    words = (word for word in _WORD.findall(text) if not any(word.casefold() in made for made in MADE_WORDS))
    return max(words, key=len, default=None)


def _by_id(conn: apsw.Connection, scope: Scope, part: Condition) -> list[int] | None:
    ids = [str(value) for value in part.values]
    if part.field.name == "trace_unique_id":
        return _traces(conn, scope, "t.trace_id IN (SELECT value FROM json_each(?))", orjson.dumps(ids).decode())
    if part.field != RUN_ID or any(len(each) != 32 or may_be_hashed(each) for each in ids):
        return None
    found: list[int] = []
    for run_id in ids:
        found += _traces(conn, scope, "t.trace_id = ?", run_id)
        found += _with_span(conn, run_id)
        derived = derived_from(run_id)
        if derived is not None:
            found += _traces(conn, scope, "t.trace_id BETWEEN ? AND ?", derived.trace_id_min, derived.trace_id_max)
    return list(dict.fromkeys(found))


def _traces(conn: apsw.Connection, scope: Scope, condition: str, *params: str) -> list[int]:
    return [
        pk
        for project_id in dict.fromkeys(scope.project_ids)
        for (pk,) in conn.execute(
            f"SELECT t.trace_pk FROM trace t INDEXED BY trace_by_id WHERE t.project_id = ? AND {condition}",
            (project_id, *params),
        )
    ]


def _with_span(conn: apsw.Connection, span_id: str) -> list[int]:
    """The traces that hold a span of an id that is not 16 characters long: those have an index of their own."""
    return [
        pk
        for (pk,) in conn.execute(
            "SELECT trace_pk FROM span INDEXED BY span_by_id WHERE span_id = ? AND length(span_id) <> 16", (span_id,)
        )
    ]


def _by_thread(conn: apsw.Connection, scope: Scope, part: Condition) -> list[int] | None:
    """The traces of which some context names one of the threads: a span has the thread of its context. None: too many.

    Not by the thread that the trace shows, which is that of its root: its other spans may name others.
    """
    rows = list(
        conn.execute(
            "SELECT c.trace_pk, t.project_id FROM context c INDEXED BY context_by_thread CROSS JOIN trace t "
            f"USING (trace_pk) WHERE {THREAD_OF_CONTEXT} IN (SELECT value FROM json_each(?)) LIMIT ?",
            (orjson.dumps([str(value) for value in part.values]).decode(), THREAD_READ_MAX + 1),
        )
    )
    found = {trace_pk for trace_pk, project_id in rows if project_id in scope.project_ids}
    return list(found) if len(rows) <= THREAD_READ_MAX and len(found) <= GIVEN_MAX else None


def _by_metadata(conn: apsw.Connection, scope: Scope, part: SomeEntry) -> list[int] | None:
    """The traces that carry one of the wanted values under one of the wanted keys; None: not asked so, or too many."""
    asked: dict[str, list[str]] = {}
    for each in span_conjuncts(part.child):
        if isinstance(each, Condition) and each.operator in _EQUAL:
            asked[each.field.name] = [str(value) for value in each.values]
    if asked.keys() != {"metadata_key", "metadata_value"}:
        return None
    found: list[int] = []
    for project_id in dict.fromkeys(scope.project_ids):
        rows = conn.execute(
            "SELECT m.trace_pk FROM json_each(?) k CROSS JOIN json_each(?) v CROSS JOIN metadata m ON m.project_id = ? "
            "AND m.key = k.value AND m.value = v.value LIMIT ?",
            (
                orjson.dumps(asked["metadata_key"]).decode(),
                orjson.dumps(asked["metadata_value"]).decode(),
                project_id,
                GIVEN_MAX + 1 - len(found),
            ),
        )
        found += [pk for (pk,) in rows]
        if len(found) > GIVEN_MAX:
            return None
    return list(dict.fromkeys(found))
