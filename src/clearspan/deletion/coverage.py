"""docs/deletion-coverage.md, made from the registry of targets: `python -m clearspan.deletion.coverage` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from clearspan.deletion.receipt_body import NOT_COVERED
from clearspan.deletion.targets import CATALOG_EXEMPT, EXEMPT, FILES, RESIDUES, TARGETS

_HEAD: Final = """\
# What a deletion covers

Made from the registry of targets (`src/clearspan/deletion/targets.py`) by `python -m clearspan.deletion.coverage`; a
test keeps this page in step with it. A table that is in neither list below fails a test, so none can be forgotten.
What the words mean is told in [deletion.md](deletion.md).

## Targets: rows that are removed, and counted again

Each is planned, purged and recounted by name: in answers, in the ledger and in the receipt. A target whose rows stay
behind ends the deletion as `failed` with its name; one that cannot be counted blocks it.
"""
_RESIDUE: Final = """
## Residues: bytes that rows leave behind
"""
_EXEMPT: Final = """
## Tables that keep nothing of a deleted trace

They are not emptied, for the reason given.
"""
_FILES: Final = """
## Files of a data directory

There are no others; caches of the server are memory, and end with it.
"""
_OUTSIDE: Final = """
## Outside of our reach

Every receipt says so too; what to do about it is told in [deletion.md](deletion.md#what-is-not-covered).
"""


def render_coverage() -> str:
    """The page, as Markdown."""
    targets = [(f"`{each.name}`", each.home.value, _code(each.tables), each.holds) for each in TARGETS]
    residues = [(each.name, each.cleared_by) for each in RESIDUES]
    return "".join(
        (
            _HEAD,
            _table(("target", "file", "tables", "what they hold"), targets),
            _RESIDUE,
            _table(("place", "what clears it"), residues),
            _EXEMPT,
            _reasons("traces.db", EXEMPT),
            _reasons("catalog.db", CATALOG_EXEMPT),
            _FILES,
            _table(("file", "what it holds"), [(f"`{name}`", what) for name, what in FILES.items()]),
            _OUTSIDE,
            "\n",
            *(f"- {each}\n" for each in NOT_COVERED),
        )
    )


def _reasons(file: str, exempt: Mapping[str, str]) -> str:
    return _table((f"table of {file}", "why"), [(f"`{table}`", reason) for table, reason in sorted(exempt.items())])


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(render_coverage(), end="")
