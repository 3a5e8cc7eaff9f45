"""langsmith's tracing, in every way that its clients send runs.

Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY, MODES (comma-separated, of the keys of `CLIENTS`, or "otel" with
LANGSMITH_TRACING_MODE=otel). Each mode traces the same program into a project of its own, whose name begins with
PROJECT. Prints one JSON object: mode → {"ids": name of the program's part → run id, "sent": requests that were made}.
"""

import asyncio
import contextlib
import json
import os
import warnings
from urllib.parse import urlsplit

from langsmith.run_trees import RunTree
from langsmith.schemas import Attachment
from langsmith.utils import ContextThreadPoolExecutor
from opentelemetry import trace

from langsmith import Client, traceable, tracing_context, utils, uuid7

warnings.simplefilter("ignore")
PICTURE = b"\x89PNG\r\n\x1a\n--not-a-boundary\r\n" + bytes(range(256)) * 4
USAGE = {
    "input_tokens": 11,
    "output_tokens": 3,
    "total_tokens": 14,
    "input_token_details": {"cache_read": 4},
    "input_cost": 0.0011,
    "output_cost": 0.0006,
    "total_cost": 0.0017,
}


@traceable(run_type="retriever")
def find(question):
    return [{"page_content": f"about {question}", "type": "Document", "metadata": {"page": 1}}]


@traceable(run_type="llm", metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"})
def model(messages):
    return {"messages": [{"role": "assistant", "content": "21 degrees"}], "usage_metadata": USAGE}


@traceable(run_type="tool")
def broken(city):
    raise ValueError(f"no weather for {city}")


@traceable(run_type="chain", name="shop", tags=["web", "eu"], metadata={"user_id": "u-1", "plan": "pro"})
def shop(question):
    found = find(question)
    with contextlib.suppress(ValueError):
        broken("Atlantis")
    return model([{"role": "user", "content": found[0]["page_content"]}])["messages"][0]["content"]


@traceable(name="boom")
def boom(question):
    raise RuntimeError("the root fails, too — ✗")


@traceable(name="async_leaf")
async def async_leaf(n):
    await asyncio.sleep(0.001 * n)
    return n


@traceable(name="async_root")
async def async_root(n):
    return sum(await asyncio.gather(*(async_leaf(each) for each in range(n))))


@traceable(name="in_thread")
def in_thread(n):
    return n * n


@traceable(name="threaded")
def threaded(n):
    with ContextThreadPoolExecutor(4) as pool:
        return sum(pool.map(in_thread, range(n)))


@traceable(name="stream", run_type="llm", reduce_fn="".join)
def stream(n):
    yield from (f"token{each} " for each in range(n))


@traceable(name="async_stream", reduce_fn=lambda tokens: {"text": "".join(tokens)})
async def async_stream(n):
    for each in range(n):
        yield f"t{each}"


@traceable(name="with_picture")
def with_picture(question, picture: Attachment):
    return {"bytes": len(picture.data)}


async def drain(extra):
    return [each async for each in async_stream(3, langsmith_extra=extra)]


def late(client, project, run_id):
    """A tree made by hand, whose updates leave after its creates were sent."""
    tree = RunTree(
        id=run_id,
        name="late",
        run_type="chain",
        inputs={"q": "late?"},
        project_name=project,
        ls_client=client,
        extra={"metadata": {"case": project}},
        attachments={"note": ("text/plain", b"kept beside the run")},
    )
    tree.post()
    child = tree.create_child(name="late_child", run_type="tool", inputs={"n": 1})
    child.post()
    client.flush()
    child.end(outputs={"n": 2})
    child.patch()
    tree.add_metadata({"added": "later"})
    tree.add_tags(["late-tag"])
    tree.end(outputs={"a": "late!"})
    tree.patch()


def play(client, project):
    """Run everything once; the id of each root run by its name."""
    names = ("shop", "boom", "async_root", "threaded", "stream", "async_stream", "with_picture", "late")
    ids = {name: uuid7() for name in names}

    def extra(name):
        return {"run_id": ids[name]}

    with tracing_context(enabled=True, client=client, project_name=project, metadata={"case": project}):
        shop("weather?", langsmith_extra=extra("shop"))
        with contextlib.suppress(RuntimeError):
            boom("?", langsmith_extra=extra("boom"))
        asyncio.run(async_root(4, langsmith_extra=extra("async_root")))
        threaded(4, langsmith_extra=extra("threaded"))
        list(stream(3, langsmith_extra=extra("stream")))
        asyncio.run(drain(extra("async_stream")))
        with_picture("?", Attachment("image/png", PICTURE), langsmith_extra=extra("with_picture"))
        late(client, project, ids["late"])
    client.flush()
    return {name: str(run_id) for name, run_id in ids.items()}


def plain():
    os.environ["LANGSMITH_DISABLE_RUN_COMPRESSION"] = "true"
    return Client()


def zstd():
    os.environ["LANGSMITH_DISABLE_RUN_COMPRESSION"] = "false"
    return Client()


def batch():
    config = {"use_multipart_endpoint": False, "size_limit": 100, "size_limit_bytes": 20_971_520}
    config |= {"scale_up_nthreads_limit": 16, "scale_up_qsize_trigger": 1000, "scale_down_nempty_trigger": 4}
    return Client(info={"version": "0.18.0", "batch_ingest_config": config})


CLIENTS = {
    "plain": plain,
    "zstd": zstd,
    "batch": batch,
    "single": lambda: Client(auto_batch_tracing=False),
    "otel": Client,
}


def traced(mode):
    utils.get_env_var.cache_clear()
    client, sent = CLIENTS[mode](), set()

    def note(response, *_, **__):
        request = response.request
        path = urlsplit(request.url).path
        place = path if path.startswith("/runs/") and path.count("/") == 2 and "-" not in path else path[:5]
        sent.add(f"{request.method} {place} {request.headers.get('Content-Encoding', '-')} {response.status_code}")

    client.session.hooks["response"].append(note)
    client.info  # noqa: B018 — asked before the first run, so that every run leaves in the same form
    ids = play(client, f"{os.environ['PROJECT']}-{mode}")
    if mode == "otel":
        trace.get_tracer_provider().force_flush()
    return {"ids": ids, "sent": sorted(sent)}


print(json.dumps({mode: traced(mode) for mode in os.environ["MODES"].split(",")}))
