-- traces.db: what deletions need beyond hide, purge and settle: phases, waiting children, holds, previews, notes.

-- 0 staged: a large hide in the making, which no read and no ingest minds; removed when the store is opened.
-- 1 hidden: the usual course, up to and after settle.
-- 2 cancelled: the traces are visible again; its manifest and tombstones count for nothing and are on their way out.
-- 3 waiting: the child of another deletion, made of what a hold keeps.
-- Tombstones of phases 1 and 3 refuse late data.
ALTER TABLE deletion ADD COLUMN phase INTEGER NOT NULL DEFAULT 1;
ALTER TABLE deletion ADD COLUMN held INTEGER NOT NULL DEFAULT 0;          -- traces that went to the child
ALTER TABLE deletion ADD COLUMN parent_no INTEGER;                        -- of a child
ALTER TABLE deletion ADD COLUMN manifest_salt BLOB;                       -- keys the leaves; NULL before version 5
ALTER TABLE deletion ADD COLUMN purged_to INTEGER NOT NULL DEFAULT -1;    -- no hidden trace of it at or below this
CREATE INDEX deletion_staged ON deletion (phase) WHERE phase = 0;

-- SHA-256 leaf of the manifest's Merkle tree, written when settle erases the ids.
ALTER TABLE manifest ADD COLUMN leaf BLOB;

-- 1: a part of this trace is purged already, so no hold can keep it whole any more.
ALTER TABLE hidden ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;

CREATE INDEX tombstone_by_deletion ON tombstone (deletion_no);

-- Traces that match an active hold, now or later, are not deleted. The plain request goes with the release.
CREATE TABLE hold (
    hold_id     TEXT    NOT NULL PRIMARY KEY,
    org_id      INTEGER NOT NULL,
    project_ids TEXT    NOT NULL,                   -- JSON array
    request     BLOB,                               -- JSON: filter, ids, window, environment, reason; NULL: released
    created_ns  INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,                   -- id of a key
    released_ns INTEGER
) STRICT, WITHOUT ROWID;

-- A previewed deletion in plain words, until it is executed or has expired.
CREATE TABLE preview (
    preview_no INTEGER PRIMARY KEY,
    key        BLOB    NOT NULL UNIQUE,             -- hash of the token
    body       BLOB    NOT NULL,
    expires_ns INTEGER NOT NULL
) STRICT;

-- What people wrote: reasons of holds, cancels and lifts. The ledger has only salted hashes of them.
CREATE TABLE private_note (
    note_no INTEGER PRIMARY KEY,
    ref     TEXT    NOT NULL UNIQUE,
    salt    BLOB    NOT NULL,
    body    BLOB    NOT NULL
) STRICT;
