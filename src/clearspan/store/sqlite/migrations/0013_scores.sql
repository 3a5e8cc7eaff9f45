-- traces.db: finding traces by what was scored of them, docs/filters.md `scores__<name>`.

-- 1: about the root span of its trace, so that it says what one about the trace says. Kept by the triggers below: asking
-- the trace itself for each score would read the wide rows of all traces of a project.
ALTER TABLE annotation ADD COLUMN of_root INTEGER NOT NULL DEFAULT 0;
UPDATE annotation SET of_root = 1 WHERE target = 'span'
    AND span_id = (SELECT t.root_span_id FROM trace t WHERE t.trace_pk = annotation.trace_pk);

CREATE TRIGGER annotation_said AFTER INSERT ON annotation
WHEN NEW.target = 'span' AND NEW.span_id = (SELECT t.root_span_id FROM trace t WHERE t.trace_pk = NEW.trace_pk)
BEGIN
    UPDATE annotation SET of_root = 1 WHERE annotation_no = NEW.annotation_no;
END;

CREATE TRIGGER annotation_moved AFTER UPDATE OF target, span_id, trace_pk ON annotation
WHEN NEW.of_root <> coalesce(
    NEW.target = 'span' AND NEW.span_id = (SELECT t.root_span_id FROM trace t WHERE t.trace_pk = NEW.trace_pk), 0)
BEGIN
    UPDATE annotation SET of_root = 1 - NEW.of_root WHERE annotation_no = NEW.annotation_no;
END;

-- A trace is written anew, whole, whenever something of it comes: INSERT OR REPLACE.
CREATE TRIGGER trace_written AFTER INSERT ON trace
BEGIN
    UPDATE annotation SET of_root = 1 - of_root
        WHERE trace_pk = NEW.trace_pk AND target = 'span' AND of_root <> coalesce(span_id = NEW.root_span_id, 0);
END;

CREATE TRIGGER trace_changed AFTER UPDATE OF root_span_id ON trace WHEN OLD.root_span_id IS NOT NEW.root_span_id
BEGIN
    UPDATE annotation SET of_root = 1 - of_root
        WHERE trace_pk = NEW.trace_pk AND target = 'span' AND of_root <> coalesce(span_id = NEW.root_span_id, 0);
END;

-- Every score of a name in a project, in order of the traces: a filter reads this and not the wide rows of annotations,
-- as the set of the traces it selects, or for the one trace at hand (docs/adr/0012-named-indexes.md).
CREATE INDEX annotation_by_score ON annotation (project_id, name, trace_pk, score)
    WHERE (target = 'trace' OR of_root = 1) AND score IS NOT NULL AND trace_pk IS NOT NULL AND waits_ns IS NULL;
