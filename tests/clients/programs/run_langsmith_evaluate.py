"""langsmith's datasets, examples and evaluate(), from the first dataset to the comparison of two experiments.

Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY, PROJECT. Prints one JSON object, what each call gave.
"""

import asyncio
import inspect
import json
import os
import warnings

import requests
from langsmith.evaluation import evaluate_comparative
from langsmith.utils import LangSmithConflictError, LangSmithNotFoundError

from langsmith import Client, traceable

warnings.simplefilter("ignore")
PROJECT = os.environ["PROJECT"]
PICTURE = b"\x89PNG\r\n\x1a\n--not-a-boundary\r\n" + bytes(range(256)) * 4
PARAMETERS = inspect.signature(Client.create_example).parameters
EXPECTED = "reference_outputs" if "reference_outputs" in PARAMETERS else "outputs"
client = Client()


@traceable(run_type="llm")
def model(text):
    return {"text": text.upper(), "usage_metadata": {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14}}


def good(inputs):
    return {"answer": model(inputs["question"])["text"]}


def bad(inputs):
    if inputs["question"] == "two":
        raise ValueError("no answer")
    return {"answer": "?"}


async def slow(inputs):
    await asyncio.sleep(0)
    return good(inputs)


def correct(run, example):
    return {"key": "correct", "score": (run.outputs or {}).get("answer") == example.outputs["answer"]}


def length(outputs, reference_outputs):
    return {"key": "length", "score": len(outputs.get("answer", "")), "comment": "in characters"}


def mean(runs, examples):
    return {"key": "examples", "score": len(examples)}


def pairwise(runs, example):
    return {"key": "preferred", "scores": {run.id: float((run.outputs or {}).get("answer") != "?") for run in runs}}


def raised(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind:
        return True
    return False


def make():
    dataset = client.create_dataset(PROJECT, description="numbers", metadata={"of": "tests"})
    client.create_examples(
        dataset_id=dataset.id,
        examples=[
            {"inputs": {"question": word}, EXPECTED: {"answer": word.upper()}, "metadata": {"n": n}, "split": split}
            for n, (word, split) in enumerate([("one", "train"), ("two", "test"), ("three", ["test", "long"])])
        ],
    )
    return dataset


def datasets(dataset):
    listed = list(client.list_datasets(dataset_name_contains=PROJECT))
    return {
        "has": [client.has_dataset(dataset_name=PROJECT), client.has_dataset(dataset_name="nobody's")],
        "read": client.read_dataset(dataset_name=PROJECT).id == dataset.id,
        "by_metadata": [each.name for each in client.list_datasets(metadata={"of": "tests"}) if each.name == PROJECT],
        "counted": [[each.name, each.example_count, each.description] for each in listed],
        "taken": raised(LangSmithConflictError, client.create_dataset, PROJECT),
        "unknown": raised(LangSmithNotFoundError, client.read_dataset, dataset_name="nobody's"),
    }


def words(**query):
    return sorted(each.inputs["question"] for each in client.list_examples(dataset_name=PROJECT, **query))


def examples(dataset):
    first = next(each for each in client.list_examples(dataset_id=dataset.id) if each.inputs["question"] == "one")
    [before, *_] = client.list_dataset_versions(dataset_id=dataset.id)
    client.update_example(first.id, inputs={"question": "uno"}, dataset_id=dataset.id)
    renamed = words()
    client.update_examples(dataset_id=dataset.id, updates=[{"id": first.id, "inputs": {"question": "one"}}])
    client.update_dataset_tag(dataset_id=dataset.id, as_of=before.as_of, tag="first")
    client.update_dataset_splits(dataset_id=dataset.id, split_name="held", example_ids=[first.id])
    now = client.read_dataset_version(dataset_id=dataset.id, tag="latest")
    diff = client.diff_dataset_versions(dataset.id, from_version="first", to_version=now.as_of)
    return {
        "all": words(),
        "renamed": renamed,
        "limited": len(words(limit=2)),
        "splits": [words(splits=["test"]), words(splits=["train", "long"]), words(splits=["held"])],
        "by_metadata": words(metadata={"n": 1}),
        "filtered": words(filter="not(has(metadata, '{\"n\": 1}'))"),
        "as_of_tag": words(as_of="first"),
        "by_id": [str(each.id) == str(first.id) for each in client.list_examples(example_ids=[first.id])],
        "split_names": client.list_dataset_splits(dataset_id=dataset.id),
        "read": client.read_example(first.id).metadata,
        "versions": len(list(client.list_dataset_versions(dataset_id=dataset.id))),
        "modified": diff.examples_modified == [first.id] and not diff.examples_added,
    }


def attachments(dataset):
    made = client.create_example(
        inputs={"question": "picture"}, dataset_id=dataset.id, attachments={"face": ("image/png", PICTURE)}
    )
    client.update_example(
        made.id,
        dataset_id=dataset.id,
        attachments={"note": ("text/plain", b"hello")},
        attachments_operations={"rename": {"face": "front"}},
    )
    [kept] = client.list_examples(example_ids=[made.id], include_attachments=True)
    told = {name: [each["mime_type"], each["reader"].read()] for name, each in kept.attachments.items()}
    client.delete_examples([made.id], hard_delete=True)
    return {
        "front": told["front"] == ["image/png", PICTURE],
        "note": told["note"] == ["text/plain", b"hello"],
        "count": len(told),
        "gone": raised(LangSmithNotFoundError, client.read_example, made.id),
    }


def experiments():
    run = {"data": PROJECT, "evaluators": [correct, length], "summary_evaluators": [mean]}
    names = [
        client.evaluate(good, **run, experiment_prefix="good", num_repetitions=2, max_concurrency=2).experiment_name,
        client.evaluate(bad, **run, experiment_prefix="bad", metadata={"kind": "bad"}).experiment_name,
        asyncio.run(client.aevaluate(slow, **run, experiment_prefix="slow")).experiment_name,
    ]
    client.flush()
    evaluate_comparative(names[:2], evaluators=[pairwise], client=client)
    client.flush()
    return names


def shown(names):
    dataset = client.read_dataset(dataset_name=PROJECT)
    known = {each.name: each for each in client.list_projects(reference_dataset_name=PROJECT)}
    told = {}
    for kind, name in zip(("good", "bad", "slow"), names, strict=True):
        results = client.get_experiment_results(name=name)
        rows = list(results["examples_with_runs"])
        stats = results["feedback_stats"]
        told[kind] = {
            "runs": {each.inputs["question"]: len(each.runs) for each in rows},
            "errors": sum(run.error is not None for each in rows for run in each.runs),
            "answers": sorted({(run.outputs or {}).get("answer", "") for each in rows for run in each.runs}),
            "count": results["run_stats"]["run_count"],
            "correct": stats["correct"]["avg"],
            "summary": stats["examples"]["avg"],
            "listed": known[name].reference_dataset_id == dataset.id,
        }
    return told | {"sessions": dataset.session_count, "version": "dataset_version" in known[names[0]].metadata}


async def query_v2(dataset, names):
    ids = [str(client.read_project(project_name=each).id) for each in names[:2]]
    pages = client.datasets.experiment_runs.query(
        str(dataset.id), experiment_ids=ids, selects=["ID", "OUTPUTS", "PROJECT_ID"], page_size=2
    )
    rows = [each async for each in pages]
    return [len(rows), sorted(len(each.runs) for each in rows), sorted({each.name[0] for each in rows})]


def by_respan(names):
    """What Respan's API says of the experiments: how each stands, how many traces it has and how many are right."""
    http, base = requests.Session(), os.environ["LANGSMITH_ENDPOINT"].removesuffix("/api/v1") + "/api/v2/experiments"
    http.headers["x-api-key"] = os.environ["LANGSMITH_API_KEY"]
    listed = {each["name"]: each for each in http.get(f"{base}/list/").json()["results"]}
    right = {"filters": {"scores__correct": {"operator": "gte", "value": [1]}}}
    told = []
    for each in (listed[name] for name in names):
        address = f"{base}/{each['id']}/logs/list/"
        told.append([each["status"], *(http.post(address, json=body).json()["count"] for body in ({}, right))])
    return told


def removed(dataset, names):
    client.delete_example(next(iter(client.list_examples(dataset_id=dataset.id))).id)
    left = len(list(client.list_examples(dataset_id=dataset.id)))
    client.delete_project(project_name=names[1])
    client.delete_dataset(dataset_id=dataset.id)
    return {
        "left": left,
        "dataset": client.has_dataset(dataset_name=PROJECT),
        "example": raised(LangSmithNotFoundError, client.read_dataset, dataset_id=dataset.id),
        "experiments": sorted(each.name == names[0] for each in client.list_projects(reference_dataset_id=dataset.id)),
    }


def main():
    dataset = make()
    seen = {"datasets": datasets(dataset), "examples": examples(dataset), "attachments": attachments(dataset)}
    names = experiments()
    seen["shown"], seen["v2"] = shown(names), asyncio.run(query_v2(dataset, names))
    seen["respan"], seen["removed"] = by_respan(names), removed(dataset, names)
    print(json.dumps(seen, default=str))


main()
