"""Every method of Phoenix's Python client that this server serves.

Environment: PHOENIX_COLLECTOR_ENDPOINT, PHOENIX_API_KEY; PROJECT. Prints what each method told, as JSON.
"""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta

import httpx
import pandas
from phoenix.client import AsyncClient, Client
from phoenix.client.exceptions import SpanCreationError
from phoenix.client.helpers.spans import get_input_output_context, get_retrieved_documents
from phoenix.client.types.spans import SpanQuery

PROJECT = os.environ["PROJECT"]
client = Client(base_url=os.environ["PHOENIX_COLLECTOR_ENDPOINT"], api_key=os.environ["PHOENIX_API_KEY"])
now = datetime.now(UTC).replace(microsecond=123000)
TRACES = [format(0xA0 + n, "032x") for n in range(3)]
ROOTS = [format(0xA0 + n, "016x") for n in range(3)]
CALLS = [format(0xB0 + n, "016x") for n in range(3)]


def status_of(call, *arguments, **named):
    """The status of the error that a call raises."""
    try:
        call(*arguments, **named)
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return None


def span(number, *, is_call):
    start = now - timedelta(minutes=10 - number) + timedelta(seconds=1 if is_call else 0)
    attributes = {"session.id": f"{PROJECT}-session-{number // 2}", "user.id": f"user-{number}"}
    if is_call:
        attributes |= {
            "retrieval.documents.0.document.content": "rain",
            "llm.model_name": "gpt-4o-mini",
            "llm.token_count.prompt": 11,
            "llm.token_count.completion": 3,
        }
    else:
        attributes |= {"input.value": f"question {number}", "output.value": f"answer {number}"}
    return {
        "name": "call" if is_call else "turn",
        "context": {"trace_id": TRACES[number], "span_id": (CALLS if is_call else ROOTS)[number]},
        "parent_id": ROOTS[number] if is_call else None,
        "span_kind": "LLM" if is_call else "CHAIN",
        "start_time": start.isoformat(),
        "end_time": (start + timedelta(seconds=1 if is_call else 3)).isoformat(),
        "status_code": "ERROR" if is_call and number == 2 else "OK",
        "attributes": attributes,
    }


def project_calls():
    made = client.projects.create(name=f"{PROJECT}-made", description="d")
    changed = client.projects.update(project_id=made["id"], description="e")
    got = client.projects.get(project_name=f"{PROJECT}-made")
    named = [each["name"] for each in client.projects.list(name_contains="-MADE")]
    client.projects.delete(project_name=f"{PROJECT}-made")
    return {
        "made": [made["name"], made["description"], changed["description"], got["id"] == made["id"]],
        "listed": named,
        "taken": status_of(client.projects.create, name=PROJECT),
        "absent": status_of(client.projects.get, project_name=f"{PROJECT}-made"),
        "by_id": client.projects.get(project_id=client.projects.get(project_name=PROJECT)["id"])["name"],
    }


def span_calls():
    spans = [span(number, is_call=is_call) for number in range(3) for is_call in (False, True)]
    logged = client.spans.log_spans(project_identifier=PROJECT, spans=spans[:4])
    try:
        client.spans.log_spans(project_identifier=PROJECT, spans=spans[:1])
        duplicate = None
    except SpanCreationError as error:
        duplicate = [error.total_duplicates, error.total_queued]
    frame = pandas.DataFrame(
        [
            {
                "name": each["name"],
                "span_kind": each["span_kind"],
                "parent_id": each["parent_id"],
                "start_time": each["start_time"],
                "end_time": each["end_time"],
                "status_code": each["status_code"],
                "status_message": "",
                "context.trace_id": each["context"]["trace_id"],
                "context.span_id": each["context"]["span_id"],
                **{f"attributes.{key}": value for key, value in each["attributes"].items()},
            }
            for each in spans[4:]
        ]
    )
    framed = client.spans.log_spans_dataframe(project_identifier=PROJECT, spans_dataframe=frame)

    def names(**filters):
        found = client.spans.get_spans(project_identifier=PROJECT, **filters)
        return sorted([each["name"], TRACES.index(each["context"]["trace_id"])] for each in found)

    whole = client.spans.get_spans_dataframe(project_identifier=PROJECT)
    asked = client.spans.get_spans_dataframe(
        query=SpanQuery().where("span_kind == 'LLM'").select("name", "llm.model_name"),
        project_identifier=PROJECT,
    )

    def frame_of(query):
        return client.spans.get_spans_dataframe(query=query, project_identifier=PROJECT)

    documents = frame_of(SpanQuery().explode("retrieval.documents", content="document.content"))
    joined = frame_of(SpanQuery().concat("retrieval.documents", text="document.content").with_index("trace_id"))
    renamed = frame_of(
        SpanQuery().where("parent_id is None").select("name").rename(name="title").with_index("trace_id")
    )
    return {
        "exploded": [list(documents.index.names), sorted(documents["content"])],
        "joined": [joined.index.name, sorted(joined["text"])],
        "renamed": [list(renamed.columns), sorted(renamed.index) == TRACES],
        "logged": [logged, framed, duplicate],
        "all": names(),
        "two": len(client.spans.get_spans(project_identifier=PROJECT, limit=2)),
        "window": names(start_time=now - timedelta(minutes=9, seconds=30), end_time=now - timedelta(minutes=8.5)),
        "trace": names(trace_ids=[TRACES[1]]),
        "span": names(span_ids=[CALLS[0], ROOTS[2]]),
        "roots": names(parent_id="null"),
        "name": names(name="call"),
        "kind": names(span_kind="llm"),
        "status": names(status_code="ERROR"),
        "attribute": names(attributes={"user.id": "user-1"}),
        "frame": [len(whole), sorted(set(whole["name"])), whole.index.name],
        "roots_frame": len(client.spans.get_spans_dataframe(project_identifier=PROJECT, root_spans_only=True)),
        "asked": [sorted(asked.columns), sorted(set(asked["llm.model_name"])), len(asked)],
        "absent": status_of(client.spans.get_spans, project_identifier="no-such"),
    }


def helper_calls():
    """The client's helpers for judging retrieval, on a project of their own."""
    trace_id, project = format(0xF0, "032x"), f"{PROJECT}-rag"
    root, retriever = span(0, is_call=False), span(0, is_call=True)
    for each, number in ((root, 0xF1), (retriever, 0xF2)):
        each["context"] = {"trace_id": trace_id, "span_id": format(number, "016x")}
    documents = {
        f"retrieval.documents.{n}.document.{name}": value
        for n, text in enumerate(("rain", "sun"))
        for name, value in (("content", text), ("score", 0.5 + n))
    }
    retriever |= {"name": "search", "span_kind": "RETRIEVER", "parent_id": root["context"]["span_id"]}
    retriever["attributes"] = {"input.value": "weather?", **documents}
    del root["attributes"]["session.id"]
    client.spans.log_spans(project_identifier=project, spans=[root, retriever])
    found = get_retrieved_documents(client, project_identifier=project)
    asked = get_input_output_context(client, project_identifier=project)
    return {
        "documents": [found["input"].tolist(), found["document"].tolist(), found["document_score"].tolist()],
        "questions": [asked["input"].tolist(), asked["output"].tolist(), asked["context"].tolist()],
    }


async def asked_together():
    """The asynchronous client, many calls at once."""
    client = AsyncClient(base_url=os.environ["PHOENIX_COLLECTOR_ENDPOINT"], api_key=os.environ["PHOENIX_API_KEY"])
    found = await asyncio.gather(
        *(client.spans.get_spans(project_identifier=PROJECT, trace_ids=[each]) for each in TRACES),
        client.traces.get_traces(project_identifier=PROJECT),
        client.sessions.list(project_name=PROJECT),
        client.projects.list(),
    )
    return [len(each) for each in found[:-1]]


def annotation(target, value, name, **rest):
    return {target: value, "name": name, "annotator_kind": "LLM", "result": {"label": "good", "score": 0.5}, **rest}


def annotation_calls():
    one = client.spans.add_span_annotation(
        span_id=ROOTS[0], annotation_name="one", annotator_kind="HUMAN", label="good", score=1.0, sync=True,
        metadata={"a": 1}, identifier="first",
    )  # fmt: skip
    again = client.spans.add_span_annotation(
        span_id=ROOTS[0], annotation_name="one", label="bad", identifier="first", sync=True
    )
    many = client.spans.log_span_annotations(
        span_annotations=[annotation("span_id", each, "many") for each in ROOTS], sync=True
    )
    client.spans.log_span_annotations(span_annotations=[annotation("span_id", ROOTS[1], "queued")])
    frame = pandas.DataFrame({"span_id": ROOTS[:2], "label": ["x", "y"], "score": [0.1, 0.2]})
    framed = client.spans.log_span_annotations_dataframe(
        dataframe=frame, annotation_name="framed", annotator_kind="CODE", sync=True
    )
    note = client.spans.add_span_note(span_id=ROOTS[2], note="look at this")
    found = client.spans.get_span_annotations(span_ids=ROOTS, project_identifier=PROJECT)
    noted = client.spans.get_span_annotations(
        span_ids=ROOTS, project_identifier=PROJECT, include_annotation_names=["note"], exclude_annotation_names=[]
    )
    table = client.spans.get_span_annotations_dataframe(span_ids=ROOTS, project_identifier=PROJECT)
    traces = [
        client.traces.add_trace_annotation(trace_id=TRACES[0], annotation_name="t", label="l", sync=True),
        *client.traces.log_trace_annotations(trace_annotations=[annotation("trace_id", TRACES[1], "t")], sync=True),
        *client.traces.log_trace_annotations_dataframe(
            dataframe=pandas.DataFrame({"trace_id": TRACES[:1], "score": [0.3]}), annotation_name="u",
            annotator_kind="CODE", sync=True,
        ),
    ]  # fmt: skip
    session = f"{PROJECT}-session-0"
    sessions = [
        client.sessions.add_session_annotation(session_id=session, annotation_name="s", score=0.9, sync=True),
        *client.sessions.log_session_annotations(
            session_annotations=[annotation("session_id", session, "s2")], sync=True
        ),
        *client.sessions.log_session_annotations_dataframe(
            dataframe=pandas.DataFrame({"session_id": [session], "label": ["l"]}), annotation_name="s3",
            annotator_kind="CODE", sync=True,
        ),
    ]  # fmt: skip
    documents = [
        client.spans.add_document_annotation(
            span_id=CALLS[0], document_position=0, annotation_name="d", score=0.1, sync=True
        ),
        *client.spans.log_document_annotations(
            document_annotations=[annotation("span_id", CALLS[0], "d2", document_position=0)], sync=True
        ),
        *client.spans.log_document_annotations_dataframe(
            dataframe=pandas.DataFrame({"span_id": CALLS[:1], "document_position": [0], "score": [0.2]}),
            annotation_name="d3", annotator_kind="CODE", sync=True,
        ),
    ]  # fmt: skip
    return {
        "documents": [1 if each["id"] else 0 for each in documents],
        "same": one["id"] == again["id"],
        "many": [len(many), len(framed), bool(note["id"])],
        "found": sorted([each["name"], ROOTS.index(each["span_id"])] for each in found),
        "replaced": [each["result"]["label"] for each in found if each["name"] == "one"],
        "noted": [each["result"]["explanation"] for each in noted],
        "table": len(table),
        "traces": len({each["id"] for each in traces}),
        "sessions": len({each["id"] for each in sessions}),
        "absent": status_of(
            client.spans.add_span_annotation, span_id="f" * 16, annotation_name="x", label="l", sync=True
        ),
    }


def trace_calls():
    def found(**asked):
        return [
            TRACES.index(each["trace_id"]) for each in client.traces.get_traces(project_identifier=PROJECT, **asked)
        ]

    [first] = client.traces.get_traces(project_identifier=PROJECT, include_spans=True, order="asc", limit=1)
    return {
        "all": found(),
        "oldest": found(order="asc", limit=2),
        "session": found(session_id=f"{PROJECT}-session-0"),
        "error": found(error=True),
        "slow": found(min_latency_ms=60_000),
        "with_spans": sorted(each["name"] for each in first["spans"]),
        "tokens": first["token_count_total"],
    }


def session_calls():
    listed = client.sessions.list(project_name=PROJECT)
    got = client.sessions.get(session_id=f"{PROJECT}-session-0")
    turns = client.sessions.get_session_turns(session_id=f"{PROJECT}-session-0")
    frame = client.sessions.get_sessions_dataframe(project_name=PROJECT)
    client.sessions.delete(session_id=f"{PROJECT}-session-0")
    left = [each["session_id"] for each in client.sessions.list(project_name=PROJECT)]
    client.sessions.bulk_delete(session_ids=[f"{PROJECT}-session-1", "no-such"])
    return {
        "listed": [each["session_id"] for each in listed],
        "got": [len(got["traces"]), got["token_count_total"]],
        "turns": [[each["input"]["value"], each["output"]["value"]] for each in turns],
        "frame": len(frame),
        "left": left,
        "gone": [len(client.sessions.list(project_name=PROJECT)), status_of(client.sessions.get, session_id="none")],
    }


if os.environ["PART"] == "fill":
    seen = {"spans": span_calls(), "projects": project_calls(), "annotations": annotation_calls(), "traces": TRACES}
else:
    seen = {
        "async": asyncio.run(asked_together()),
        "helpers": helper_calls(),
        "traces": trace_calls(),
        "deleting_one_span": status_of(client.spans.delete, span_identifier=CALLS[1]),
        "sessions": session_calls(),
    }
print(json.dumps(seen))
