-- traces.db, version 2. The text index: which 4-byte grams, hashed to 16,384 bits, occur in a trace's wire bytes.
-- See docs/adr/0010-text-signatures.md.

-- Signatures as they arrive, one a batch of a trace.
CREATE TABLE text_doc (
    trace_pk INTEGER NOT NULL,
    block_no INTEGER NOT NULL,
    bits     BLOB    NOT NULL,           -- 2,048 bytes
    UNIQUE (trace_pk, block_no)
) STRICT;

-- Segments of 248 neighbouring traces whose signatures were transposed: one row of 31 bytes a bit.
CREATE TABLE text_segment (
    segment INTEGER PRIMARY KEY          -- trace_pk / 248
) STRICT;

-- slice_id = segment * 64 + group; a slice holds the 256 rows of one group of bits.
CREATE TABLE text_slice (
    slice_id INTEGER PRIMARY KEY,
    data     BLOB    NOT NULL            -- 256 * 31 bytes
) STRICT;
