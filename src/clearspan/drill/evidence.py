"""From the witness's findings to statements: which needle was seen where."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from clearspan.drill.needles import FRAGMENT, Needle

Json = dict[str, Any]
Sight = tuple[str, int]  # kind, needle's number

PLACES_TOLD = 5


class Sightings(NamedTuple):
    """One look, by needle."""

    files: dict[Sight, list[str]]  # → files and tables
    reads: dict[Sight, list[str]]  # → routes
    fragments: dict[str, list[str]]  # kind → places where a piece of a needle is left

    def count_of(self, kind: str, where: str) -> int:
        """How many needles of a kind were seen in `files` or `reads`."""
        found: dict[Sight, list[str]] = getattr(self, where)
        return sum(each == kind for each, _ in found)

    def missing(self, kind: str, needles: Sequence[Needle], where: str) -> list[Needle]:
        """The needles of a kind that were not seen."""
        found: dict[Sight, list[str]] = getattr(self, where)
        return [needle for needle in needles if (kind, needle.number) not in found]


def sightings(found: Json) -> Sightings:
    """What one look saw, from what the witness handed back."""
    files: defaultdict[Sight, list[str]] = defaultdict(list)
    reads: defaultdict[Sight, list[str]] = defaultdict(list)
    fragments: defaultdict[str, list[str]] = defaultdict(list)
    for told, hits in ((files, found["files"]["hits"]), (reads, (found["reads"] or {"hits": []})["hits"])):
        for place, name, writing in hits:
            kind, _, number = name.partition("/")
            if number == FRAGMENT:
                fragments[kind].append(f"{place} ({writing})")
            else:
                told[kind, int(number)].append(f"{place} ({writing})")
    return Sightings(dict(files), dict(reads), dict(fragments))


def leftovers(seen: Sightings, kind: str, needles: Sequence[Needle]) -> list[str]:
    """In words, each needle of a kind that was seen and each piece of one; empty when nothing was."""
    fields = {needle.number: needle.field for needle in needles}
    told = [
        f"{fields[number]} (needle {number}) in {', '.join(places[:PLACES_TOLD])}"
        for found in (seen.files, seen.reads)
        for (each, number), places in found.items()
        if each == kind
    ]
    return told + [f"a piece of a needle in {place}" for place in seen.fragments.get(kind, ())]


def planted_rows(kind: str, needles: Sequence[Needle], before: Sightings, after: Sightings) -> list[Json]:
    """The report's table: for each field how many needles there were, and how many each look saw."""
    rows = []
    for field, mine in _by_field(needles).items():
        row: Json = {"field": field, "needles": len(mine), "forms": sorted({needle.form for needle in mine})}
        for name, seen in (("before", before), ("after", after)):
            row[name] = {where: len(mine) - len(seen.missing(kind, mine, where)) for where in ("files", "reads")}
        rows.append(row)
    return rows


def fields_told(needles: Sequence[Needle]) -> str:
    """Fields with how many needles of each, for a sentence."""
    counts = Counter(needle.field for needle in needles)
    told = [f"{field} ({count})" for field, count in counts.most_common(PLACES_TOLD)]
    return ", ".join(told) + (f" and {len(counts) - PLACES_TOLD} more fields" if len(counts) > PLACES_TOLD else "")


def _by_field(needles: Sequence[Needle]) -> dict[str, list[Needle]]:
    by_field: defaultdict[str, list[Needle]] = defaultdict(list)
    for needle in needles:
        by_field[needle.field].append(needle)
    return dict(by_field)
