"""Experiments over a small dataset, their results and scores, made in a few words."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment, ExperimentDefinition, ExperimentStatus
from clearspan.experiments.items import Item, NewItem
from clearspan.testing.wire import OWNER_KEY, SECOND_NS, Wire, iso

ALL = "/api/v2/experiments/"
DUPLICATE = [{"type": "duplicate", "config": {}}]


def org_id(wire: Wire) -> int:
    return wire.catalog.first_org.id


def make_dataset(wire: Wire, name: str = "questions") -> Dataset:
    return wire.catalog.datasets.create(org_id(wire), name)


def add_items(wire: Wire, dataset: Dataset, *new: NewItem) -> list[Item]:
    return asyncio.run(wire.services.items.add(None, dataset, new))


def make_evaluator(wire: Wire, slug: str, score_type: str = "numerical") -> str:
    """Its id, as answers spell it."""
    made = wire.catalog.evaluators.create(
        org_id(wire), slug=slug, name=slug.title(), kind="exact", config={}, score_type=score_type
    )
    return str(uuid.UUID(made.uuid))


def make_experiment(
    wire: Wire, dataset: Dataset, name: str = "run", *, status: ExperimentStatus | None = None, **said: Any
) -> Experiment:
    """An experiment that nobody runs: its results are sent."""
    definition = ExperimentDefinition(
        name=name, dataset_uuid=dataset.uuid, workflow=DUPLICATE, version_ns=wire.clock.now_ns(), **said
    )
    made = wire.catalog.experiments.create(org_id(wire), definition)
    if status is not None:
        now_ns = wire.clock.now_ns()
        wire.catalog.experiments.set_status(made.project_id, status, started_at_ns=now_ns, completed_at_ns=now_ns)
    return made


def result_id(number: int) -> str:
    return uuid.UUID(int=0x9E0000004C117C159D87000000000000 + number).hex


def add_result(
    wire: Wire,
    experiment: Experiment,
    number: int,
    *,
    item: Item | None = None,
    ago_s: float = 60.0,
    lasts_s: float | None = 2.0,
    metadata: dict[str, Any] | None = None,
    tokens: tuple[int, int] | None = None,
    cost: float | None = None,
    key: str = OWNER_KEY,
    **fields: Any,
) -> str:
    """A result as LangSmith's clients send one: a run that names its item. Its trace id."""
    start_ns = wire.clock.now_ns() - round(ago_s * SECOND_NS)
    outputs = fields.pop("outputs", {"answer": f"answer {number}"})
    usage: dict[str, Any] = {}
    if tokens is not None:
        usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
    if cost is not None:
        usage["total_cost"] = cost
    body = {
        "id": result_id(number),
        "trace_id": result_id(number),
        "name": "target",
        "run_type": "llm",
        "start_time": iso(start_ns),
        "inputs": {"question": f"question {number}"},
        "session_id": experiment.uuid,
        "extra": {"metadata": (metadata or {}) | ({"usage_metadata": usage} if usage else {})},
        **({"outputs": outputs} if outputs is not None else {}),
        **({"end_time": iso(start_ns + round(lasts_s * SECOND_NS))} if lasts_s is not None else {}),
        **({"reference_example_id": str(uuid.UUID(item.id))} if item is not None else {}),
        **fields,
    }
    answer = wire.post("/runs", body, key=key)
    assert answer.status_code == 202, answer.text
    return result_id(number)


def add_score(wire: Wire, number: int, key: str, **said: Any) -> None:
    """Feedback on a result."""
    answer = wire.post("/feedback", {"id": str(uuid.uuid4()), "key": key, "run_id": result_id(number), **said})
    assert answer.status_code == 200, answer.text


def numbers(results: list[dict[str, Any]]) -> list[int]:
    """Of results in a list the numbers under which they were made."""
    return [int(each["id"], 16) - int(result_id(0), 16) for each in results]


def ask(wire: Wire, experiment: Experiment | str, part: str, filters: Any = None, **rest: Any) -> Any:
    """The answer to a POST about an experiment's traces; it must be a 200."""
    named = experiment if isinstance(experiment, str) else experiment.public_id
    answer = wire.post(f"{ALL}{named}/{part}", {} if filters is None else {"filters": filters}, **rest)
    assert answer.status_code == 200, answer.text
    return answer.json()
