"""Text search inside SQL: signatures narrow, the decoded text decides.

The filter compiler writes `text_match(t.trace_pk, operator, needle)`. Here that function gets its meaning: a trace
whose signature lacks the needle's grams is no match; any other is unpacked and looked at. So a hit is always a
real one. Most false candidates are told by their unpacked bytes (30 µs), without decoding spans. A search for a
common text in a large store would unpack the whole store to count: it gives up after a while, newest traces first,
and the page then says that its total is a floor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from clearspan.ingest.detail import searchable_text
from clearspan.ingest.payload import parse_block, record_bytes, unpack_block
from clearspan.query.ast import Condition, Expr, conjuncts
from clearspan.query.fields import FieldType
from clearspan.query.operators import Operator, casefold, text_matches
from clearspan.store.sqlite import text_index
from clearspan.store.sqlite.rows import block_range

LOOK_S_MAX = 0.8
"""A search that has looked at traces for so long gives up: its total is a floor then, and its page may be short."""
HITS_ENOUGH = 100
"""With so many found, a search for a common text gives up after a quarter of that time."""

CANDIDATES_GIVEN_MAX = 20_000
"""Up to so many candidates a query starts from them; beyond, it walks its index and tests what it meets."""


class GaveUp(Exception):
    """A text search has looked at traces for as long as it may."""


class Search:
    """State of the searches of one query on one connection."""

    def __init__(self, conn: apsw.Connection, *, limit_s: float | None, check: Callable[[], None]) -> None:
        self._conn = conn
        self._check = check
        self._limit_s = limit_s
        self._spent_s = 0.0
        self._hits = 0
        self._candidates: dict[tuple[str, bool], text_index.Candidates] = {}
        self._verdicts: dict[tuple[int, str, str], bool] = {}  # total and page look at the same traces
        self.gave_up = False

    def candidates_of(self, where: Expr | None) -> list[int] | None:
        """The few traces that can satisfy a filter by the text it must contain, newest first; None: no search, or
        too many. After giving up: those that were looked at and do satisfy it."""
        fewest: list[int] | None = None
        for part in conjuncts(where) if where is not None else ():
            if isinstance(part, Condition) and part.field.type is FieldType.SEARCH:
                found = self._found(part.operator, str(part.values[0]))
                if not found.unfiltered and len(found.trace_pks) <= CANDIDATES_GIVEN_MAX:
                    pks = found.trace_pks.tolist()
                    fewest = pks if fewest is None or len(pks) < len(fewest) else fewest
        if fewest is not None and self.gave_up:
            return [trace_pk for (trace_pk, _, _), verdict in self._verdicts.items() if verdict]
        return fewest

    def allow_more_time(self) -> None:
        """Start the limit anew, for another query of the same search: what was looked at is remembered."""
        self._spent_s = 0.0

    def match(self, trace_pk: int, operator: str, needle: str) -> bool:
        """Whether the trace's text satisfies the search; see query.operators.text_matches."""
        known = self._verdicts.get((trace_pk, operator, needle))
        if known is not None:
            return known
        if trace_pk not in self._found(operator, needle):
            return False
        self._check()
        if self._is_over_limit():
            self.gave_up = True
            raise GaveUp
        began = time.perf_counter()
        verdict = text_matches(operator, needle, self._texts(trace_pk, operator, needle))
        self._spent_s += time.perf_counter() - began
        self._hits += verdict
        self._verdicts[trace_pk, operator, needle] = verdict
        return verdict

    def _is_over_limit(self) -> bool:
        if self._limit_s is None:
            return False
        return self._spent_s > (self._limit_s / 4 if self._hits >= HITS_ENOUGH else self._limit_s)

    def _texts(self, trace_pk: int, operator: str, needle: str) -> list[str]:
        """The searchable texts of a trace that may count for a needle: of the records whose bytes may show it.

        Unpacked bytes tell most blocks, and in the others most records, apart without decoding a span.
        """
        anywhere = operator == Operator.FULL_TEXT_SEARCH  # its words may lie in different records
        runs = text_index.stable_runs(needle, phrase=not anywhere)
        if anywhere and not self._may_hold_anywhere(trace_pk, runs):
            return []
        texts: list[str] = []
        live: set[tuple[int, str | int]] | None = None
        for block_no, packed in self._blocks(trace_pk):
            if not anywhere and not text_index.may_hold(packed, runs):
                continue
            block = parse_block(packed)
            for record in block.records:
                if anywhere or text_index.may_hold(record.raw, runs):
                    live = live or self._live(trace_pk)
                    if (block_no, record.id) in live:
                        texts.append(searchable_text(record_bytes(block, record)))
        return texts

    def _may_hold_anywhere(self, trace_pk: int, runs: list[bytes]) -> bool:
        missing = runs
        for _, packed in self._blocks(trace_pk):
            missing = [run for run in missing if not text_index.may_hold(packed, [run])]
        return not missing

    def _blocks(self, trace_pk: int) -> Iterator[tuple[int, bytes]]:
        first, last = block_range(trace_pk)
        rows: list[Any] = self._conn.execute(
            "SELECT block_id, data FROM block WHERE block_id BETWEEN ? AND ?", (first, last)
        ).fetchall()
        for block_id, data in rows:
            yield block_id - first, unpack_block(data)

    def _live(self, trace_pk: int) -> set[tuple[int, str | int]]:
        """(block_no, id) of each record that no later content has replaced."""
        rows: Iterable[Any] = self._conn.execute(
            "SELECT block_no, span_id FROM span WHERE trace_pk = ?1 "
            "UNION ALL SELECT block_no, log_hash FROM log WHERE trace_pk = ?1",
            (trace_pk,),
        )
        return {(block_no, record_id) for block_no, record_id in rows}

    def _found(self, operator: str, needle: str) -> text_index.Candidates:
        phrase = operator != Operator.FULL_TEXT_SEARCH
        if (needle, phrase) not in self._candidates:
            self._candidates[needle, phrase] = text_index.candidates(self._conn, needle, phrase=phrase)
        return self._candidates[needle, phrase]


_searches = threading.local()


def register(conn: apsw.Connection) -> None:
    """Give a connection the SQL functions that compiled filters call."""

    def text_match(trace_pk: int, operator: str, needle: str) -> bool:
        search: Search = _searches.current
        return search.match(trace_pk, operator, needle)

    functions: dict[str, Any] = {"text_match": text_match, "casefold": casefold}
    conn.create_scalar_function("text_match", functions["text_match"], 3)
    conn.create_scalar_function("casefold", functions["casefold"], 1, deterministic=True)


@contextmanager
def searching(
    conn: apsw.Connection, *, unlimited: bool = False, check: Callable[[], None] = lambda: None
) -> Iterator[Search]:
    """The searches of one query; inside, `text_match` works on this thread.

    Args:
        unlimited: never give up; for what must be exact.
        check: called before each trace that is looked at; raises when the whole read must end.
    """
    search = Search(conn, limit_s=None if unlimited else LOOK_S_MAX, check=check)
    _searches.current = search
    try:
        yield search
    finally:
        _searches.current = None
