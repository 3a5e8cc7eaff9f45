"""Text search inside SQL: signatures narrow, the decoded text decides.

The filter compiler writes `text_match(t.trace_pk, operator, needle)`. Here that function gets its meaning: a trace
whose signature lacks the needle's grams is no match; any other is unpacked and looked at. So a hit is always a
real one. Looking ends at the first record that decides; most false candidates are told by their unpacked bytes,
without decoding a span, and of a large trace only those blocks are unpacked whose signatures have the grams. A search
for a common text in a large store would still unpack the whole store to count: it gives up after a while, the page's
traces first, and the page then says that its total is a floor. A rare text has ten times as long: it is found wherever
it is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw
import numpy as np

from clearspan.ingest.detail import text_of
from clearspan.ingest.payload import BlockRecord, parse_block, unpack_block
from clearspan.model.runs import run_id_of
from clearspan.query.ast import Condition, Expr, conjuncts
from clearspan.query.fields import FieldType
from clearspan.query.operators import Operator, casefold, like
from clearspan.store.sqlite import text_index
from clearspan.store.sqlite.payloads import SpanPayloads
from clearspan.store.sqlite.rows import block_range

SEARCH_S_MAX = 0.2
"""A request that has looked at texts for so long gives up: its total is a floor then, and its page may be short.
Finding the candidates comes before, and is never cut short."""
HITS_ENOUGH = 100
"""With so many found, a search for a common text gives up after half of that time."""
COMPLETE_S_MAX = 3.0
"""How long a search may look for a text that is rare: that everything is found matters more there than the time."""

CANDIDATES_GIVEN_MAX = 20_000
"""Up to so many candidates a query starts from them; beyond, it walks its index and tests what it meets. Up to so many
it also has `COMPLETE_S_MAX`, until it has found enough."""
PAGE_GIVEN_MAX = 1_000
"""Up to so many candidates all are looked at, however many are found; of more, a page looks at those that come first in
its order."""


_NO_PKS = np.zeros(0, np.int64)


class GaveUp(Exception):
    """A text search has looked at traces for as long as it may."""


class Search:
    """State of the searches of one query on one connection."""

    def __init__(
        self, conn: apsw.Connection, *, unlimited: bool, check: Callable[[], None], narrow: bool = True
    ) -> None:
        self._narrow = narrow
        self._conn = conn
        self._check = check
        self._unlimited = unlimited
        self._fewest = math.inf  # candidates of the rarest text that every match must contain
        self._began_s = math.nan  # of time.perf_counter; set by the first trace that is asked for
        self._hits = 0
        self._candidates: dict[tuple[str, bool], text_index.Candidates] = {}
        self._verdicts: dict[tuple[int, str, str], bool] = {}  # page and total look at the same traces
        self.gave_up = False
        self.payloads = SpanPayloads(conn, check)

    def may_hold(self, operator: str, needle: str) -> text_index.Candidates:
        """The traces that can show a text, by their signatures alone: a superset."""
        return self._found(operator, needle)

    def candidates_of(self, where: Expr | None, limit: int = CANDIDATES_GIVEN_MAX) -> list[int] | None:
        """The few traces that can satisfy a filter by the text it must contain, newest first; None: no search, or
        more than `limit`. After giving up: those that were looked at and do satisfy it."""
        wanted = searches_of(where)
        if not wanted:
            return None
        if self.gave_up:
            sets = [self._seen(*each) for each in wanted]
            return sorted(set.intersection(*sets), reverse=True)
        found = [self._found(*each) for each in wanted]
        fewest = min((each.trace_pks for each in found if not each.unfiltered), key=len, default=None)
        if fewest is None:
            return None
        self._fewest = len(fewest)
        return None if len(fewest) > limit else fewest.tolist()

    def _seen(self, operator: str, needle: str) -> set[int]:
        return {pk for (pk, *each), verdict in self._verdicts.items() if verdict and each == [operator, needle]}

    def match(self, trace_pk: int, operator: str, needle: str) -> bool:
        """Whether the trace's text satisfies the search: what query.operators.text_matches says of all its texts."""
        known = self._verdicts.get((trace_pk, operator, needle))
        if known is not None:
            return known
        found = self._found(operator, needle)
        self._stop_if_late()
        if trace_pk not in found:
            return False
        self._check()
        verdict = self._look(trace_pk, _Wanted(operator, needle), found.blocks.get(trace_pk))
        self._hits += verdict
        self._verdicts[trace_pk, operator, needle] = verdict
        return verdict

    def _stop_if_late(self) -> None:
        if self._unlimited:
            return
        now = time.perf_counter()
        if math.isnan(self._began_s):
            self._began_s = now
        if now - self._began_s > self._limit_s():
            self.gave_up = True
            raise GaveUp

    def _limit_s(self) -> float:
        common = self._hits >= HITS_ENOUGH
        if self._fewest <= (PAGE_GIVEN_MAX if common else CANDIDATES_GIVEN_MAX):
            return COMPLETE_S_MAX
        return SEARCH_S_MAX / 2 if common else SEARCH_S_MAX

    def _look(self, trace_pk: int, wanted: _Wanted, ranges: text_index.Ranges | None) -> bool:
        """Whether the records of a trace show everything that is wanted.

        Args:
            ranges: the blocks that may show any of it; None: any may.
        """
        if len(wanted.missing) > 1 and not self._may_show_all(trace_pk, wanted, ranges):
            return False
        for block_no, packed in self._blocks(trace_pk, ranges):
            self._stop_if_late()  # the blocks of one trace may be gigabytes
            here = wanted.maybe_in(packed.lower())
            if here:
                for record in _records_of(packed, here, wanted):
                    if self._is_live(trace_pk, block_no, record.id):
                        wanted.see(text_of(record.codec, record.raw))
                        if not wanted.missing:
                            return True
        return not wanted.missing

    def _may_show_all(self, trace_pk: int, wanted: _Wanted, ranges: text_index.Ranges | None) -> bool:
        """Whether the bytes of the trace may show everything: for words that may lie in different records."""
        unseen = set(wanted.missing)
        for _, packed in self._blocks(trace_pk, ranges):
            self._stop_if_late()
            unseen -= set(wanted.maybe_in(packed.lower()))
            if not unseen:
                return True
        return False

    def _blocks(self, trace_pk: int, ranges: text_index.Ranges | None) -> Iterator[tuple[int, bytes]]:
        zero, last = block_range(trace_pk)
        for first_no, last_no in ranges if ranges is not None else ((0, last - zero),):
            rows: Iterable[Any] = self._conn.execute(
                "SELECT block_id, data FROM block WHERE block_id BETWEEN ? AND ?", (zero + first_no, zero + last_no)
            )
            for block_id, data in rows:
                yield block_id - zero, unpack_block(data)

    def _is_live(self, trace_pk: int, block_no: int, record_id: str | int) -> bool:
        """Whether no later content has replaced a record."""
        table, column = ("span", "span_id") if isinstance(record_id, str) else ("log", "log_hash")
        sql = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE trace_pk = ? AND {column} = ? AND block_no = ?)"
        return bool(self._conn.execute(sql, (trace_pk, record_id, block_no)).get)

    def _found(self, operator: str, needle: str) -> text_index.Candidates:
        if not self._narrow:
            return text_index.Candidates(_NO_PKS, unfiltered=True)
        phrase = operator != Operator.FULL_TEXT_SEARCH
        if (needle, phrase) not in self._candidates:
            self._candidates[needle, phrase] = text_index.candidates(self._conn, needle, phrase=phrase)
        return self._candidates[needle, phrase]


def searches_of(where: Expr | None) -> list[tuple[str, str]]:
    """(operator, needle) of each text that every match must contain."""
    parts = conjuncts(where) if where is not None else ()
    return [
        (part.operator, str(part.values[0]))
        for part in parts
        if isinstance(part, Condition) and part.field.type is FieldType.SEARCH
    ]


class _Wanted:
    """What one look at a trace has yet to see: the needle, or each of its words."""

    def __init__(self, operator: str, needle: str) -> None:
        self._folds = operator != Operator.CONTAINS
        folded = needle.casefold() if self._folds else needle
        words = folded.split() if operator == Operator.FULL_TEXT_SEARCH else [folded]
        self.missing = {word: text_index.stable_runs(word) for word in words}

    def maybe_in(self, lowered: bytes) -> list[str]:
        """The words that lowered wire bytes may show."""
        return [word for word, runs in self.missing.items() if text_index.may_hold(lowered, runs)]

    def see(self, text: str) -> None:
        """Take out what a record's text shows."""
        if self._folds:
            text = text.casefold()
        for word in [word for word in self.missing if word in text]:
            del self.missing[word]


def _records_of(packed: bytes, here: Sequence[str], wanted: _Wanted) -> Iterator[BlockRecord]:
    """The records of a block that may show something wanted: first those that have it in their bytes as it is."""
    later: list[tuple[BlockRecord, bytes]] = []
    runs_here = [wanted.missing[word] for word in here]
    for record in parse_block(packed).records:
        raw = record.raw.lower()
        if any(all(run in raw for run in runs) for runs in runs_here):
            yield record
        else:
            later.append((record, raw))
    for record, raw in later:
        if wanted.maybe_in(raw):
            yield record


_searches = threading.local()


def register(conn: apsw.Connection) -> None:
    """Give a connection the SQL functions that compiled filters call."""

    def text_match(trace_pk: int, operator: str, needle: str) -> bool:
        search: Search = _searches.current
        return search.match(trace_pk, operator, needle)

    def span_part(trace_pk: int, span_id: str, block_no: int, what: str) -> str | None:
        search: Search = _searches.current
        return search.payloads.part(trace_pk, span_id, block_no, what)

    def span_entries(trace_pk: int, span_id: str, block_no: int, what: str) -> str:
        search: Search = _searches.current
        return search.payloads.entries(trace_pk, span_id, block_no, what)

    of_snapshot: dict[str, Any] = {"text_match": text_match, "span_part": span_part, "span_entries": span_entries}
    for name, arguments in (("text_match", 3), ("span_part", 4), ("span_entries", 4)):
        conn.create_scalar_function(name, of_snapshot[name], arguments)
    register_pure(conn)


def register_pure(conn: apsw.Connection) -> None:
    """The SQL functions of compiled filters that look at their arguments only."""
    functions: dict[str, Any] = {"casefold": casefold, "like_text": like, "run_id": run_id_of}
    for name, arguments in (("casefold", 1), ("like_text", 2), ("run_id", 3)):
        conn.create_scalar_function(name, functions[name], arguments, deterministic=True)


@contextmanager
def searching(
    conn: apsw.Connection,
    *,
    unlimited: bool = False,
    check: Callable[[], None] = lambda: None,
    narrow: bool = True,
) -> Iterator[Search]:
    """The searches of one query; inside, `text_match` works on this thread.

    Args:
        unlimited: never give up; for what must be exact.
        check: called before each trace that is looked at; raises when the whole read must end.
        narrow: False: look at the text of every trace asked for, without the index; for a few given traces.
    """
    search = Search(conn, unlimited=unlimited, check=check, narrow=narrow)
    outer = getattr(_searches, "current", None)
    _searches.current = search
    try:
        yield search
    finally:
        _searches.current = outer
