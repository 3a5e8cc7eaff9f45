"""respan-api 0.1.47, the last with experiments: every experiments method, in the order of a life.

Environment: CLEARSPAN_URL, CLEARSPAN_KEY, CLEARSPAN_DATASET (three items), CLEARSPAN_EVALUATOR.
Prints one JSON object of what the client understood.
"""

import datetime as dt
import json
import os
import time

from respan import RespanClient
from respan.core.api_error import ApiError

URL, KEY = os.environ["CLEARSPAN_URL"], os.environ["CLEARSPAN_KEY"]
DATASET, EVALUATOR = os.environ["CLEARSPAN_DATASET"], os.environ["CLEARSPAN_EVALUATOR"]
NOW = dt.datetime.now(dt.UTC)
START, END = NOW - dt.timedelta(hours=1), NOW + dt.timedelta(hours=1)
PENDING = {"status": {"operator": "", "value": ["pending"]}}
GOOD = {"status": {"operator": "", "value": ["success"]}, f"scores__{EVALUATOR}": {"operator": "gte", "value": [1]}}
WAIT_S = 30


def status_of(call) -> int:
    try:
        call()
    except ApiError as error:
        return error.status_code or 0
    return 200


def until(found):
    give_up_at = time.monotonic() + WAIT_S
    while not (value := found()):
        if time.monotonic() > give_up_at:
            raise TimeoutError
        time.sleep(0.05)
    return value


def main() -> dict:
    experiments = RespanClient(base_url=URL, authorization=f"Bearer {KEY}", respan_api_key=KEY).experiments
    made = experiments.create_experiment(
        dataset_id=DATASET,
        workflow=[{"type": "wait", "config": {}}, {"type": "eval", "config": {"evaluator_id": EVALUATOR}}],
        evaluator_ids=[EVALUATOR],
        name="run",
        description="d",
        concurrency=4,
    )
    copied = experiments.create_experiment(
        dataset_id=DATASET, workflow=[{"type": "duplicate", "config": {}}], evaluator_slugs=["accuracy"], name="copy"
    )

    def waiting():
        return list(experiments.list_experiment_spans(made.id, page_size=50, filters=PENDING))

    def copies():
        return list(experiments.list_experiment_spans(copied.id, page_size=2, filters=GOOD))

    waits = until(lambda: found if len(found := waiting()) == 3 else None)
    done = until(lambda: found if len(found := copies()) == 3 else None)
    until(lambda: experiments.retrieve_experiment(copied.id).status == "completed")
    listed = list(experiments.list_experiments(page=1, page_size=1, sort_by="-created_at"))
    counted = experiments.filter_experiments_summary(filters={"name": {"operator": "contains", "value": ["cop"]}})
    resumed = experiments.update_experiment_span(
        made.id, waits[0].id, input={"q": 1}, output={"a": 2}, metrics={"cost": 0.01}, metadata={"src": "ext"}
    )
    found = experiments.retrieve_experiment_span(made.id, waits[0].id)
    detailed = list(
        experiments.list_experiment_spans(
            made.id, page_size=50, sort_by="-start_time", start_time=START, end_time=END, detail="1", preview_length=80
        )
    )
    summary = experiments.filter_experiment_spans_summary(copied.id, start_time=START, end_time=END, filters={})
    histogram = experiments.filter_experiment_score_histogram(copied.id, evaluator_id=EVALUATOR, bins=10)
    grader = experiments.filter_experiment_score_histogram(copied.id, evaluator_id=f"{EVALUATOR}:grader", bins=10)
    exported = experiments.list_experiment_spans(copied.id, is_exporting=True)
    replaced = experiments.replace_experiment(made.id, dataset_id=DATASET, name="r2")
    updated = experiments.update_experiment(made.id, name="r3")
    deleted = experiments.delete_experiment(made.id)
    return {
        "made": [made.name, made.description, made.concurrency, made.workflow[0].type, made.evaluator_ids],
        "dataset": [made.dataset_id, made.dataset_name],
        "waiting": [each.status for each in waits],
        "done": sorted([each.output, each.expected_output, each.status] for each in done),
        "score": json.loads(done[0].scores[EVALUATOR].json()),
        "listed": [each.name for each in listed],
        "counted": counted.total_count,
        "resumed": [resumed.id == waits[0].id, resumed.trace_unique_id == waits[0].id, resumed.status],
        "found": [found.output, found.total_cost, found.comparison_key is not None, len(found.span_tree)],
        "detailed": [len(detailed), all(each.span_tree for each in detailed)],
        "summary": [summary.number_of_requests, summary.scores[EVALUATOR].true_count],
        "histogram": [[each.label, each.count] for each in histogram.bins],
        "total": histogram.stats.total,
        "grader": [grader.bins, grader.stats.total],
        "exported": [exported.response.results, exported.response.count],
        "renamed": [replaced.name, replaced.description, updated.name],
        "deleted": deleted,
        "statuses": {
            "deleted": status_of(lambda: experiments.retrieve_experiment(made.id)),
            "unknown_field": status_of(lambda: experiments.list_experiments(filters={"nonsense": {"value": ["x"]}})),
            "no_dataset": status_of(lambda: experiments.create_experiment(
                dataset_id="nope", workflow=[{"type": "duplicate", "config": {}}], evaluator_ids=[EVALUATOR])),
        },
    }  # fmt: skip


print(json.dumps(main(), default=str))
