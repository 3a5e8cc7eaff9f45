-- traces.db: what a deletion leaves here, and for how long.
--
-- While a deletion runs, its plain request and its manifest of trace ids lie in this file, because this is the file
-- whose pages are zeroed. `settle` erases both. What stays holds no personal data: counts, trace_pks (numbers that
-- are never handed out twice) and tombstone keys (HMACs that only the catalog's secret can relate to an id).

-- One row a deletion that got as far as its hide transaction. The row and the hiding are one commit.
CREATE TABLE deletion (
    deletion_no        INTEGER PRIMARY KEY,
    deletion_id        TEXT    NOT NULL UNIQUE,
    request            BLOB,                        -- the plain filter, ids and reason; NULL once settled
    hidden             INTEGER NOT NULL,            -- the outcome of the hide transaction: a repeat returns it
    no_longer_matching INTEGER NOT NULL,
    already_absent     INTEGER NOT NULL,
    settled            INTEGER NOT NULL DEFAULT 0,  -- 1: request and trace ids are erased
    late_refused       INTEGER NOT NULL DEFAULT 0   -- spans and logs that its tombstones refused
) STRICT;

-- The traces that the deletion hid. After `settle` only the trace_pks stay: by them a recount can be made at any
-- later time, which is why a trace_pk must never be handed out again.
CREATE TABLE manifest (
    deletion_no INTEGER NOT NULL,
    trace_pk    INTEGER NOT NULL,
    project_id  INTEGER,                            -- NULL once settled
    trace_id    TEXT,                               -- NULL once settled
    PRIMARY KEY (deletion_no, trace_pk)
) STRICT, WITHOUT ROWID;

-- Traces that no read may show. The row goes with the last row of its trace, so this table is small or empty.
CREATE TABLE hidden (
    trace_pk    INTEGER PRIMARY KEY,
    deletion_no INTEGER NOT NULL
) STRICT;

-- What refuses late spans and logs, for ever. See store/tombstone.py for the key.
CREATE TABLE tombstone (
    key         BLOB    NOT NULL PRIMARY KEY,
    deletion_no INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What each purge transaction removed, written by that transaction: counts stay exact over a crash.
CREATE TABLE purge_batch (
    deletion_no INTEGER NOT NULL,
    batch_no    INTEGER NOT NULL,                   -- 0, 1, 2 …
    counts      TEXT    NOT NULL,                   -- JSON object: target → rows removed
    more        INTEGER NOT NULL,                   -- 1: the manifest has more rows to remove
    PRIMARY KEY (deletion_no, batch_no)
) STRICT, WITHOUT ROWID;
