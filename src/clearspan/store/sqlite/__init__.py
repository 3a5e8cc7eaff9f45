"""The embedded store: traces.db in the data directory. `open_store` is the way in."""

from __future__ import annotations

from clearspan.store.sqlite.open import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
