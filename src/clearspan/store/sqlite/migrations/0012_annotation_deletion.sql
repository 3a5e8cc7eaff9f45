-- traces.db: deleting annotations by themselves.

-- 'traces' or 'annotations': what the deletion lists, and with it which of the two manifests is its own.
ALTER TABLE deletion ADD COLUMN kind TEXT NOT NULL DEFAULT 'traces';

-- As `manifest`: after `settle` only the numbers stay, which are never handed out twice.
CREATE TABLE annotation_manifest (
    deletion_no   INTEGER NOT NULL,
    annotation_no INTEGER NOT NULL,
    project_id    INTEGER,                            -- NULL once settled
    annotation_id TEXT,                               -- NULL once settled
    leaf          BLOB,                               -- written when settle erases the ids
    PRIMARY KEY (deletion_no, annotation_no)
) STRICT, WITHOUT ROWID;

-- Annotations that no read may show, as soon as their deletion is in a phase that hides (1 or 3). The marks of a hide
-- in the making count for nothing: one change of its phase makes them count, however many they are.
CREATE TABLE hidden_annotation (
    annotation_no INTEGER PRIMARY KEY,
    deletion_no   INTEGER NOT NULL,
    stale         INTEGER NOT NULL DEFAULT 0          -- 1: the annotation was written since it was judged
) STRICT;
CREATE INDEX hidden_annotation_stale ON hidden_annotation (deletion_no) WHERE stale = 1;

-- Whatever writes an annotation, a hide in the making judges it again.
CREATE TRIGGER annotation_written AFTER UPDATE ON annotation
WHEN EXISTS (SELECT 1 FROM hidden_annotation WHERE annotation_no = NEW.annotation_no)
BEGIN
    UPDATE hidden_annotation SET stale = 1 WHERE annotation_no = NEW.annotation_no;
END;
