-- traces.db, version 1. Everything that came in with traces and everything said about their deletion.
--
-- A trace is (project_id, trace_id); inside the file it is trace_pk, handed out in order of arrival, so that the
-- rows of one trace lie together and new rows go to the end of each b-tree.
-- Names and texts are stored once per trace or span and never in a shared dictionary: what is shared cannot be erased.

-- The summary: narrow, one row a trace, recomputed from spans in the ingest transaction.
CREATE TABLE trace (
    trace_pk            INTEGER PRIMARY KEY,
    project_id          INTEGER NOT NULL,
    trace_id            TEXT    NOT NULL,
    start_ns            INTEGER NOT NULL,
    end_ns              INTEGER NOT NULL,
    duration_ns         INTEGER NOT NULL,
    received_ns         INTEGER NOT NULL,   -- when its first span or log was received
    span_count          INTEGER NOT NULL,
    llm_call_count      INTEGER NOT NULL,
    error_count         INTEGER NOT NULL,
    unpriced_count      INTEGER NOT NULL,
    prompt_tokens       INTEGER,
    completion_tokens   INTEGER,
    total_tokens        INTEGER,
    cached_tokens       INTEGER,
    reasoning_tokens    INTEGER,
    cost_pico           INTEGER,            -- pico-dollars; NULL: unknown
    environment         TEXT,
    customer_identifier TEXT,
    session_id          TEXT,
    thread_id           TEXT,
    group_id            TEXT,
    key_id              TEXT,
    name                TEXT    NOT NULL,
    kind                TEXT,
    model               TEXT,
    root_span_id        TEXT,
    metadata            TEXT,               -- JSON array of [key, value]: what a reader is shown; NULL when empty
    tags                TEXT                -- JSON array of text; NULL when empty
) STRICT;

-- The narrow span row: every field a span-level filter may name, and nothing else.
CREATE TABLE span (
    trace_pk              INTEGER NOT NULL,
    span_id               TEXT    NOT NULL,
    parent_id             TEXT,
    name                  TEXT    NOT NULL,
    entity_name           TEXT,
    workflow_name         TEXT,
    path                  TEXT,
    kind                  TEXT    NOT NULL,
    log_method            TEXT,
    start_ns              INTEGER NOT NULL,
    end_ns                INTEGER NOT NULL,
    status                TEXT    NOT NULL,
    status_code           INTEGER,
    error_class           TEXT,
    error_fingerprint     TEXT,
    model                 TEXT,
    response_model        TEXT,
    provider              TEXT,
    deployment_name       TEXT,
    prompt_id             TEXT,
    prompt_name           TEXT,
    prompt_version        TEXT,
    prompt_tokens         INTEGER,
    completion_tokens     INTEGER,
    total_tokens          INTEGER,
    cached_tokens         INTEGER,
    cache_creation_tokens INTEGER,
    reasoning_tokens      INTEGER,
    usage_repeats         INTEGER NOT NULL,
    cost_pico             INTEGER,
    cost_source           TEXT,
    ttft_s                REAL,
    routing_time_s        REAL,
    is_streaming          INTEGER,
    context_key           INTEGER NOT NULL,
    content_hash          INTEGER NOT NULL,
    block_no              INTEGER NOT NULL,  -- which block of the trace holds its wire bytes
    PRIMARY KEY (trace_pk, span_id)
) STRICT, WITHOUT ROWID;

-- The narrow log row. Its content lies in the block.
CREATE TABLE log (
    trace_pk    INTEGER NOT NULL,
    log_hash    INTEGER NOT NULL,
    span_id     TEXT,
    time_ns     INTEGER NOT NULL,
    event_name  TEXT,
    severity    INTEGER,
    context_key INTEGER NOT NULL,
    block_no    INTEGER NOT NULL,
    PRIMARY KEY (trace_pk, log_hash)
) STRICT, WITHOUT ROWID;

-- Each distinct SpanContext of a trace once: OpenInference and others repeat it on every span.
CREATE TABLE context (
    trace_pk    INTEGER NOT NULL,
    context_key INTEGER NOT NULL,
    body        TEXT    NOT NULL,            -- JSON array in the order of model.span.SpanContext
    PRIMARY KEY (trace_pk, context_key)
) STRICT, WITHOUT ROWID;

-- Wire bytes, compressed by block. block_id = trace_pk * 2^20 + block_no: one b-tree, no second index.
CREATE TABLE block (
    block_id INTEGER PRIMARY KEY,
    data     BLOB NOT NULL
) STRICT;

-- Every (key, value) that any span of a trace carries: equality finds it without reading a trace row.
CREATE TABLE metadata (
    project_id INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    start_ns   INTEGER NOT NULL,             -- the trace's, so that a page by start needs no sort
    trace_pk   INTEGER NOT NULL,
    PRIMARY KEY (project_id, key, value, start_ns, trace_pk)
) STRICT, WITHOUT ROWID;
