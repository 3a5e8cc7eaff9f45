-- traces.db: what people and programs say about spans, traces, sessions, documents and projects.

-- annotation_no grows with creation and is never handed out twice, not even after its row was purged.
CREATE TABLE annotation (
    annotation_no     INTEGER PRIMARY KEY AUTOINCREMENT,
    annotation_id     TEXT    NOT NULL,
    project_id        INTEGER NOT NULL,
    key               BLOB    NOT NULL,          -- hash of target, ids, name and identifier: annotation_rows.key_of
    trace_pk          INTEGER,                   -- NULL: a session's, a project's, or its trace is not there yet
    waits_ns          INTEGER,                   -- since when it has waited for its target; NULL: it does not
    waits_in          TEXT,                      -- JSON array: the projects in which a target it waits for may arrive
    target            TEXT    NOT NULL,
    trace_id          TEXT,
    span_id           TEXT,
    session_id        TEXT,
    document_position INTEGER,
    name              TEXT    NOT NULL,
    identifier        TEXT    NOT NULL,
    kind              TEXT    NOT NULL,
    label             TEXT,
    score             REAL,
    explanation       TEXT,
    value             BLOB,                      -- JSON, as are the next three
    correction        BLOB,
    metadata          BLOB,
    source            TEXT    NOT NULL,
    extra             BLOB,
    created_ns        INTEGER NOT NULL,
    updated_ns        INTEGER NOT NULL,
    key_id            TEXT,
    user_id           TEXT
) STRICT;

CREATE UNIQUE INDEX annotation_by_key ON annotation (project_id, key);
CREATE INDEX annotation_by_id      ON annotation (annotation_id);
CREATE INDEX annotation_by_project ON annotation (project_id);
CREATE INDEX annotation_by_name    ON annotation (project_id, name, created_ns);
CREATE INDEX annotation_by_trace   ON annotation (trace_pk) WHERE trace_pk IS NOT NULL;
CREATE INDEX annotation_by_trace_id ON annotation (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX annotation_by_span    ON annotation (span_id) WHERE span_id IS NOT NULL;
CREATE INDEX annotation_by_session ON annotation (session_id, project_id) WHERE session_id IS NOT NULL;
CREATE INDEX annotation_by_wait    ON annotation (waits_ns) WHERE waits_ns IS NOT NULL;

-- How many annotations were removed because their target never came.
INSERT INTO store_fact VALUES ('annotations_expired', 0);
