"""What a client does around a deletion, as steps that it repeats when the server dies under it, and what must be true
when the last step is done. One story for each road that a plain deletion does not take."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from clearspan.files.vfs import open_reader
from clearspan.model.runs import run_id_of

from .live import Live
from .world import Group, World, check_receipt, ended, native_delete

FAR = (datetime.now(UTC) + timedelta(days=300)).isoformat()


class Story:
    """A group of traces and what is done to it. Every step may be repeated."""

    traces, spans = 12, 3

    def __init__(self, world: World, live: Live, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.group: Group = world.plant(live, self.traces, self.spans)
        self.key = f"key-{rng.randrange(10**12)}"
        self.deletion_id = ""

    def steps(self) -> list[Any]:
        raise AssertionError("each story has its own")

    def check(self, live: Live) -> None:
        raise AssertionError("each story has its own")

    def delete(self, client: httpx.Client, **more: Any) -> dict[str, Any]:
        """Ask for the deletion; a repeat with the same key is the same deletion."""
        answer = native_delete(client, self.group, idempotency_key=self.key, **more)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        self.deletion_id = found["id"]
        return found


class Large(Story):
    """So many traces that hiding them is staged."""

    traces, spans = 1100, 1

    def steps(self) -> list[Any]:
        return [self.delete]

    def check(self, live: Live) -> None:
        found = ended(live, self.deletion_id)
        assert (found["state"], found["traces"]["hidden"]) == ("verified", self.traces)
        self.world.took(self.group)
        check_receipt(live, self.deletion_id, self.traces)
        self.world.send_late(live, self.group)


class Spans(Story):
    """Span by span, to the last one of each trace; a step that was not answered is repeated."""

    traces, spans = 2, 2

    def steps(self) -> list[Any]:
        return [
            self.taking(trace_id, number) for trace_id in self.group.trace_ids for number in reversed(range(self.spans))
        ]

    def taking(self, trace_id: str, number: int) -> Any:
        span = self.world.span(self.group.customer, trace_id, number, "late")

        def take(client: httpx.Client) -> None:
            answer = client.delete(f"/v1/spans/{span['span_unique_id']}")
            assert answer.status_code == 204, answer.text
            late = client.post("/api/v1/traces/ingest", json=[span])
            assert "1 spans refused" in late.json()["message"], late.text

        return take

    def check(self, live: Live) -> None:
        self.world.took(self.group)
        self.world.deletions += self.traces * self.spans - 1


class Cancelled(Story):
    """Hidden, not to be purged for long, and cancelled: everything is as before."""

    def steps(self) -> list[Any]:
        return [self.hide, self.cancel]

    def hide(self, client: httpx.Client) -> None:
        self.delete(client, not_before=FAR, wait="hidden")

    def cancel(self, client: httpx.Client) -> None:
        answer = client.post(f"/v1/deletions/{self.deletion_id}/cancel", json={"reason": "a mistake"})
        assert answer.status_code == 200, answer.text

    def check(self, live: Live) -> None:
        assert ended(live, self.deletion_id)["state"] == "cancelled"
        with live.client() as client:
            assert client.get(f"/v1/deletions/{self.deletion_id}/receipt").status_code == 409
            span = self.world.span(self.group.customer, self.group.trace_ids[0], 77, "late, and welcome")
            answer = client.post("/api/v1/traces/ingest", json=[span])
        assert answer.json()["message"] == "Successfully ingested 1 spans", answer.text


class Held(Story):
    """A hold keeps some of the traces; they become a deletion of their own, which goes on when it is released."""

    def __init__(self, world: World, live: Live, rng: random.Random) -> None:
        super().__init__(world, live, rng)
        self.kept = sorted(rng.sample(self.group.trace_ids, k=rng.randint(1, self.traces - 1)))
        self.hold_id = ""

    def steps(self) -> list[Any]:
        return [self.hold, self.delete, self.release]

    def hold(self, client: httpx.Client) -> None:
        active = client.get("/v1/holds", params={"limit": "200"}).json()["data"]
        found = [each["id"] for each in active if each["trace_ids"] and sorted(each["trace_ids"]) == self.kept]
        if not found:
            answer = client.post("/v1/holds", json={"trace_ids": self.kept, "reason": "a lawsuit"})
            assert answer.status_code == 201, answer.text
            found = [answer.json()["id"]]
        assert len(found) == 1
        self.hold_id = found[0]

    def release(self, client: httpx.Client) -> None:
        answer = client.request("DELETE", f"/v1/holds/{self.hold_id}", json={"reason": "it is over"})
        assert answer.status_code == 200, answer.text

    def check(self, live: Live) -> None:
        parent = ended(live, self.deletion_id)
        free = self.traces - len(self.kept)
        assert (parent["state"], parent["traces"]["hidden"], parent["traces"]["held"]) == (
            "verified", free, len(self.kept),
        )  # fmt: skip
        child = ended(live, parent["child_id"])
        assert (child["state"], child["traces"]["hidden"]) == ("verified", len(self.kept))
        assert child["parent_id"] == self.deletion_id
        self.world.took(self.group)
        self.world.deletions += 1
        check_receipt(live, self.deletion_id, free)
        check_receipt(live, child["id"], len(self.kept))


class Lifted(Story):
    """The tombstone of a deleted trace is lifted: its data are welcome again."""

    traces = 1

    def steps(self) -> list[Any]:
        return [self.delete, self.lift]

    def lift(self, client: httpx.Client) -> None:
        body = {"trace_id": self.group.trace_ids[0], "reason": "sent by mistake"}
        answer = client.post("/v1/tombstones/lift", json=body)
        assert answer.status_code == 200 or answer.json()["code"] == "no_tombstone", answer.text

    def check(self, live: Live) -> None:
        self.world.took(self.group)
        self.world.check(live)
        with live.client() as client:
            span = self.world.span(self.group.customer, self.group.trace_ids[0], 0, "again")
            answer = client.post("/api/v1/traces/ingest", json=[span])
        assert answer.json()["message"] == "Successfully ingested 1 spans", answer.text
        back = {*self.group.trace_ids, self.group.customer}
        self.world.needles -= back
        self.world.gone -= back
        self.world.there |= set(self.group.trace_ids)


class Feedback(Story):
    """Annotations are deleted by themselves, so many that hiding them is staged; their traces stay."""

    traces, spans, annotations = 1, 1, 1_100

    def __init__(self, world: World, live: Live, rng: random.Random) -> None:
        super().__init__(world, live, rng)
        self.word = world.needle()
        self.said = 0

    def steps(self) -> list[Any]:
        return [self.say, self.delete_said, self.say_again]

    def say(self, client: httpx.Client, count: int = 0) -> None:
        """Repeated under the same ids, so that each is there once."""
        session = client.get("/sessions").json()[0]["id"]
        for n in range(count or self.annotations):
            body = {"id": str(UUID(int=self.rng_base + n)), "key": self.word, "comment": self.word}
            answer = client.post("/feedback", json=body | {"session_id": session})
            assert answer.status_code == 200, answer.text

    @property
    def rng_base(self) -> int:
        return int(self.key.removeprefix("key-")) << 32

    def delete_said(self, client: httpx.Client) -> None:
        body = {"annotations": {"name": self.word}, "delete_all": True, "idempotency_key": self.key, "wait": "verified"}
        answer = client.post("/v1/deletions", json=body)
        assert answer.status_code == 202, answer.text
        self.deletion_id = answer.json()["id"]

    def say_again(self, client: httpx.Client) -> None:
        """Under the same key and id: nobody is kept from it."""
        self.say(client, 1)

    def check(self, live: Live) -> None:
        found = ended(live, self.deletion_id)
        assert (found["state"], found["kind"], found["traces"]["hidden"]) == (
            "verified", "annotations", self.annotations,
        )  # fmt: skip
        counts = found["counts"]["annotation"]
        assert (counts["planned"], counts["purged"], counts["remaining"]) == (self.annotations, self.annotations, 0)
        self.world.deletions += 1
        with live.client() as client:
            assert len(client.get("/feedback", params={"key": self.word}).json()) == 1
            answer = client.delete(f"/feedback/{UUID(int=self.rng_base)}")
        assert answer.status_code == 200, answer.text
        self.world.deletions += 1
        self.world.needles.add(self.word)


class Redacted(Story):
    """Items of a dataset were made from the traces: empty ones stand in their place, each once."""

    traces, spans, items = 2, 1, 5
    policy = "redact"

    def __init__(self, world: World, live: Live, rng: random.Random) -> None:
        super().__init__(world, live, rng)
        self.dataset = str(UUID(int=rng.getrandbits(128), version=4))
        self.item_ids = sorted(str(UUID(int=rng.getrandbits(128), version=4)) for _ in range(self.items))

    def steps(self) -> list[Any]:
        return [self.make, self.delete]

    def make(self, client: httpx.Client) -> None:
        """Once: no point of a deletion lies in it."""
        body = {"id": self.dataset, "name": self.dataset, "on_source_deleted": self.policy}
        assert client.post("/datasets", json=body).status_code == 200
        text = " ".join(sorted(self.group.needles))
        for n, item_id in enumerate(self.item_ids):
            trace_id = self.group.trace_ids[n % self.traces]
            run = UUID(run_id_of(trace_id, f"{trace_id[:8]}-0", True))
            item = {"id": item_id, "dataset_id": self.dataset, "inputs": {"q": text}, "source_run_id": str(run)}
            answer = client.post("/examples", json=item)
            assert answer.status_code == 200, answer.text

    def check(self, live: Live) -> None:
        found = ended(live, self.deletion_id)
        assert (found["state"], found["traces"]["hidden"], found["copies"]["taken"]) == (
            "verified", self.traces + self.items, self.items,
        )  # fmt: skip
        self.world.took(self.group)
        check_receipt(live, self.deletion_id, self.traces + self.items)
        with live.client() as client:
            shown = client.get("/examples", params={"dataset": self.dataset}).json()
        assert sorted(each["id"] for each in shown) == self.item_ids
        assert all(each["inputs"] == {} and each["source_run_id"] is None for each in shown), shown


class Detached(Redacted):
    """Items that stay with their text: the ids of what is gone stay with none."""

    policy = "detach"

    def check(self, live: Live) -> None:
        found = ended(live, self.deletion_id)
        assert (found["state"], found["traces"]["hidden"], found["copies"]["detached"]) == (
            "verified", self.traces, self.items,
        )  # fmt: skip
        check_receipt(live, self.deletion_id, self.traces)
        with live.client() as client:
            shown = client.get("/examples", params={"dataset": self.dataset}).json()
            assert sorted(each["id"] for each in shown) == self.item_ids
            assert all(each["inputs"] != {} and each["source_run_id"] is None for each in shown), shown
            assert client.delete(f"/datasets/{self.dataset}").is_success  # its items hold the text that must be gone
        self.world.took(self.group)
        self.world.deletions += 1


class Moved(Story):
    """Traces with public links go to another project; the links stay open and end with their traces."""

    traces, spans = 3, 2

    def steps(self) -> list[Any]:
        return [self.share, self.move]

    def share(self, client: httpx.Client) -> None:
        """Once: no point of a transfer lies in it."""
        self.project = f"to-{self.rng.randrange(10**12)}"
        self.token = str(UUID(int=self.rng.getrandbits(128), version=4))
        assert client.post("/v1/projects", json={"name": self.project}).is_success
        trace_id = self.group.trace_ids[0]
        assert client.patch(f"/api/traces/{trace_id}/", json={"is_public": True}).is_success
        run = UUID(run_id_of(trace_id, f"{trace_id[:8]}-0", True))
        assert client.put(f"/runs/{run}/share", json={"run_id": str(run), "share_token": self.token}).is_success
        [(organisation,)] = self.catalog("SELECT public_id FROM organisation LIMIT 1")
        self.links = (f"/api/{organisation}/traces/{trace_id}/", f"/public/{self.token}/run")

    def move(self, client: httpx.Client) -> None:
        asked = {"trace_identifiers": self.group.trace_ids, "destination_project_identifier": self.project}
        answer = client.post("/v1/traces/transfer", json=asked)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"]["transferred_trace_count"] == self.traces

    def catalog(self, sql: str, *values: str) -> list[Any]:
        conn = open_reader(self.world.data / "catalog.db")
        try:
            return list(conn.execute(sql, values))
        finally:
            conn.close()

    def open_links(self, live: Live) -> list[int]:
        return [httpx.get(live.url + each, timeout=20).status_code for each in self.links]

    def check(self, live: Live) -> None:
        assert self.open_links(live) == [200, 200]
        with live.client() as client:
            shown = client.get(f"/v1/projects/{self.project}/traces").json()["data"]
            assert len(shown) == self.traces
            self.delete(client)
        told = self.catalog(
            "SELECT body ->> 'traces', body ->> 'links' FROM ledger_entry "
            "JOIN project ON id = body ->> 'to_project_id' WHERE kind = 'transfer' AND project.name = ?",
            self.project,
        )
        assert told == [(self.traces, 2)], "one entry, however often it was asked for"
        assert ended(live, self.deletion_id)["state"] == "verified"
        assert self.open_links(live) == [404, 404]
        self.world.took(self.group)
        check_receipt(live, self.deletion_id, self.traces)


STORIES: dict[str, type[Story]] = {
    "deletion.before_cancel": Cancelled,
    "deletion.after_cancel": Cancelled,
    "deletion.after_cancelled_recorded": Cancelled,
    "store.after_cancel": Cancelled,
    "hold.before_add": Held,
    "hold.after_add": Held,
    "hold.before_release": Held,
    "hold.after_release": Held,
    "deletion.before_child": Held,
    "deletion.after_child": Held,
    "deletion.before_hide_child": Held,
    "deletion.after_hide_child": Held,
    "deletion.before_lift": Lifted,
    "deletion.before_placeholders": Redacted,
    "deletion.after_placeholders": Redacted,
    "deletion.after_detach": Detached,
    "store.after_cut": Spans,
    "transfer.after_move": Moved,
    "transfer.after_record": Moved,
    "store.after_stage_lines": Large,
    "store.before_activate": Large,
}
"""Point → the story that passes it."""

OF_ANNOTATIONS = (
    "deletion.before_hide", "store.before_hide", "store.after_stage_lines", "store.before_activate", "store.after_hide",
    "deletion.after_hidden_recorded", "store.before_purge_batch", "store.after_purge_batch", "deletion.before_settle",
    "store.after_settle", "deletion.after_purged_recorded", "deletion.before_receipt",
)  # fmt: skip
"""Points that a deletion of annotations is killed at as well: the store's code for them is its own."""
