"""respan-api before 0.1.30, which takes the key with every call: the calls whose paths and bodies differ.

0.1.0 deletes at `/bulk-delete/`, calls the list `list` and has a summary; up to 0.1.20 `operator` goes beside the
filters. Environment: CLEARSPAN_URL, CLEARSPAN_KEY. Prints one JSON object of what the client understood.
"""

import datetime as dt
import json
import os

from respan import RespanClient

URL, KEY = os.environ["CLEARSPAN_URL"], f"Bearer {os.environ['CLEARSPAN_KEY']}"
NOW = dt.datetime.now(dt.UTC)
START, END = NOW - dt.timedelta(hours=3), NOW + dt.timedelta(hours=1)


def span(trace_id: str, cost: float, status: str) -> dict:
    return {
        "trace_unique_id": trace_id,
        "span_unique_id": f"{trace_id}-root",
        "span_name": "call",
        "log_type": "chat",
        "customer_identifier": f"user-{trace_id}",
        "cost": cost,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "status": status,
        "start_time": (NOW - dt.timedelta(seconds=2)).isoformat(),
        "timestamp": NOW.isoformat(),
    }


def main() -> dict:
    traces = RespanClient(base_url=URL).traces
    spans = [span("a", 0.5, "success"), span("b", 0.001, "error"), span("c", 0.001, "success")]
    ingest = getattr(traces, "ingest_traces_from_logs", None) or traces.create_trace_legacy
    ingest(authorization=KEY, request=spans)
    any_of = {
        "total_cost": {"operator": "gt", "value": [0.01]},
        "error_count": {"operator": "gt", "value": [0]},
    }
    list_traces = getattr(traces, "list", None) or traces.list_traces
    answer = {}
    try:
        found = list_traces(authorization=KEY, filters=any_of, operator="OR")
        answer["any_of"] = sorted(each.trace_unique_id for each in found.results)
        both = list_traces(authorization=KEY, filters=any_of, operator="AND")
        answer["all_of"] = [each.trace_unique_id for each in both.results]
    except ValueError as error:  # 0.1.0 wants input and output to be objects; its model refuses text and null
        answer["list_error"] = type(error).__name__
    if hasattr(traces, "retrieve_traces_summary"):
        summary = traces.retrieve_traces_summary(authorization=KEY, filters={})
        answer["summary"] = json.loads(summary.json())
    bulk = traces.bulk_delete_traces(
        authorization=KEY,
        start_time=START.isoformat() if answer.get("summary") else START,
        end_time=END.isoformat() if answer.get("summary") else END,
        filters={"customer_identifier": {"operator": "in", "value": ["user-a", "user-c"]}},
    )
    answer["bulk"] = [bulk.deleted_count, bulk.message]
    left = traces.retrieve_trace("b", authorization=KEY)
    answer["left"] = left["trace_unique_id"] if isinstance(left, dict) else left.trace_unique_id
    traces.delete_trace("b", authorization=KEY)
    return answer


print(json.dumps(main(), default=str))
