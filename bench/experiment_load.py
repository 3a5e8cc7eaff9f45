"""A dataset of many items and two experiments on it, with what was scored: drawn from a seed, and sent.

Items come as a LangSmith client's bulk of examples, results and scores as its evaluation sends them: a root run and a
model call of each item, with the feedback on the root in the same body. The first experiment is one that the server
manages (and that is cancelled before it does anything else), so that its progress can be asked for.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final, NamedTuple

import numpy as np

from bench.client import Connection
from bench.generate import Body
from bench.langsmith import BOUNDARY, START, part, send
from bench.phases import Run, WrongAnswer
from bench.words import TextSampler
from clearspan.api.langsmith.paths import CLASSIC_ROOT

NAME: Final = "bench-experiment"
RESULTS_A_BODY: Final = 50
ITEMS_A_BODY: Final = 500
EXACT, CLOSE = "exact", "close"
NEVER_SCORED: Final = 0.05  # share of results without a score for closeness
TEXT_CHARS: Final = 200
MICRO: Final = 1_000_000


class Sent(NamedTuple):
    """What was sent, a row a result; row n is of item n in every experiment."""

    exact: np.ndarray[Any, np.dtype[np.float64]]  # 0 or 1
    close: np.ndarray[Any, np.dtype[np.float64]]  # NaN: not scored
    cost: np.ndarray[Any, np.dtype[np.int64]]  # millionths of a US dollar


class Experiment(NamedTuple):
    """An experiment with its results."""

    id: str
    sent: Sent
    seconds: float  # that its results took


class Lab(NamedTuple):
    """The dataset, and the experiments on it: the managed one first."""

    dataset: str
    items: list[str]  # UUIDs
    first: Experiment
    second: Experiment


def load(run: Run, connection: Connection, results: int) -> Lab:
    """Send a dataset of so many items, and a result of each for two experiments."""
    name = f"{NAME}-{time.time_ns()}"  # a kept store may hold one of before
    dataset = post(connection, f"{CLASSIC_ROOT}/datasets", {"name": f"{name}-questions"})["id"]
    items = item_ids(run.plan.seed, results)
    for start in range(0, results, ITEMS_A_BODY):
        some = items[start : start + ITEMS_A_BODY]
        examples = [
            {
                "id": item,
                "dataset_id": dataset,
                "inputs": {"question": f"number {start + at}"},
                "outputs": {"answer": "a"},
            }
            for at, item in enumerate(some)
        ]
        post(connection, f"{CLASSIC_ROOT}/examples/bulk", examples)
    managed = post(
        connection,
        "/api/v2/experiments/",
        {"name": f"{name}-before", "dataset_id": dataset, "workflows": [{"type": "custom", "config": {}}]},
    )["id"]
    post(connection, f"/api/v2/experiments/{managed}/cancel/", {})
    session = post(connection, f"{CLASSIC_ROOT}/sessions", {"name": name, "reference_dataset_id": dataset})["id"]
    first = _sent(run, managed, f"{name}-before", draw(run.plan.seed + 1, results), items)
    return Lab(dataset, items, first, _sent(run, session, name, draw(run.plan.seed, results), items))


def _sent(run: Run, experiment: str, name: str, sent: Sent, items: list[str]) -> Experiment:
    began = time.perf_counter()
    loaded = send(run, list(bodies(run.plan.seed, sent, name, items)))
    run.extra += loaded.traces
    return Experiment(experiment, sent, time.perf_counter() - began)


def post(connection: Connection, path: str, body: Any) -> Any:
    """What a POST answers."""
    answer = connection.call("POST", path, body)
    if answer.status not in (200, 201, 202):
        raise WrongAnswer(f"{path} answered {answer.status}: {answer.body[:400]!r}")
    return answer.json()


def item_ids(seed: int, count: int) -> list[str]:
    """UUIDs of so many items."""
    rng = random.Random(f"{seed} {time.time_ns()}")  # ids of items are taken once
    return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]


def draw(seed: int, results: int) -> Sent:
    """Scores and costs of so many results."""
    rng = np.random.default_rng(seed)
    close = np.round(rng.beta(4, 2, results), 3)
    close[rng.random(results) < NEVER_SCORED] = np.nan
    cost = np.maximum(1, np.round(rng.lognormal(np.log(0.004), 1.0, results) * MICRO)).astype(np.int64)
    return Sent((rng.random(results) < 0.62).astype(np.float64), close, cost)


def bodies(seed: int, sent: Sent, name: str, items: list[str]) -> Iterator[Body]:
    """Bodies of RESULTS_A_BODY results with their feedback; `spans` counts runs."""
    rng = random.Random(f"{seed} {name}")
    text = TextSampler(rng)
    for first in range(0, len(sent.cost), RESULTS_A_BODY):
        numbers = range(first, min(first + RESULTS_A_BODY, len(sent.cost)))
        data = b"".join(_result(rng, text, sent, number, name, items[number]) for number in numbers)
        yield Body(data + f"--{BOUNDARY}--\r\n".encode(), 2 * len(numbers), len(numbers))


def _result(rng: random.Random, text: TextSampler, sent: Sent, number: int, name: str, item: str) -> bytes:
    """A root run that names its dataset item, the model call that cost something, and what was scored of the root."""
    root, call = (str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(2))
    began = START + timedelta(milliseconds=500 * number)
    ended = (began + timedelta(milliseconds=rng.randrange(200, 5_000))).isoformat()
    order = f"{began:%Y%m%dT%H%M%S%f}Z"
    usd = float(sent.cost[number]) / MICRO
    usage = {"input_tokens": 300, "output_tokens": 60, "total_tokens": 360, "total_cost": usd}
    asked, answered = {"question": text.prose(TEXT_CHARS)}, {"answer": text.prose(TEXT_CHARS)}
    common = {"trace_id": root, "start_time": began.isoformat(), "end_time": ended, "session_name": name}
    whole: dict[str, object] = {"id": root, "name": "target", "run_type": "chain", "dotted_order": f"{order}{root}"}
    whole |= {"reference_example_id": item, "inputs": asked, "outputs": answered}
    inner: dict[str, object] = {"id": call, "parent_run_id": root, "name": "call", "run_type": "llm", "inputs": asked}
    inner |= {"dotted_order": f"{order}{root}.{order}{call}", "outputs": {**answered, "usage_metadata": usage}}
    out = part(f"post.{root}", common | whole) + part(f"post.{call}", common | inner)
    for key, score in ((EXACT, sent.exact[number]), (CLOSE, sent.close[number])):
        if not np.isnan(score):
            own = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            said = {"id": own, "run_id": root, "trace_id": root, "key": key, "score": float(score)}
            out += part(f"feedback.{own}", said | {"comment": text.prose(60)})
    return out
