"""respan-api, versions with one client-wide key (0.1.40 and later): every traces method, in the order of a life.

Environment: CLEARSPAN_URL, CLEARSPAN_KEY. Prints one JSON object of what the client understood.
"""

import datetime as dt
import json
import os

from respan import RespanClient
from respan.core.api_error import ApiError
from respan.types import TraceBulkDeleteFilters, TraceFilterCondition

URL, KEY = os.environ["CLEARSPAN_URL"], os.environ["CLEARSPAN_KEY"]
NOW = dt.datetime.now(dt.UTC)
START, END = NOW - dt.timedelta(hours=3), NOW + dt.timedelta(hours=1)


def legacy_span(trace_id: str, customer: str, hours_ago: float = 0.0) -> dict:
    end = NOW - dt.timedelta(hours=hours_ago)
    return {
        "trace_unique_id": trace_id,
        "span_unique_id": f"{trace_id}-root",
        "span_name": "answer",
        "span_workflow_name": "support",
        "log_type": "workflow",
        "input": {"question": "why"},
        "output": "because",
        "customer_identifier": customer,
        "metadata": {"plan": "pro"},
        "start_time": (end - dt.timedelta(seconds=2)).isoformat(),
        "timestamp": end.isoformat(),
        "status": "success",
    }


def otlp_span(trace_id: str) -> list:
    start_ns = int((NOW - dt.timedelta(minutes=5)).timestamp() * 1e9)
    span = {
        "traceId": trace_id,
        "spanId": "b7ad6b7169203331",
        "name": "chat gpt-4o-mini",
        "kind": 3,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + 1_500_000_000),
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o-mini"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "11"}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "7"}},
        ],
        "status": {"code": 1},
    }
    return [{"scopeSpans": [{"scope": {"name": "test"}, "spans": [span]}]}]


def status_of(call) -> int:
    try:
        call()
    except ApiError as error:
        return error.status_code or 0
    return 200


def main() -> dict:
    client = RespanClient(base_url=URL, authorization=f"Bearer {KEY}", respan_api_key=KEY)
    traces = client.traces
    anonymous = RespanClient(base_url=URL, authorization="Bearer wrong", respan_api_key="wrong").traces
    ids = [f"life-{n}" for n in range(4)]
    otlp_id = "0af7651916cd43dd8448eb211c80319c"

    message = traces.create_trace_legacy(request=[legacy_span(each, f"user-{n}") for n, each in enumerate(ids)]).message
    partial = traces.create_trace(resource_spans=otlp_span(otlp_id)).partial_success
    old = legacy_span("life-old", "user-old", hours_ago=2)
    traces.create_trace_legacy(request={"data": [old]})

    listed = traces.list_traces()
    page = traces.list_traces(page=2, page_size=2, start_time=START, end_time=END, sort_by="timestamp")
    past = traces.list_traces(page=99, start_time=START, end_time=END)
    found = traces.list_traces(
        start_time=START, end_time=END, filters={"customer_identifier": {"operator": "in", "value": ["user-2"]}}
    )
    one = traces.retrieve_trace(otlp_id)
    shared = traces.share_trace(ids[0], is_public=True)
    public = anonymous.retrieve_public_trace(one.unique_organization_id, ids[0])
    unshared = traces.share_trace(ids[0], is_public=False)
    gone = status_of(lambda: anonymous.retrieve_public_trace(one.unique_organization_id, ids[0]))

    none_matched = traces.bulk_delete_traces(
        filters=TraceBulkDeleteFilters(trace_unique_id=TraceFilterCondition(operator="in", value=["life-old"]))
    )
    bulk = traces.bulk_delete_traces(
        start_time=START,
        end_time=END,
        filters=TraceBulkDeleteFilters(
            trace_unique_id=TraceFilterCondition(operator="in", value=[ids[0], ids[1], "life-old"])
        ),
    )
    again = traces.bulk_delete_traces(
        start_time=START,
        end_time=END,
        filters=TraceBulkDeleteFilters(trace_unique_id=TraceFilterCondition(value=[ids[0], ids[1]])),
    )
    deleted_one = traces.delete_trace(ids[2])
    unknown = traces.delete_trace("never-seen")
    return {
        "ingest_message": message,
        "partial_success": partial and partial.rejected_spans,
        "listed": sorted(each.trace_unique_id for each in listed.results),
        "listed_count": listed.count,
        "page": [each.trace_unique_id for each in page.results],
        "page_links": [bool(page.next), bool(page.previous)],
        "past": [past.count, past.results],
        "found": [each.customer_identifier for each in found.results],
        "found_item": json.loads(found.results[0].json()),
        "tree": [[node.span_name, node.log_type, node.model, node.prompt_tokens] for node in one.span_tree],
        "llm_call_count": one.llm_call_count,
        "shared": [shared.trace_unique_id, shared.is_public, unshared.is_public],
        "public": [public.trace_unique_id, public.customer_identifier, public.metadata, public.output],
        "public_after_unshare": gone,
        "none_matched": [none_matched.deleted_count, none_matched.message],
        "bulk": [bulk.success_count, bulk.error_count, bulk.errors, bulk.deleted_count, bulk.message],
        "again": [again.deleted_count, again.message],
        "deleted_one": deleted_one.message,
        "unknown": unknown.message,
        "left": sorted(each.trace_unique_id for each in traces.list_traces(start_time=START, end_time=END).results),
        "statuses": {
            "wrong_key": status_of(lambda: anonymous.list_traces()),
            "unknown_field": status_of(lambda: traces.list_traces(filters={"nonsense": {"value": ["x"]}})),
            "page_size": status_of(lambda: traces.list_traces(page_size=1001)),
            "deleted": status_of(lambda: traces.retrieve_trace(ids[0])),
        },
    }


print(json.dumps(main(), default=str))
