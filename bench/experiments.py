"""An experiment of 100,000 results with two scores each, filtered by score and cost, with the exact count.

Results and scores come as a LangSmith client's evaluation sends them: a root run and a model call of each dataset item,
with the feedback on the root in the same body. Questions go to the experiment's own list of traces. Each draws its own
bounds; every count is checked against what was sent.
"""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import numpy as np

from bench.client import Connection, render_json
from bench.generate import Body
from bench.langsmith import BOUNDARY, START, part, send
from bench.phases import QUERY_SECONDS_MAX, SAMPLES_MIN, WARM_UP, Run, WrongAnswer
from bench.report import timing, value
from bench.words import TextSampler
from clearspan.api.langsmith.paths import CLASSIC_ROOT

NAME: Final = "bench-experiment"
RESULTS: Final = 100_000
RESULTS_A_BODY: Final = 50
BUDGET_MS: Final = 250.0
EXACT, CLOSE = "exact", "close"
NEVER_SCORED: Final = 0.05  # share of results without a score for closeness
TEXT_CHARS: Final = 200
_MICRO: Final = 1_000_000

Filters = dict[str, object]


class Sent(NamedTuple):
    """What was sent, a row a result."""

    exact: np.ndarray[Any, np.dtype[np.float64]]  # 0 or 1
    close: np.ndarray[Any, np.dtype[np.float64]]  # NaN: not scored
    cost: np.ndarray[Any, np.dtype[np.int64]]  # millionths of a US dollar


class Query(NamedTuple):
    """A kind of question: filters with bounds of their own each time, and which results they select."""

    name: str
    draw: Callable[[random.Random, Sent], tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]]
    sort_by: str = "-timestamp"


def experiments(run: Run, results: int = RESULTS) -> None:
    """Load one experiment, then ask for pages of it by score and cost."""
    sent = draw(run.plan.seed, results)
    connection = Connection(run.server.address)
    name = f"{NAME}-{time.time_ns()}"  # a kept store may hold one of before
    experiment = _made(connection, name)
    began = time.perf_counter()
    loaded = send(run, list(bodies(run.plan.seed, sent, name)))
    took = time.perf_counter() - began
    run.extra += loaded.traces
    note = f"{results:,} results of 2 runs with 2 scores each in {took:.0f} s"
    run.add(value("experiment", "results with their scores, durable", "results/s", results / took, None, note=note))
    for query in QUERIES:
        times, matched = _time(run, connection, experiment, query, sent)
        run.add(
            timing("experiment", query.name, times, BUDGET_MS, f"{results:,} results; {matched:,} in the last answer")
        )
    connection.close()


def _made(connection: Connection, name: str) -> str:
    """A dataset, and an experiment on it as a LangSmith client makes one; its id."""

    def post(path: str, body: dict[str, object]) -> str:
        answer = connection.call("POST", f"{CLASSIC_ROOT}{path}", body)
        if answer.status not in (200, 201):
            raise WrongAnswer(f"{path} answered {answer.status}: {answer.body[:400]!r}")
        return str(answer.json()["id"])

    dataset = post("/datasets", {"name": f"{name}-questions"})
    return post("/sessions", {"name": name, "reference_dataset_id": dataset})


def request_of(run: Run, experiment: str, filters: Filters, sort_by: str) -> bytes:
    """A page of 50 of the experiment's traces."""
    query = urlencode({"page_size": 50, "sort_by": sort_by})
    path = f"/api/v2/experiments/{experiment}/logs/list/?{query}"
    return render_json(run.server.address, "POST", path, {"filters": filters})


def draw(seed: int, results: int) -> Sent:
    """Scores and costs of so many results."""
    rng = np.random.default_rng(seed)
    close = np.round(rng.beta(4, 2, results), 3)
    close[rng.random(results) < NEVER_SCORED] = np.nan
    cost = np.maximum(1, np.round(rng.lognormal(np.log(0.004), 1.0, results) * _MICRO)).astype(np.int64)
    return Sent((rng.random(results) < 0.62).astype(np.float64), close, cost)


def bodies(seed: int, sent: Sent, name: str) -> Iterator[Body]:
    """Bodies of RESULTS_A_BODY results with their feedback; `spans` counts runs."""
    rng = random.Random(seed)
    text = TextSampler(rng)
    for first in range(0, len(sent.cost), RESULTS_A_BODY):
        numbers = range(first, min(first + RESULTS_A_BODY, len(sent.cost)))
        data = b"".join(_result(rng, text, sent, number, name) for number in numbers)
        yield Body(data + f"--{BOUNDARY}--\r\n".encode(), 2 * len(numbers), len(numbers))


def _result(rng: random.Random, text: TextSampler, sent: Sent, number: int, name: str) -> bytes:
    """A root run that names its dataset item, the model call that cost something, and what was scored of the root."""
    root, call, item = (str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(3))
    began = START + timedelta(milliseconds=500 * number)
    ended = (began + timedelta(milliseconds=rng.randrange(200, 5_000))).isoformat()
    order = f"{began:%Y%m%dT%H%M%S%f}Z"
    usd = float(sent.cost[number]) / _MICRO
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


# ---- the questions ------------------------------------------------------------------------------------------------


def _at_least(name: str, bound: float) -> Filters:
    return {f"scores__{name}": {"operator": "gte", "value": [bound]}}


def _cost(rng: random.Random, sent: Sent, operator: str) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    micro = int(np.quantile(sent.cost, rng.random()))
    selected = sent.cost <= micro if operator == "lte" else sent.cost > micro
    return {"total_cost": {"operator": operator, "value": [f"{micro / _MICRO:.6f}"]}}, selected


def _close_and_cheap(rng: random.Random, sent: Sent) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    bound = round(rng.random(), 3)
    filters, selected = _cost(rng, sent, "lte")
    return filters | _at_least(CLOSE, bound), selected & (sent.close >= bound)


def _wrong_and_dear(rng: random.Random, sent: Sent) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    filters, selected = _cost(rng, sent, "gt")
    return filters | {f"scores__{EXACT}": {"operator": "", "value": [0]}}, selected & (sent.exact == 0)


def _two_scores(rng: random.Random, sent: Sent) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    bound = round(rng.random(), 3)
    filters, selected = _wrong_and_dear(rng, sent)
    return filters | _at_least(CLOSE, bound), selected & (sent.close >= bound)


def _not_this(rng: random.Random, sent: Sent) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    value = round(rng.random(), 2)
    filters, selected = _cost(rng, sent, "lte")
    known = ~np.isnan(sent.close)
    return filters | {f"scores__{CLOSE}": {"operator": "not", "value": [value]}}, selected & known & (
        sent.close != value
    )


def _not_scored(rng: random.Random, sent: Sent) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    filters, selected = _cost(rng, sent, "gt")
    return filters | {f"scores__{CLOSE}": {"operator": "isnull", "value": [True]}}, selected & np.isnan(sent.close)


QUERIES: Final = (
    Query("score at least, cost at most", _close_and_cheap),
    Query("the same, sorted by cost", _close_and_cheap, "-total_cost"),
    Query("the same, sorted by tokens upwards", _close_and_cheap, "total_tokens"),
    Query("score equals, cost above", _wrong_and_dear),
    Query("two scores and cost", _two_scores),
    Query("score is not, cost at most", _not_this),
    Query("not scored, cost above", _not_scored),
)


def _time(run: Run, connection: Connection, experiment: str, query: Query, sent: Sent) -> tuple[list[float], int]:
    """Times in ms of up to `run.samples` requests with bounds of their own after a warm-up; the last count."""
    rng = random.Random(run.plan.seed)
    times: list[float] = []
    deadline = time.perf_counter() + QUERY_SECONDS_MAX
    for done in itertools.count():
        filters, selected = query.draw(rng, sent)
        raw = request_of(run, experiment, filters, query.sort_by)
        began = time.perf_counter()
        response = connection.send(raw)
        took = (time.perf_counter() - began) * 1e3
        expected = int(selected.sum())
        if response.status != 200 or response.json()["count"] != expected:
            raise WrongAnswer(f"{filters}: {expected:,} were sent; {response.status}: {response.body[:400]!r}")
        if done >= WARM_UP:
            times.append(took)
        if len(times) >= run.samples or (time.perf_counter() > deadline and len(times) >= SAMPLES_MIN):
            return times, expected
    raise AssertionError
