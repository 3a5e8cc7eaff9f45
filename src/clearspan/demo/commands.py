"""The three commands that a start with `--demo` prints, ready to paste."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from clearspan.demo.load import DemoState
from clearspan.demo.redate import SPREAD_NS
from clearspan.model.clock import datetime_from_ns

CUSTOMER = "user@example.com"


def demo_commands(base_url: str, state: DemoState) -> list[tuple[str, str]]:
    """(what it does, command) for list, filter and delete.

    Each names its window, so that it still finds the demo when the default window of an hour has moved on.
    """
    since = datetime_from_ns(state.now_ns - SPREAD_NS) - timedelta(minutes=1)
    window = f"start_time={since:%Y-%m-%dT%H:%M:%SZ}"
    errors = {"filters": {"error_count": {"operator": "gt", "value": [0]}}}
    customer = {"filters": {"customer_identifier": {"operator": "=", "value": [CUSTOMER]}}}
    return [
        ("List the newest traces", _curl(f"{base_url}/api/traces/list/?page_size=5&{window}", state.key, {})),
        (
            "Filter: production traces with errors",
            _curl(f"{base_url}/api/traces/list/?environment=production&{window}", state.key, errors),
        ),
        (
            "Delete everything of one customer",
            _curl(f"{base_url}/api/traces/bulk-delete/?{window}", state.key, customer),
        ),
    ]


def _curl(url: str, key: str, body: Mapping[str, object]) -> str:
    return (
        f"curl -s -X POST '{url}' \\\n"
        f"  -H 'Authorization: Bearer {key}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'"
    )
