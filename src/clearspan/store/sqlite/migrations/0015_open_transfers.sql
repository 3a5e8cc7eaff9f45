-- traces.db: transfers between projects of which the Catalog may not know yet.

-- A row is written by the transaction that moves the traces, and erased once the Catalog has moved their public links and
-- recorded the act: within the same call, or after a crash at the next start.
CREATE TABLE open_transfer (
    transfer_no     INTEGER NOT NULL PRIMARY KEY,   -- they are finished in this order
    transfer_id     TEXT    NOT NULL UNIQUE,
    org_id          INTEGER NOT NULL,
    asked_by        TEXT    NOT NULL,               -- public id of an API key
    from_project_id INTEGER NOT NULL,
    to_project_id   INTEGER NOT NULL,
    trace_ids       TEXT    NOT NULL                -- JSON array
) STRICT;
