-- traces.db: finding traces by what was scored of them, docs/filters.md `scores__<name>`.

-- Every score of a name in a project, in order of the traces: a filter reads this and not the wide rows of annotations,
-- as the set of the traces it selects, or for the one trace at hand (docs/adr/0012-named-indexes.md).
CREATE INDEX annotation_by_score ON annotation (project_id, name, trace_pk, score, target, span_id)
    WHERE score IS NOT NULL AND trace_pk IS NOT NULL AND waits_ns IS NULL;
