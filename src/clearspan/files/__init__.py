"""Low-level file matters: the gap-zeroing VFS, the page parser that proves it, the data directory's lock."""
