"""The deletion's papers, checked without asking the server: receipt by its signature, ledger by its tree."""

from __future__ import annotations

from typing import Any

from clearspan.drill.server import Api

Json = dict[str, Any]


def check_proofs(api: Api, deletion: Json) -> tuple[Json | None, list[tuple[str, bool, str]]]:
    """Fetch receipt, keys and head, and check them.

    Returns:
        What the report tells of the receipt, and (check, ok, what was seen) for each thing that had to hold.
    """
    return None, []
