"""An experiment that a model judges, over HTTP: its scores are read and filtered, what it fails to say is told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from tests.wire.respan_experiments import ALL, DUPLICATE, add_items, ask, make_dataset

from clearspan.experiments.items import NewItem
from clearspan.settings import SecretStr
from clearspan.testing.llm_stub import Body, Fault, LlmStub, completion, messages_text
from clearspan.testing.wire import Wire, open_wire

KEY: Final = "sk-the-operators-own-key-of-the-judge"
WAIT_S: Final = 20.0
GOOD: Final = 3
"""Items whose judge answers as it should; each of the others meets one fault."""


def said(text: str) -> bytes:
    return json.dumps(completion({"messages": []}, text)).encode()


FAULTS: Final[dict[str, Fault]] = {
    "the judge's answer does not fit: the score must be a number": Fault(body=said('{"score": "high"}'), times=None),
    "the judge's answer does not fit: the score must be a number from 0 to 1": Fault(
        body=said('{"score": 7}'), times=None
    ),
    "the judge's answer does not fit: it is not one JSON object": Fault(body=said("x" * 100_000), times=None),
    "LlmUnavailable: The endpoint answered 429.": Fault(429, headers={"Retry-After": "9999"}, times=None),
    "LlmUnavailable: The endpoint answered 500.": Fault(500, times=None),
    "LlmUnavailable: The endpoint cannot be reached.": Fault(is_dropped=True, times=None),
    "LlmRefused: The endpoint does not take the key.": Fault(401, body=f"bad key {KEY}".encode(), times=None),
    "LlmRefused: The endpoint's answer is not of OpenAI's form.": Fault(body=f"<p>{KEY}".encode(), times=None),
}
"""Reason that is told → what the endpoint does."""


def reply(body: Body) -> str:
    number = number_of(messages_text(body))
    return json.dumps({"explanation": f"because of {number}", "score": number / 10})


def number_of(text: str) -> int:
    """Of which item a text speaks."""
    found = re.search(r"item-(\d+)", text)
    assert found is not None
    return int(found[1])


@pytest.fixture
def stub() -> Iterator[LlmStub]:
    with LlmStub(reply) as endpoint:
        yield endpoint


@pytest.fixture
def judged(tmp_path: Path, stub: LlmStub) -> Iterator[Wire]:
    llm = {"llm_base_url": stub.url, "llm_api_key": SecretStr(KEY), "llm_model": "gpt-4o-mini"}
    with ExitStack() as stack:
        yield open_wire(stack, tmp_path / "data", "sqlite", **llm, llm_allow_private=True, llm_retries_max=0)


def run(wire: Wire, body: dict[str, Any]) -> str:
    made = wire.post(ALL, body)
    assert made.status_code == 201, made.text
    give_up_at = time.monotonic() + WAIT_S
    while (told := wire.get(f"{ALL}{made.json()['id']}/").json())["status"] != "completed":
        assert time.monotonic() < give_up_at, told
        time.sleep(0.05)
    return str(told["id"])


def test_a_judge_scores_what_it_can_and_says_why_not(
    judged: Wire, stub: LlmStub, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, total = make_dataset(judged), GOOD + len(FAULTS)
    add_items(judged, dataset, *[NewItem({"q": n}, f"item-{n}") for n in range(total)])
    config = {"evaluator_definition": "Rate {{output}}."}
    scale = {"min_score": 0, "max_score": 1}
    made = judged.post(
        "/api/evaluators/",
        {"name": "Judge", "type": "llm", "score_value_type": "numerical", "llm_config": config, "score_config": scale},
    )
    evaluator = made.json()["id"]
    for number, fault in enumerate(FAULTS.values(), GOOD):
        stub.fail(f"item-{number}", fault)
    experiment = run(judged, {"dataset_id": dataset.uuid, "workflow": DUPLICATE, "evaluator_ids": [evaluator]})

    progress = judged.get(f"{ALL}{experiment}/progress/").json()
    assert (progress["total"], progress["done"], progress["not_scored"]) == (total, total, len(FAULTS))
    page = ask(judged, experiment, "logs/list/")
    results = {number_of(each["output"]): each for each in page["results"]}
    assert sorted(results) == list(range(total)), "no item is lost"
    for number, result in results.items():
        score = result["scores"].get(evaluator)
        told = None if score is None else (score["numerical_value"], score["explanation"])
        assert told == ((number / 10, f"because of {number}") if number < GOOD else None), result
    answers = [judged.get(f"{ALL}{experiment}/logs/{results[n]['id']}/") for n in range(total)]
    reasons = [each.json()["metadata"].get("not_scored.judge") for each in answers]
    assert reasons == [*[None] * GOOD, *FAULTS]

    high = ask(judged, experiment, "logs/list/", {"scores__judge": {"operator": "gte", "value": [0.1]}})
    assert high["count"] == GOOD - 1
    assert ask(judged, experiment, f"histogram/?evaluator_id={evaluator}")["stats"]["total"] == GOOD
    assert ask(judged, experiment, "logs/summary/")["scores"][evaluator]["count"] == GOOD

    texts = [
        *(each.text for each in answers),
        made.text,
        json.dumps([page, progress]),
        caplog.text,
        capsys.readouterr().out,
    ]
    assert not any(KEY in each for each in texts)
    assert all(KEY.encode() not in each.read_bytes() for each in judged.data.rglob("*") if each.is_file())
    assert {each.headers["authorization"] for each in stub.calls} == {f"Bearer {KEY}"}, (
        "to its endpoint and nowhere else"
    )
