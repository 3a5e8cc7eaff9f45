"""respan-api 0.1.47: every method of `datasets` that the server offers, in the order of a life.

Environment: CLEARSPAN_URL, CLEARSPAN_KEY. Prints one JSON object of what the client understood.
"""

import datetime as dt
import json
import os

from respan import RespanClient
from respan.core.api_error import ApiError
from respan.datasets.types import (
    ImportDatasetLogsRequestFiltersValue,
    ListDatasetLogsRequestFiltersValue,
    ListDatasetsRequestFiltersValue,
    RemoveDatasetLogsRequestFiltersValue,
)
from respan.types import DatasetLogCreateRequest

URL, KEY = os.environ["CLEARSPAN_URL"], os.environ["CLEARSPAN_KEY"]
NOW = dt.datetime.now(dt.UTC)
START, END = NOW - dt.timedelta(hours=3), NOW + dt.timedelta(hours=1)
PAGES_MAX = 50  # the pager of this client asks until a page is empty


def status_of(call) -> int:
    try:
        call()
    except ApiError as error:
        return error.status_code or 0
    return 200


def span(trace_id: str, customer: str) -> dict:
    return {
        "trace_unique_id": trace_id,
        "span_unique_id": f"{trace_id}-root",
        "span_name": "answer",
        "log_type": "workflow",
        "input": {"question": trace_id},
        "output": "because",
        "customer_identifier": customer,
        "start_time": (NOW - dt.timedelta(minutes=2)).isoformat(),
        "timestamp": (NOW - dt.timedelta(minutes=1)).isoformat(),
    }


def main() -> dict:
    client = RespanClient(base_url=URL, authorization=f"Bearer {KEY}", respan_api_key=KEY)
    datasets = client.datasets
    client.traces.create_trace_legacy(request=[span("source-1", "ann"), span("source-2", "bob")])

    made = datasets.create_dataset(name="golden", description="first", is_empty=True, granularity="traces")
    one = datasets.create_dataset_log(
        made.id,
        input={"n": 1},
        output="seen",
        expected_output="wanted",
        metadata={"kind": "odd"},
        metrics={"cost": 0.5},
    )
    many = [DatasetLogCreateRequest(input=f"row {n}", expected_output=[n], metadata={"kind": "even"}) for n in range(4)]
    bulk = datasets.bulk_create_dataset_logs(made.id, logs=many)
    imported = datasets.import_dataset_logs(
        made.id,
        start_time=START,
        end_time=END,
        filters={"customer_identifier": ImportDatasetLogsRequestFiltersValue(operator="in", value=["ann"])},
    )
    again = datasets.import_dataset_logs(
        made.id,
        start_time=START,
        end_time=END,
        filters={"customer_identifier": ImportDatasetLogsRequestFiltersValue(operator="in", value=["ann"])},
    )
    kind = {"metadata__kind": ListDatasetLogsRequestFiltersValue(operator="", value=["even"])}
    pages = []
    for number in range(1, PAGES_MAX):
        page = datasets.list_dataset_logs(made.id, page=number, page_size=2, sort_by="timestamp", filters=kind)
        if not page.results:
            break
        pages.append([row.input for row in page.results])
    row = datasets.retrieve_dataset_log(made.id, one.unique_id)
    updated = datasets.update_dataset_log(made.id, one.unique_id, expected_output={"better": True})
    replaced = datasets.replace_dataset_log(made.id, one.unique_id, output="only this")
    summary = datasets.summarize_dataset_logs_filtered(made.id)
    renamed = datasets.update_dataset(made.id, name="silver", starred=True)
    copy = datasets.create_dataset(name="copy", source_dataset_id=made.id)
    named = {"name": ListDatasetsRequestFiltersValue(operator="contains", value="silv")}
    listed = datasets.list_datasets(page=1, page_size=10, filters=named)
    shown = datasets.retrieve_dataset(made.id)

    datasets.delete_dataset_log(made.id, one.unique_id)
    removed = datasets.remove_dataset_logs(
        made.id, filters={"metadata__kind": RemoveDatasetLogsRequestFiltersValue(operator="", value=["even"])}
    )
    left = datasets.list_dataset_logs(made.id)
    emptied = datasets.remove_dataset_logs(made.id, is_deleting_all_logs=True)
    datasets.delete_dataset(made.id)
    return {
        "made": [made.name, made.description, made.status, made.granularity],
        "added": one.message,
        "bulk": [bulk.success_count, bulk.error_count, bulk.errors],
        "imported": [imported.message, again.message],
        "pages": pages,
        "row": [row.input, row.output, row.expected_output, row.metadata, row.cost],
        "updated": [updated.output, updated.expected_output],
        "replaced": [replaced.input, replaced.output, replaced.expected_output, replaced.metadata],
        "summary": [summary.number_of_requests, summary.total_cost],
        "renamed": [renamed.name, renamed.description],
        "copied": [copy.name, datasets.retrieve_dataset(copy.id).log_count],
        "listed": [listed.count, [each.log_count for each in listed.results], shown.log_count],
        "removed": [removed.message, [each.input for each in left.results], emptied.message],
        "names_left": [each.name for each in datasets.list_datasets().results],
        "statuses": {
            "gone": status_of(lambda: datasets.retrieve_dataset(made.id)),
            "gone_again": status_of(lambda: datasets.delete_dataset(made.id)),
            "taken": status_of(lambda: datasets.create_dataset(name="copy", is_empty=True)),
            "no_filter": status_of(lambda: datasets.remove_dataset_logs(copy.id)),
            "eval_reports": status_of(lambda: datasets.list_dataset_eval_runs(copy.id)),
        },
    }


if __name__ == "__main__":
    print(json.dumps(main()))
