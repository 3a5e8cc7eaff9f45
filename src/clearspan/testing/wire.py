"""The whole app in this process, over any store, with a clock and keys that the tests own."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from clearspan.api.app import create_app
from clearspan.api.gateway import DirectWriter
from clearspan.api.runtime import assemble
from clearspan.api.services import Services
from clearspan.catalog import Catalog, KeyScope
from clearspan.ingest.pricing import PriceBook
from clearspan.model.clock import datetime_from_ns
from clearspan.settings import Settings
from clearspan.store.memory import MemoryStore
from clearspan.testing.app_client import app_client
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog
from clearspan.testing.local_store import open_local_store

SECOND_NS = 1_000_000_000
OWNER_KEY = "owner-key-of-the-tests"


@dataclass(frozen=True)
class Wire:
    """The app, its parts, and short ways to talk to it as the owner."""

    client: httpx.Client
    catalog: Catalog
    clock: FixedClock
    services: Services
    data: Path

    def headers(self, key: str | None = OWNER_KEY) -> dict[str, str]:
        return {} if key is None else {"Authorization": f"Bearer {key}"}

    def send(self, method: str, path: str, body: Any = None, *, key: str | None = OWNER_KEY, **rest: Any) -> Any:
        """One request; `body` is sent as JSON unless it is bytes."""
        headers = {**self.headers(key), **rest.pop("headers", {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        return self.client.request(method, path, content=body, headers=headers, **rest)

    def post(self, path: str, body: Any = None, **rest: Any) -> Any:
        return self.send("POST", path, body, **rest)

    def get(self, path: str, **rest: Any) -> Any:
        return self.send("GET", path, **rest)

    def list_ids(self, query: str = "", filters: Any = None, **rest: Any) -> list[str]:
        """Ids of the traces that a list returns, in its order."""
        answer = self.post(f"/api/traces/list/{query}", {} if filters is None else {"filters": filters}, **rest)
        assert answer.status_code == 200, answer.text
        return [each["trace_unique_id"] for each in answer.json()["results"]]

    def ingest(self, *spans: dict[str, Any], key: str = OWNER_KEY) -> None:
        """Store spans through the legacy route; all must be taken."""
        answer = self.post("/api/v1/traces/ingest", list(spans), key=key)
        assert answer.status_code == 200, answer.text
        assert answer.json()["message"] == f"Successfully ingested {len(spans)} spans"

    def span(self, trace_id: str, span_id: str | None = None, *, ago_s: float = 60.0, **fields: Any) -> dict[str, Any]:
        """A legacy span of one second that started `ago_s` seconds before the clock's now."""
        start_ns = self.clock.now_ns() - round(ago_s * SECOND_NS)
        return {
            "trace_unique_id": trace_id,
            "span_unique_id": span_id or f"{trace_id}-root",
            "span_name": "answer",
            "log_type": "workflow",
            "start_time": iso(start_ns),
            "timestamp": iso(start_ns + SECOND_NS),
            **fields,
        }

    def key(self, *scopes: KeyScope, org_id: int | None = None, **rest: Any) -> str:
        """A new key with these scopes."""
        org_id = org_id if org_id is not None else self.catalog.first_org.id
        return self.catalog.create_key(org_id, name="test", scopes=scopes, **rest).secret

    def window(self, hours: float = 24) -> str:
        """A query that holds the last hours and the next one."""
        now = self.clock.now_ns()
        start, end = iso(now - round(hours * 3600) * SECOND_NS), iso(now + 3600 * SECOND_NS)
        return f"?start_time={start}&end_time={end}"


def iso(ns: int) -> str:
    return datetime_from_ns(ns).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def open_wire(stack: ExitStack, data: Path, store: str, **settings: Any) -> Wire:
    """An app over a store, "memory" or "sqlite", that ends with the stack."""
    clock, ids = FixedClock(), CountingIds()
    data.mkdir(parents=True, exist_ok=True)
    lay_catalog(data)
    catalog = stack.enter_context(Catalog.open(data, clock=clock, ids=ids))
    catalog.ensure_owner_key(OWNER_KEY)
    if store == "memory":
        memory = MemoryStore(catalog.tombstone_secret)
        direct = DirectWriter(memory)
        stack.callback(direct.close)
        parts: dict[str, Any] = {"reader": memory, "deletions": memory, "writer": direct}
        parts |= {"annotations": memory, "annotating": memory, "transfers": memory}
    else:
        opened = open_local_store(data, catalog.tombstone_secret)
        stack.callback(opened.close)
        parts = {"reader": opened.reader, "deletions": opened.deletions, "writer": opened.writer}
        parts |= {"annotations": opened.reader, "annotating": opened.annotations, "transfers": opened.transfers}
    services = stack.enter_context(
        assemble(
            replace(Settings(data=data, body_first_byte_s=5.0, reserve_bytes=0), **settings),
            catalog,
            **parts,
            prices=PriceBook(),
            clock=clock,
            ids=ids,
        )
    )
    client = stack.enter_context(app_client(create_app(services), base_url="http://clearspan.test"))
    return Wire(client, catalog, clock, services, data)
