"""The canonical model: immutable values, no I/O, no SQL, no HTTP, no framework."""
