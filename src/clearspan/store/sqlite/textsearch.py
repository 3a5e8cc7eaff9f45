"""Text search inside SQL: signatures narrow, the decoded text decides.

The filter compiler writes `text_match(t.trace_pk, operator, needle)`. Here that function gets its meaning: a trace
whose signature lacks the needle's grams is no match; any other is unpacked and looked at. So a hit is always a
real one. A search for a common text in a large store would unpack the whole store to count: it gives up after a
number of traces looked at, and the page then says that its total is a floor.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from clearspan.ingest.detail import searchable_text
from clearspan.ingest.payload import decode_block, records_by_id
from clearspan.query.ast import Condition, Expr, conjuncts
from clearspan.query.fields import FieldType
from clearspan.query.operators import Operator, casefold, text_matches
from clearspan.store.sqlite import text_index
from clearspan.store.sqlite.rows import block_range

TRACES_LOOKED_AT_MAX = 2_000
"""Unpacking and searching one trace takes about 0.1 ms; a search that needs more than these gives up counting."""


CANDIDATES_GIVEN_MAX = 20_000
"""Up to so many candidates a query starts from them; beyond, it walks its index and tests what it meets."""


class GaveUp(Exception):
    """A text search has looked at as many traces as it may; `found` of them matched."""

    def __init__(self, found: int) -> None:
        super().__init__("text search stopped at its limit")
        self.found = found


class Search:
    """State of the searches of one query on one connection."""

    def __init__(self, conn: apsw.Connection, *, limit: int | None) -> None:
        self._conn = conn
        self._limit = limit
        self._candidates: dict[tuple[str, bool], text_index.Candidates] = {}
        self._verdicts: dict[tuple[int, str, str], bool] = {}  # total and page look at the same traces
        self.gave_up = False

    def candidates_of(self, where: Expr | None) -> list[int] | None:
        """The few traces that can satisfy a filter by the text it must contain; None: no search, or too many."""
        fewest: list[int] | None = None
        for part in conjuncts(where) if where is not None else ():
            if isinstance(part, Condition) and part.field.type is FieldType.SEARCH:
                found = self._found(part.operator, str(part.values[0]))
                if not found.unfiltered and len(found.trace_pks) <= CANDIDATES_GIVEN_MAX:
                    pks = found.trace_pks.tolist()
                    fewest = pks if fewest is None or len(pks) < len(fewest) else fewest
        return fewest

    def match(self, trace_pk: int, operator: str, needle: str) -> bool:
        """Whether the trace's text satisfies the search; see query.operators.text_matches."""
        known = self._verdicts.get((trace_pk, operator, needle))
        if known is not None:
            return known
        if trace_pk not in self._found(operator, needle):
            return False
        if self._limit is not None and len(self._verdicts) >= self._limit:
            self.gave_up = True
            raise GaveUp(sum(self._verdicts.values()))
        verdict = text_matches(operator, needle, _texts(self._conn, trace_pk))
        self._verdicts[trace_pk, operator, needle] = verdict
        return verdict

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

    conn.create_scalar_function("text_match", text_match, 3)
    conn.create_scalar_function("casefold", casefold, 1, deterministic=True)


@contextmanager
def searching(conn: apsw.Connection, *, unlimited: bool = False) -> Iterator[Search]:
    """The searches of one query; inside, `text_match` works on this thread."""
    search = Search(conn, limit=None if unlimited else TRACES_LOOKED_AT_MAX)
    _searches.current = search
    try:
        yield search
    finally:
        _searches.current = None


def _texts(conn: apsw.Connection, trace_pk: int) -> list[str]:
    """The searchable text of each live record of a trace."""
    first, last = block_range(trace_pk)
    live = {
        (block_no, record_id)
        for record_id, block_no in conn.execute(
            "SELECT span_id, block_no FROM span WHERE trace_pk = ?1 "
            "UNION ALL SELECT log_hash, block_no FROM log WHERE trace_pk = ?1",
            (trace_pk,),
        )
    }
    texts = []
    for block_id, data in conn.execute(
        "SELECT block_id, data FROM block WHERE block_id BETWEEN ? AND ?", (first, last)
    ):
        for record_id, record in records_by_id(decode_block(data)).items():
            if (block_id - first, record_id) in live:
                texts.append(searchable_text(record))
    return texts
