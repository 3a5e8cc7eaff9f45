-- traces.db: finding the traces of a conversation.

-- What filters call the thread of a span, as query/fields.py reads it out of the span's context: $[4] is its thread_id,
-- $[3] its session_id. trace.thread_id does not serve: a trace shows one thread, and its spans may name several.
CREATE INDEX context_by_thread ON context (coalesce(body ->> '$[4]', body ->> '$[3]'))
    WHERE coalesce(body ->> '$[4]', body ->> '$[3]') IS NOT NULL;
