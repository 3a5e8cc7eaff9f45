-- Indexes, exact counters and the store's own small facts.

CREATE UNIQUE INDEX trace_by_id ON trace (project_id, trace_id);

-- Every number a list can sort or filter by lies in this index, in order of start: a filter that no other index
-- serves reads this, not the wider rows.
CREATE INDEX trace_by_start ON trace (
    project_id, start_ns, environment, end_ns, span_count, llm_call_count, error_count,
    prompt_tokens, completion_tokens, total_tokens, cost_pico
);
CREATE INDEX trace_by_cost     ON trace (project_id, cost_pico);
CREATE INDEX trace_by_duration ON trace (project_id, duration_ns);
CREATE INDEX trace_by_tokens   ON trace (project_id, total_tokens);
CREATE INDEX trace_by_customer ON trace (project_id, customer_identifier, start_ns)
    WHERE customer_identifier IS NOT NULL;
CREATE INDEX trace_by_session  ON trace (project_id, session_id, start_ns) WHERE session_id IS NOT NULL;
CREATE INDEX trace_by_error    ON trace (project_id, start_ns, error_count) WHERE error_count > 0;

-- How many visible traces start in each hour: exact totals without counting rows.
CREATE TABLE trace_count (
    project_id  INTEGER NOT NULL,
    hour        INTEGER NOT NULL,            -- start_ns // 3,600,000,000,000, rounded down
    environment TEXT    NOT NULL,            -- '' for traces without one
    traces      INTEGER NOT NULL,
    PRIMARY KEY (project_id, hour, environment)
) STRICT, WITHOUT ROWID;

-- Erasing, recounting and probing one trace go by trace; SQLite appends the rest of the key to each entry.
CREATE INDEX metadata_by_trace ON metadata (trace_pk);

CREATE TABLE store_fact (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- trace_pks below this may have been handed out, even if their traces are gone: no number is used twice.
INSERT INTO store_fact VALUES ('next_trace_pk', 1);

-- Purged traces whose bits in sealed segments of the text index are still to be cleared, segment by segment.
CREATE TABLE text_erase (
    deletion_no INTEGER NOT NULL,
    trace_pk    INTEGER NOT NULL,
    PRIMARY KEY (deletion_no, trace_pk)
) STRICT, WITHOUT ROWID;
