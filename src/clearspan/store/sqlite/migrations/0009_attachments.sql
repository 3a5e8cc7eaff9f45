-- traces.db: files that came with spans, and finding spans by ids that are unique beyond their trace.

-- The facts of one attachment. Its bytes lie in pieces first_piece, first_piece + 1, … of the trace.
CREATE TABLE attachment (
    trace_pk    INTEGER NOT NULL,
    span_id     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    mime_type   TEXT    NOT NULL,
    size_bytes  INTEGER NOT NULL,
    digest      BLOB    NOT NULL,        -- SHA-256 of the bytes
    first_piece INTEGER NOT NULL,
    PRIMARY KEY (trace_pk, span_id, name)
) STRICT, WITHOUT ROWID;

-- piece_id = trace_pk * 2^20 + piece_no, as of blocks.
CREATE TABLE attachment_piece (
    piece_id INTEGER PRIMARY KEY,
    data     BLOB NOT NULL               -- 1 MiB, the last one of an attachment less
) STRICT;

-- Attachments of runs that have not come: nobody knows yet which trace they belong to.
CREATE TABLE attachment_waiting (
    waiting_no  INTEGER PRIMARY KEY,
    project_id  INTEGER NOT NULL,
    span_id     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    mime_type   TEXT    NOT NULL,
    received_ns INTEGER NOT NULL,
    data        BLOB    NOT NULL,
    UNIQUE (project_id, span_id, name)
) STRICT;

-- Ids that say something beyond their trace: LangSmith runs, not OTLP spans, which cost nothing here.
CREATE INDEX span_by_id ON span (span_id) WHERE length(span_id) <> 16;
