"""Every place where trace data lives, and how a deletion reaches it.

A table of traces.db or catalog.db that is neither here nor exempt with a reason fails a test, so a new table cannot
be forgotten. docs/deletion.md shows the same list to readers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Home(StrEnum):
    """Which component holds, purges and counts a target."""

    TRACES = "traces.db"
    CATALOG = "catalog.db"


class Target(NamedTuple):
    """One place with rows that a deletion counts, purges and recounts."""

    name: str  # as in counts, answers and receipts
    home: Home
    tables: tuple[str, ...]  # indexes go with their table
    holds: str


class Residue(NamedTuple):
    """A place without rows of its own, where bytes of deleted rows could stay behind."""

    name: str
    cleared_by: str


TARGETS: Final = (
    Target(
        "trace",
        Home.TRACES,
        ("trace",),
        "summaries: name, customer, session, displayed metadata, tags; a trace is also each version of a dataset item, "
        "and each result of an experiment: they have rows in the targets below like any other",
    ),
    Target("span", Home.TRACES, ("span",), "names, kinds, models, errors, token counts, cost"),
    Target("log", Home.TRACES, ("log",), "log records that belong to a trace"),
    Target("context", Home.TRACES, ("context",), "customer, session, environment, metadata of spans"),
    Target("metadata", Home.TRACES, ("metadata",), "metadata pairs that filters search"),
    Target(
        "annotation",
        Home.TRACES,
        ("annotation",),
        "feedback, notes and scores (of experiments, too), and what was said of a whole session",
    ),
    Target("block", Home.TRACES, ("block",), "wire bytes: inputs, outputs, attributes, events, log bodies"),
    Target("attachment", Home.TRACES, ("attachment",), "names, types, sizes and hashes of files that came with spans"),
    Target("attachment_piece", Home.TRACES, ("attachment_piece",), "the bytes of those files, up to 1 MiB a row"),
    Target("text_signature", Home.TRACES, ("text_doc", "text_slice"), "which hashed trigrams occur in the wire bytes"),
    Target("share", Home.CATALOG, ("share", "run_share"), "public links to a trace, by keyed hash or sealed"),
)

EXEMPT: Final = {
    "deletion": "counts and states; the plain request in it is erased by settle",
    "manifest": "trace_pks; the trace ids in it are erased by settle",
    "hidden": "trace_pks; a row goes with its trace",
    "annotation_manifest": "row numbers of annotations; the ids in it are erased by settle",
    "hidden_annotation": "row numbers of annotations; a row goes with its annotation",
    "tombstone": "keyed hashes that no one can turn back into an id without the Catalog's secret",
    "moved": "keyed hashes of traces under a project they left, as tombstones are, and where they went",
    "moved_from": "keyed hashes of traces that moved, and the projects they were in before",
    "open_transfer": "ids of traces that have just moved to another project; a row is erased once their public links "
    "have followed, at the latest before a deletion of one removes links",
    "purge_batch": "rows removed per target",
    "attachment_waiting": "files whose runs have not come, so nobody knows the trace: stored with the run, dropped "
    "if it is refused, removed after a day, or with their project",
    "trace_count": "numbers of visible traces an hour; a row that has come down to 0 is removed",
    "text_erase": "trace_pks; a row goes with the trace's last sealed bits",
    "text_segment": "numbers of segments of the text index",
    "store_fact": "the store's own counters",
    "hold": "the plain request of a hold, which is erased when it is released",
    "preview": "the plain request of a preview, which is erased when it is executed or has expired",
    "private_note": "what people wrote about holds and deletions; erased on request",
}
"""Tables of traces.db that hold nothing of a purged trace, and why."""

CATALOG_EXEMPT: Final = {
    "instance": "the installation's own id and secret",
    "organisation": "tenants, not their traces",
    "app_user": "who may use the server, not whom traces speak of",
    "project": "what operators call and say of their projects",
    "dataset": "what operators call their datasets and how items look; items are traces, and go as such",
    "evaluator": "what an operator wants results to be scored by",
    "experiment": "what an operator runs over a dataset, and how far it is; results are traces, and go as such",
    "annotation_config": "how an operator wants scores of one name to be read: type, bounds, categories",
    "annotation_config_project": "which project shows which of them",
    "api_key": "digests of keys",
    "ledger_entry": "counts, states, times, keyed and salted hashes; catalog.bodies refuses free text",
    "ledger_node": "hashes of hashes of ledger entries",
    "signing_key": "keys of this installation",
    "tree_head": "a size, a root, a time and a signature",
    "receipt": "as the ledger: counts, states, times, hashes; proof.receipt refuses anything else",
    "job": "as the ledger: counts, states, times, hashes",
}
"""Tables of catalog.db that hold nothing of a trace, and why."""

RESIDUES: Final = (
    Residue("write-ahead log of traces.db", "settle truncates it after the last purge batch, before `purged` is said"),
    Residue("free pages and gaps of traces.db", "secure_delete and the zeroing VFS (files/vfs.py), with each write"),
    Residue("server log", "holds no value of any span or filter, so there is nothing to remove"),
)

FILES: Final = {
    "traces.db": "the targets above, and the exempt tables",
    "traces.db-wal": "a residue: emptied before `purged` is said",
    "traces.db-shm": "numbers of pages of the write-ahead log",
    "catalog.db": "the target `share`, and the exempt tables",
    "catalog.db-wal": "pages of the catalog, which holds no trace content",
    "catalog.db-shm": "numbers of pages of the write-ahead log",
    "clearspan.lock": "the number of the server's process",
    "reserve": "blank blocks, given up when a deletion meets a full disk",
    "owner-key": "the first key, until its owner removes the file",
    "demo-key": "the demo project's key",
    "demo.json": "when the demo was loaded",
}
"""Every file that may lie in a data directory, and what it holds."""

NAMES: Final = tuple(target.name for target in TARGETS)
STORE_NAMES: Final = tuple(target.name for target in TARGETS if target.home is Home.TRACES)
