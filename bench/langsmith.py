"""LangSmith's ingest under load: runs of 2 KB over /runs/multipart, as its clients send them, durable.

A trace is a chain of eight runs (a root with four children, three of them with one of their own) with prose of the
sampler as inputs and outputs; a body holds a hundred messages, one trace after the other. Half of the phase sends each
run once, whole; the other half sends a create and an update of each, which is what a live program's client does.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import orjson

from bench.generate import END_NS, Body
from bench.load import LoadResult, drive
from bench.phases import Run
from bench.report import value
from bench.words import TextSampler
from clearspan.api.langsmith.paths import CLASSIC_ROOT

BOUNDARY: Final = "5f1c9a7de0b84c0fa2f6d3f0b1a97c44"
PATH: Final = f"{CLASSIC_ROOT}/runs/multipart"
MESSAGES_A_BODY: Final = 100
PARENTS: Final = (None, 0, 0, 0, 0, 1, 2, 3)
RUN_TYPES: Final = ("chain", "retriever", "llm", "tool", "chain", "llm", "llm", "tool")
TEXT_CHARS: Final = 400  # of inputs and of outputs: a run is 2 KB with what clients add to it
RUNS: Final = 40_000
RATE_MIN: Final = 5_000.0
START: Final = datetime.fromtimestamp(END_NS / 1e9, UTC) - timedelta(days=1)
_RUNTIME: Final = {
    "sdk": "langsmith-py", "sdk_version": "0.15.0", "library": "langsmith", "platform": "Linux-generic-x86_64",
    "runtime": "python", "py_implementation": "CPython", "runtime_version": "3.11.7", "langchain_version": None,
}  # fmt: skip


class Message(NamedTuple):
    """The parts of one message about a run."""

    data: bytes
    is_last: bool  # of its run
    first_seen: bool  # the first of its trace


def bodies(seed: int, runs: int, *, in_two: bool) -> Iterator[Body]:
    """Bodies of MESSAGES_A_BODY messages; `spans` counts the runs that are complete with it.

    Args:
        in_two: a create and an update of each run, all creates of a trace before its updates; else one message a run.
    """
    rng = random.Random(seed)
    text = TextSampler(rng)
    held: list[Message] = []
    for number in range(runs // len(PARENTS)):
        held += _trace(rng, text, number, in_two=in_two)
        while len(held) >= MESSAGES_A_BODY:
            yield _body(held[:MESSAGES_A_BODY])
            held = held[MESSAGES_A_BODY:]
    if held:
        yield _body(held)


def _body(messages: list[Message]) -> Body:
    data = b"".join(each.data for each in messages) + f"--{BOUNDARY}--\r\n".encode()
    return Body(data, sum(each.is_last for each in messages), sum(each.first_seen for each in messages))


def _trace(rng: random.Random, text: TextSampler, number: int, *, in_two: bool) -> list[Message]:
    ids = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in PARENTS]
    start = START + timedelta(seconds=number)
    dotted: list[str] = []
    creates: list[Message] = []
    updates: list[Message] = []
    for at, (own, parent) in enumerate(zip(ids, PARENTS, strict=True)):
        began = start + timedelta(milliseconds=10 * at)
        segment = f"{began:%Y%m%dT%H%M%S%f}Z{own}"
        dotted.append(segment if parent is None else f"{dotted[parent]}.{segment}")
        main: dict[str, object] = {
            "id": own,
            "trace_id": ids[0],
            "parent_run_id": None if parent is None else ids[parent],
            "dotted_order": dotted[at],
            "name": f"step {at}",
            "run_type": RUN_TYPES[at],
            "start_time": began.isoformat(),
            "session_name": "bench",
            "tags": ["bench"],
        }
        metadata = {"user_id": f"user-{number % 5000}", "thread_id": f"thread-{number // 4}", "ls_method": "traceable"}
        extra: dict[str, object] = {"extra": {"metadata": metadata, "runtime": _RUNTIME}}
        given: dict[str, object] = {"inputs": {"question": text.prose(TEXT_CHARS)}}
        ended: dict[str, object] = {"end_time": (began + timedelta(milliseconds=900)).isoformat()}
        outcome: dict[str, object] = {"outputs": {"answer": text.prose(TEXT_CHARS)}, "events": []}
        if in_two:
            creates.append(Message(_parts("post", own, main, given | extra), False, at == 0))
            updates.append(Message(_parts("patch", own, main | ended, outcome | extra), True, False))
        else:
            creates.append(Message(_parts("post", own, main | ended, given | outcome | extra), True, at == 0))
    return creates + updates


def _parts(op: str, run_id: str, main: dict[str, object], fields: dict[str, object]) -> bytes:
    out = part(f"{op}.{run_id}", main)
    for name, content in fields.items():
        out += part(f"{op}.{run_id}.{name}", content)
    return out


def part(name: str, content: object) -> bytes:
    """One part of a body."""
    data = orjson.dumps(content)
    head = f'Content-Disposition: form-data; name="{name}"\r\nContent-Type: application/json'
    return f"--{BOUNDARY}\r\n{head}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n"


def langsmith(run: Run) -> None:
    """Runs acknowledged a second, sent whole and sent in two."""
    for seed, in_two in ((1, False), (2, True)):
        result = send(run, list(bodies(seed, RUNS, in_two=in_two)))
        run.extra += result.traces
        acks = result.percentiles()
        how = "create and update" if in_two else "whole"
        note = f"{result.sent_bytes / result.spans:,.0f} B a run; ack p50 {acks['p50']}, p99 {acks['p99']} ms"
        run.add(
            value("langsmith", f"2 KB runs, {how}, durable", "runs/s", result.rate, RATE_MIN, at_least=True, note=note)
        )


def send(run: Run, prepared: list[Body]) -> LoadResult:
    """Send bodies of runs over `run.clients` connections."""
    return asyncio.run(
        drive(
            run.server.address,
            prepared,
            clients=run.clients,
            path=PATH,
            content_type=f"multipart/form-data; boundary={BOUNDARY}",
        )
    )
