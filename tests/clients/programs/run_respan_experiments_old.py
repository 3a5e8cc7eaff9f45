"""respan-api 0.1.0 to 0.1.25: experiments with `workflows` and `custom` steps, the key with every call.

Environment: CLEARSPAN_URL, CLEARSPAN_KEY, CLEARSPAN_DATASET (three items), CLEARSPAN_EVALUATOR.
Prints one JSON object of what the client understood.
"""

import datetime as dt
import json
import os
import time

from respan import RespanClient

URL, KEY = os.environ["CLEARSPAN_URL"], f"Bearer {os.environ['CLEARSPAN_KEY']}"
DATASET, EVALUATOR = os.environ["CLEARSPAN_DATASET"], os.environ["CLEARSPAN_EVALUATOR"]
NOW = dt.datetime.now(dt.UTC)
WINDOW = {
    "start_time": (NOW - dt.timedelta(hours=1)).isoformat(),
    "end_time": (NOW + dt.timedelta(hours=1)).isoformat(),
}
WAIT_S = 30


def main() -> dict:
    experiments = RespanClient(base_url=URL).experiments
    made = experiments.create_experiment(
        authorization=KEY,
        name="n",
        dataset_id=DATASET,
        workflows=[{"type": "custom", "config": {"allow_submission": True, "timeout_hours": 24}}],
        evaluator_slugs=["accuracy"],
    )
    list_spans = getattr(experiments, "search_experiment_spans", None) or experiments.list_experiment_spans
    list_all = getattr(experiments, "search_experiment", None) or experiments.list_experiments
    pending = {"status": {"operator": "", "value": ["pending"]}}
    give_up_at = time.monotonic() + WAIT_S
    while len(found := list_spans(made.id, authorization=KEY, filters=pending)["results"]) < 3:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    log_id = found[0]["id"]
    listed = list_all(authorization=KEY, filters={"name": {"operator": "", "value": ["n"]}})
    shown = experiments.retrieve_experiment(made.id, authorization=KEY)
    resumed = experiments.update_experiment_span(
        made.id, log_id, authorization=KEY, request={"input": {"q": 1}, "output": {"a": 1}, "metadata": {"k": "v"}}
    )
    span = experiments.retrieve_experiment_span(made.id, log_id, authorization=KEY)
    summary = experiments.get_experiment_spans_summary(made.id, authorization=KEY, **WINDOW)
    exported = list(
        experiments.export_experiment_spans(
            made.id, authorization=KEY, export="1", page=1, page_size=100, sort_by="-start_time", **WINDOW
        )
    )
    experiments.delete_experiment(made.id, authorization=KEY)
    left = list_all(authorization=KEY)
    return {
        "made": [made.name, made.workflows[0].type, made.evaluator_slugs, made.dataset_id == DATASET],
        "listed": [[each["id"] == made.id, each["name"]] for each in listed["results"]],
        "shown": [shown["id"] == made.id, shown["workflows"][0]["config"]],
        "resumed": resumed["status"],
        "span": [json.loads(span["output"]), span["status"], len(span["span_tree"])],
        "summary": summary["number_of_requests"],
        "exported": exported,
        "left": left["count"],
    }


print(json.dumps(main(), default=str))
