"""Threads by the classic API: grouped runs, and previews of one conversation."""

from __future__ import annotations

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import Json, query_uuid, render_time
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.run_query import (
    LIMIT_MAX,
    read_limit,
    read_run_query,
    scope_of,
    session_uuids,
)
from clearspan.api.langsmith.run_views import cost_text
from clearspan.api.langsmith.runs import loader_for
from clearspan.api.langsmith.thread_scan import (
    Turns,
    content_at,
    contents_of,
    feedback_of,
    figures_of,
    of_thread,
    scan_threads,
)
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.trace import Window
from clearspan.store.spans import SpanOrder

PREVIEW_TURNS: Final = 20
"""Turns of a conversation, the earliest, that its preview tells."""


@requires(Permission.READ)
async def group_runs(request: Request) -> Response:
    """Conversations with their figures, by latest activity. Offset paging, as the classic API has it here."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    if body.get("group_by", "conversation") != "conversation":
        raise InvalidInput("group_by can only be conversation.", fields=("group_by",))
    offset, limit = _offset(body), read_limit(body)
    query, sessions = read_run_query(body | {"limit": LIMIT_MAX, "cursor": None}), session_uuids(body)

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, sessions))
        where = query.where(services, loader.scope)
        threads = list(scan_threads(loader, where, query.window).values())
        page = threads[offset : offset + limit]
        edges = [each for turns in page for each in (turns.first, turns.last, turns.last_failed) if each is not None]
        contents, said = contents_of(loader, edges), feedback_of(loader, page)
        groups = []
        for turns in page:
            first, last = content_at(contents, turns.first), content_at(contents, turns.last)
            failed = content_at(contents, turns.last_failed)
            groups.append(
                _group(turns, said[turns.thread_id])
                | {
                    "first_inputs": first and first.inputs_preview,
                    "last_outputs": last and last.outputs_preview,
                    "last_error": failed and failed.error,
                }
            )
        return {"groups": groups, "total": len(threads)}

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def preview_thread(request: Request) -> Response:
    """The beginning of a conversation as text: all of it, in pairs, and its first question with its last answer."""
    services, principal = services_of(request), principal_of(request)
    thread_id, session = request.path_params["thread_id"], query_uuid(request.query_params, "session_id")

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, [session] if session else []))
        where = of_thread(thread_id)
        page = loader.page(where, Window(), SpanOrder.START_ASC, None, PREVIEW_TURNS, records=False)
        if not page.rows:
            raise NotFound("Thread not found")
        newest = loader.page(where, Window(), SpanOrder.START_DESC, None, 1, records=False).rows
        contents = contents_of(loader, [*page.rows, *newest])
        told = [content for row in page.rows if (content := content_at(contents, row)) is not None]
        pairs = [_pair(content.inputs_preview, content.outputs_preview) for content in told]
        last = content_at(contents, newest[0]) if newest else None
        previews = {
            "all_messages": "\n\n".join(pairs),
            "human_ai_pairs": "\n\n".join(pairs),
            "first_human_last_ai": _pair(
                told[0].inputs_preview if told else None, last.outputs_preview if last is not None else None
            ),
        }
        return {"thread_id": thread_id, "previews": previews}

    return json_reply(await services.reads.run(read))


def _group(turns: Turns, feedback: Json) -> Json:
    figures = figures_of(turns.rows)
    return {
        "group_key": turns.thread_id,
        "filter": f"eq(thread_id, {json.dumps(turns.thread_id)})",
        "count": figures.turns,
        "total_tokens": figures.total_tokens or 0,
        "prompt_tokens": figures.prompt_tokens or 0,
        "completion_tokens": figures.completion_tokens or 0,
        "total_cost": cost_text(figures.cost_pico),
        "prompt_cost": None,
        "completion_cost": None,
        "min_start_time": render_time(figures.first_start_ns),
        "max_start_time": render_time(figures.last_start_ns),
        "latency_p50": figures.latency_s[0],
        "latency_p99": figures.latency_s[1],
        "feedback_stats": feedback,
    }


def _pair(asked: str | None, answered: str | None) -> str:
    lines = [f"human: {asked}" if asked else "", f"ai: {answered}" if answered else ""]
    return "\n".join(line for line in lines if line)


def _offset(body: Json) -> int:
    offset = body.get("offset") or 0
    if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
        raise InvalidInput("offset must be a whole number.", fields=("offset",))
    return offset


ROUTES: Final[tuple[RestRoute, ...]] = (
    classic("POST", "/runs/group", group_runs),
    classic("GET", "/runs/threads/{thread_id}", preview_thread),
)
