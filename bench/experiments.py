"""Two experiments of 100,000 results with two scores each on one dataset: figures, comparison, pages by score and cost.

Pages go to the experiment's own list of traces. Each draws its own bounds; every count is checked against what was
sent.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import numpy as np

from bench.client import Connection, render_json
from bench.experiment_figures import figures
from bench.experiment_load import CLOSE, EXACT, MICRO, Sent, load
from bench.phases import QUERY_SECONDS_MAX, SAMPLES_MIN, WARM_UP, Run, WrongAnswer
from bench.report import timing, value

RESULTS: Final = 100_000
BUDGET_MS: Final = 250.0

Filters = dict[str, object]


class Query(NamedTuple):
    """A kind of question: filters with bounds of their own each time, and which results they select."""

    name: str
    draw: Callable[[random.Random, Sent], tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]]
    sort_by: str = "-timestamp"


def experiments(run: Run, results: int = RESULTS) -> None:
    """Load a dataset and two experiments on it, then ask for pages of one by score and cost, and for figures."""
    connection = Connection(run.server.address)
    lab = load(run, connection, results)
    experiment, sent, took = lab.second
    note = f"{results:,} results of 2 runs with 2 scores each in {took:.0f} s"
    run.add(value("experiment", "results with their scores, durable", "results/s", results / took, None, note=note))
    figures(run, connection, lab)
    for query in QUERIES:
        times, matched = _time(run, connection, experiment, query, sent)
        run.add(
            timing("experiment", query.name, times, BUDGET_MS, f"{results:,} results; {matched:,} in the last answer")
        )
    connection.close()


def request_of(run: Run, experiment: str, filters: Filters, sort_by: str) -> bytes:
    """A page of 50 of the experiment's traces."""
    query = urlencode({"page_size": 50, "sort_by": sort_by})
    path = f"/api/v2/experiments/{experiment}/logs/list/?{query}"
    return render_json(run.server.address, "POST", path, {"filters": filters})


# ---- the questions ------------------------------------------------------------------------------------------------


def _at_least(name: str, bound: float) -> Filters:
    return {f"scores__{name}": {"operator": "gte", "value": [bound]}}


def _cost(rng: random.Random, sent: Sent, operator: str) -> tuple[Filters, np.ndarray[Any, np.dtype[np.bool_]]]:
    micro = int(np.quantile(sent.cost, rng.random()))
    selected = sent.cost <= micro if operator == "lte" else sent.cost > micro
    return {"total_cost": {"operator": operator, "value": [f"{micro / MICRO:.6f}"]}}, selected


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
