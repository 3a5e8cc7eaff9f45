"""langsmith's reads, feedback, sharing, threads and projects, of runs that it sends first.

Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY, PROJECT. Prints one JSON object, what each call gave.
"""

import asyncio
import json
import os
import warnings

from langsmith.schemas import Attachment
from langsmith.utils import LangSmithConflictError, LangSmithNotFoundError

from langsmith import Client, traceable, tracing_context, uuid7

warnings.simplefilter("ignore")
PROJECT = os.environ["PROJECT"]
PICTURE = b"\x89PNG\r\n\x1a\n--not-a-boundary\r\n" + bytes(range(256)) * 4
client = Client()


@traceable(run_type="llm")
def model(text):
    usage = {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14, "total_cost": 0.0017}
    return {"text": text.upper(), "usage_metadata": usage}


@traceable(run_type="tool")
def broken():
    raise ValueError("no weather")


@traceable(name="turn")
def turn(text, picture: Attachment):
    model(text)
    try:
        broken()
    except ValueError:
        return "sorry"


def send():
    """Three turns of a conversation with a customer, oldest first; their run ids."""
    ids = [uuid7() for _ in range(3)]
    for number, run_id in enumerate(ids):
        about = {"user_id": f"u-{number}", "session_id": f"{PROJECT}-thread", "n": number}
        with tracing_context(enabled=True, client=client, project_name=PROJECT, metadata=about, tags=[f"tag{number}"]):
            turn(f"question {number}", Attachment("image/png", PICTURE), langsmith_extra={"run_id": run_id})
    client.flush()
    return ids


def listed(**query):
    """How many runs a query finds, over all pages, and the names among them."""
    found = list(client.list_runs(project_name=PROJECT, **query))
    return [len(found), sorted({run.name for run in found})]


def read_runs(ids):
    run = client.read_run(ids[0], load_child_runs=True)
    picture = run.attachments["picture"]
    return {
        "all": listed(),
        "paged": listed(limit=7),
        "roots": listed(is_root=True),
        "errors": listed(error=True),
        "llm": listed(run_type="llm"),
        "by_metadata": listed(filter='and(eq(metadata_key, "user_id"), eq(metadata_value, "u-1"))'),
        "by_root": listed(filter='eq(run_type, "tool")', trace_filter='has(tags, "tag2")'),
        "by_tree": listed(is_root=True, tree_filter='eq(name, "broken")'),
        "searched": listed(filter='search("QUESTION 2")'),
        "of_trace": [run.name for run in client.list_runs(trace_id=ids[1], order="asc")],
        "by_id": sorted(str(run.id) for run in client.list_runs(id=ids[:2])) == sorted(map(str, ids[:2])),
        "read": [run.name, run.run_type, run.status, run.inputs["text"], run.outputs, sorted(run.tags)],
        "children": [[each.name, each.status, each.error is not None] for each in run.child_runs],
        "tokens": [run.total_tokens, str(run.total_cost)],
        "attachment": [picture["mime_type"], picture["reader"].read() == PICTURE],
        "unknown": raised(LangSmithNotFoundError, client.read_run, uuid7()),
        "stats": {name: client.get_run_stats(project_names=[PROJECT])[name] for name in ("run_count", "total_tokens")},
        "url": client.get_run_url(run=run).endswith(f"/r/{run.id}?poll=true"),
    }


def raised(expected, call, *args, **rest):
    try:
        call(*args, **rest)
    except expected:
        return True
    return False


def feedback(ids):
    """In the foreground and queued; then read, changed and deleted."""
    first = client.create_feedback(ids[0], "helpful", score=0.5, comment="meh", value="so-so")
    queued = client.create_feedback(ids[1], "helpful", score=True, trace_id=ids[1])
    client.flush()
    client.update_feedback(first.id, score=0.9, comment="better")
    doomed = client.create_feedback(ids[2], "doomed", score=0)
    client.delete_feedback(doomed.id)
    found = {each.run_id: each for each in client.list_feedback(run_ids=ids, feedback_key=["helpful", "doomed"])}
    run = client.read_run(ids[0])
    return {
        "ids": [str(first.id), str(queued.id), str(doomed.id)],
        "listed": len(found),
        "changed": [found[ids[0]].score, found[ids[0]].comment, found[ids[0]].value],
        "queued": found[ids[1]].score,
        "stats": run.feedback_stats["helpful"]["n"],
        "filtered": listed(filter='and(eq(feedback_key, "helpful"), gt(feedback_score, 0.8))'),
        "gone": raised(LangSmithNotFoundError, client.read_feedback, doomed.id),
    }


def sharing(ids):
    link = client.share_run(ids[0])
    token = link.rstrip("/").split("/")[-2]
    shared = client.read_shared_run(token)
    out = {
        "token": token,
        "is_shared": client.run_is_shared(ids[0]),
        "shared": [shared.name, str(shared.id) == str(ids[0])],
        "runs": sorted(run.name for run in client.list_shared_runs(token)),
    }
    client.unshare_run(ids[0])
    return {**out, "still_shared": client.run_is_shared(ids[0])}


def threads(ids):
    thread = f"{PROJECT}-thread"
    (item,) = client.list_threads(project_name=PROJECT)
    return {
        "turns": [run.inputs["text"] for run in client.read_thread(thread_id=thread, project_name=PROJECT)],
        "listed": [item["thread_id"] == thread, item["count"], len(item["runs"])],
    }


def projects():
    name = f"{PROJECT}-made"
    made = client.create_project(name, description="a project", metadata={"k": "v"})
    changed = client.update_project(made.id, description="another text")
    counted = client.read_project(project_name=PROJECT, include_stats=True)
    out = {
        "conflict": raised(LangSmithConflictError, client.create_project, name),
        "upsert": client.create_project(name, upsert=True).id == made.id,
        "changed": [changed.name == name, changed.description],
        "listed": [each.name for each in client.list_projects(name_contains=name)],
        "stats": [counted.run_count, counted.total_tokens],
        "has": [client.has_project(name), client.has_project("no such project")],
    }
    client.delete_project(project_name=name)
    return {**out, "deleted": not client.has_project(name)}


async def second_version(ids):
    """The generated client."""
    project, root = str(client.read_project(project_name=PROJECT).id), str(ids[0])
    selects = ["ID", "NAME", "STATUS", "TOTAL_TOKENS", "METADATA"]
    runs = [run async for run in client.runs.query_v2(project_ids=[project], page_size=2, selects=selects)]
    one = await client.runs.retrieve_v2(root, project_id=project, selects=["ID", "NAME", "RUN_TYPE", "OUTPUTS"])
    traces = [each async for each in client.traces.query(project_id=project)]
    in_trace = await client.traces.list_runs(root, project_id=project, selects=["ID", "NAME"])
    conversations = [each async for each in client.threads.query(project_id=project)]
    turns = [
        each async for each in client.threads.list_traces(f"{PROJECT}-thread", project_id=project, selects=["TRACE_ID"])
    ]
    shared = await client.runs.share.create(root, session_id=project, trace_id=root)
    public = await client.public.runs.query(shared.share_token, selects=["ID", "NAME"])
    await client.runs.share.delete(root, session_id=project)
    return {
        "runs": [len(runs), sorted({run.name for run in runs})],
        "read": [one.name, one.run_type, one.outputs],
        "traces": len(traces),
        "in_trace": sorted(run.name for run in in_trace.items),
        "threads": [[each.thread_id == f"{PROJECT}-thread", each.count] for each in conversations],
        "turns": len(turns),
        "public": sorted(run.name for run in public.items),
        "token": shared.share_token,
    }


def main():
    ids = send()
    return {
        "ids": [str(each) for each in ids],
        "runs": read_runs(ids),
        "feedback": feedback(ids),
        "sharing": sharing(ids),
        "threads": threads(ids),
        "projects": projects(),
        "v2": asyncio.run(second_version(ids)),
    }


print(json.dumps(main(), default=str))
