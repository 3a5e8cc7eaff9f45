-- traces.db: where traces went that were moved to another project.

-- A row says nothing of a trace: its key is the keyed hash that a tombstone of the trace under its old project would
-- have. Late data sent to the old project follows it.
CREATE TABLE moved (
    key        BLOB    NOT NULL PRIMARY KEY,   -- store/tombstone.py
    project_id INTEGER NOT NULL                -- where the trace is, or where its next row of this table is found
) STRICT, WITHOUT ROWID;

-- The projects that a trace was in before, by the keyed hash of it under the one it is in: spans that were deleted there
-- by themselves left their tombstones there.
CREATE TABLE moved_from (
    key        BLOB    NOT NULL,
    project_id INTEGER NOT NULL,
    PRIMARY KEY (key, project_id)
) STRICT, WITHOUT ROWID;
