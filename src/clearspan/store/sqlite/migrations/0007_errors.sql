-- The traces with errors, with every number and the environment: a filter that asks for errors and more of these read
-- the wide rows of all traces with errors.
DROP INDEX trace_by_error;
CREATE INDEX trace_by_error ON trace (
    project_id, start_ns, environment, end_ns, span_count, llm_call_count, error_count,
    prompt_tokens, completion_tokens, total_tokens, cost_pico
) WHERE error_count > 0;
