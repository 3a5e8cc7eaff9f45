"""The native API's routes."""

from __future__ import annotations

from fastapi import FastAPI

from clearspan.api.native import deletions


def add_native_routes(app: FastAPI) -> None:
    """Register the native operations."""
    deletions.add_native_routes(app)
