"""Figures of a large experiment, its comparison with another one, its progress, and pages that look items up by id.

What an answer counts is checked against what was sent. The first answers, on cold caches, are not counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from bench.client import Connection
from bench.experiment_load import CLOSE, EXACT, Lab, Sent
from bench.phases import Run, WrongAnswer
from bench.report import timing
from bench.server import usage
from clearspan.api.langsmith.paths import CLASSIC_ROOT

WARM_UP: Final = 2
SAMPLES: Final = 15
SECONDS_MAX: Final = 40.0
PAGE: Final = 100


class Question(NamedTuple):
    """A kind of request, made anew for each sample, and whether an answer is right."""

    name: str
    budget_ms: float
    ask: Callable[[random.Random], tuple[str, str, Any]]  # method, path, body
    is_right: Callable[[Any], bool]


def figures(run: Run, connection: Connection, lab: Lab) -> None:
    """A row for each kind of question."""
    for question in questions(lab):
        used_s = usage(run.server.pid).cpu_s
        times = _time(run, connection, question)
        each_ms = (usage(run.server.pid).cpu_s - used_s) * 1e3 / (len(times) + WARM_UP)
        note = f"{len(lab.items):,} results; {each_ms:.0f} ms of the server's processor time each"
        run.add(timing("experiment", question.name, times, question.budget_ms, note))


def questions(lab: Lab) -> list[Question]:
    """All of them."""
    sent, count = lab.second.sent, len(lab.items)
    of_second, of_first = f"/api/v2/experiments/{lab.second.id}/", f"/api/v2/experiments/{lab.first.id}/"
    sessions = {"session_ids": [lab.second.id], "limit": PAGE}

    def page_of_runs(rng: random.Random) -> tuple[str, str, Any]:
        offset = rng.randrange(0, max(1, count - PAGE))
        return "POST", f"{CLASSIC_ROOT}/datasets/{lab.dataset}/runs", sessions | {"offset": offset}

    def items_by_id(rng: random.Random) -> tuple[str, str, Any]:
        ids = "&".join(f"id={each}" for each in rng.sample(lab.items, min(PAGE, count)))
        return "GET", f"{CLASSIC_ROOT}/examples?dataset={lab.dataset}&limit={PAGE}&{ids}", None

    def histogram(name: str) -> Callable[[random.Random], tuple[str, str, Any]]:
        return lambda rng: ("GET", f"{of_second}histogram/?evaluator_id={name}&bins={rng.randint(5, 50)}", None)

    def compared(_: random.Random) -> tuple[str, str, Any]:
        return "GET", f"/v1/comparisons?experiments={lab.first.id}&experiments={lab.second.id}", None

    page = min(PAGE, count)
    return [
        Question("summary", 1_000, lambda _: ("GET", f"{of_second}logs/summary/", None), lambda a: _sums(a, sent)),
        Question("histogram, two values", 1_000, histogram(EXACT), lambda a: a["stats"]["total"] == count),
        Question("histogram, many values", 1_000, histogram(CLOSE), lambda a: _is_spread(a, sent)),
        Question("progress", 500, lambda _: ("GET", f"{of_first}progress/", None), lambda a: a["done"] == count),
        Question("comparison of two", 5_000, compared, lambda a: _is_compared(a, lab)),
        Question(
            "examples with runs, 100 a page",
            250,
            page_of_runs,
            lambda a: len(a) == page and all(len(each["runs"]) == 1 for each in a),
        ),
        Question("100 examples by id", 50, items_by_id, lambda a: len(a) == page),
    ]


def _sums(answer: Any, sent: Sent) -> bool:
    scores = answer["scores"]
    return bool(
        answer["number_of_requests"] == len(sent.cost)
        and round(answer["total_cost"] * 1e6) == sent.cost.sum()
        and np.isclose(scores[EXACT]["avg_score"], sent.exact.mean(), rtol=1e-12)
        and np.isclose(scores[CLOSE]["avg_score"], np.nanmean(sent.close), rtol=1e-12)
        and scores[CLOSE]["count"] == (~np.isnan(sent.close)).sum()
    )


def _is_spread(answer: Any, sent: Sent) -> bool:
    known = sent.close[~np.isnan(sent.close)]
    told = answer["stats"]
    return bool(
        (told["total"], told["min"], told["max"]) == (len(known), known.min(), known.max())
        and sum(each["count"] for each in answer["bins"]) == len(known)
    )


def _is_compared(answer: Any, lab: Lab) -> bool:
    (exact,) = (each for each in answer["measures"] if each["name"] == EXACT)
    (told,) = exact["differences"]
    gains = lab.second.sent.exact - lab.first.sent.exact
    return bool(
        answer["items"] == len(lab.items)
        and (told["n"], told["improved"], told["regressed"]) == (len(gains), (gains > 0).sum(), (gains < 0).sum())
    )


def _time(run: Run, connection: Connection, question: Question) -> list[float]:
    """Times in ms of up to SAMPLES requests after a warm-up; fewer when they take long."""
    rng = random.Random(run.plan.seed)
    times: list[float] = []
    deadline = time.perf_counter() + SECONDS_MAX
    for done in range(WARM_UP + SAMPLES):
        method, path, body = question.ask(rng)
        began = time.perf_counter()
        answer = connection.call(method, path, body)
        took = (time.perf_counter() - began) * 1e3
        if answer.status != 200 or not question.is_right(answer.json()):
            raise WrongAnswer(f"{question.name}: {answer.status}: {answer.body[:400]!r}")
        if done >= WARM_UP:
            times.append(took)
        if time.perf_counter() > deadline and len(times) >= 5:
            break
    return times
