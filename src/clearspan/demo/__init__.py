"""The demo: recorded and converted traces, posted through the server's own ingest path."""
