-- traces.db: finding spans by the 16 hex digits of OTLP, without their trace.

-- A bucket is 1,024 traces in order of arrival, so that what is written together lies together, however random the
-- ids: a look-up asks one bucket after the other (docs/adr/0021-span-ids-in-buckets.md).
CREATE INDEX span_by_bucket ON span (trace_pk >> 10, span_id) WHERE length(span_id) = 16;
