"""Threads by v2: conversations of a project, their turns, and figures over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.inputs import Json, optional_text, optional_texts, read_count, render_time, uuid_text
from clearspan.api.langsmith.paths import v2
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.langsmith.run_cursor import decode_cursor, decode_place, encode_cursor, encode_place
from clearspan.api.langsmith.run_loading import Loader
from clearspan.api.langsmith.run_query import all_of, read_page_size, read_run_query_v2, read_window_v2, scope_of
from clearspan.api.langsmith.run_views import needs_of, render_run_v2, shown_trace_id
from clearspan.api.langsmith.runs import loader_for, run_id_at, run_reply
from clearspan.api.langsmith.thread_scan import (
    Figures,
    Turns,
    content_at,
    contents_of,
    feedback_of,
    figures_of,
    of_thread,
    scan_threads,
    scan_turns,
)
from clearspan.api.langsmith.v2_inputs import declined, not_available, read_project
from clearspan.api.routing import RestRoute
from clearspan.api.services import services_of
from clearspan.model.errors import InvalidPage, NotFound
from clearspan.model.trace import Window
from clearspan.model.usage import usd_from_pico
from clearspan.query.ast import Expr
from clearspan.store.spans import SpanOrder, SpanRow

SIZE_MAX: Final = 100
SIZE_DEFAULT: Final = 20
_OPS: Final = ("LLM", "TOOL", "CHAIN", "RETRIEVER", "EMBEDDING", "PROMPT", "PARSER")
_FILTERS: Final = ("filter", "trace_filter", "tree_filter")


@requires(Permission.READ)
async def query_threads_v2(request: Request) -> Response:
    """A page of conversations, by latest activity."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    if (refusal := declined(request, body)) is not None:
        return refusal
    project, window = read_project(body), read_window_v2(body, services.clock.now_ns())
    turns_are, threads_have = _threads_asked(body)
    size, after = read_page_size(body, SIZE_DEFAULT, SIZE_MAX), _read_place(optional_text(body, "cursor"))

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, [project]))
        threads = _threads(loader, turns_are, threads_have, window)
        rest = [turns for turns in threads if after is None or _place(turns) < after]
        page = rest[:size]
        cursor = encode_place("t", *_place(page[-1])) if len(rest) > len(page) else None
        return {"items": _summaries(loader, page), "next_cursor": cursor}

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def list_thread_traces_v2(request: Request) -> Response:
    """A page of the turns of a conversation, the earliest first."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    if (refusal := declined(request, query)) is not None:
        return refusal
    thread_id, project = request.path_params["thread_id"], read_project(query)
    size = read_count(query, "page_size", SIZE_DEFAULT, least=1, most=SIZE_MAX)
    columns = [name.upper() for name in query.getlist("selects")] or ["TRACE_ID"]
    more, order = _expr(query, *_FILTERS), SpanOrder.START_ASC
    after = decode_cursor(query.get("cursor"), order)

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, [project]))
        where = all_of([of_thread(thread_id), *([] if more is None else [more])])
        names = [_OF_RUN.get(name, name) for name in columns]
        needs = needs_of(names)
        page = loader.page(where, Window(), order, after, size, records=needs.content)
        numbers = _turn_numbers(loader, thread_id) if "TURN_NUMBER" in columns else {}
        items = []
        for row, facts in zip(page.rows, loader.facts(page.rows, needs), strict=True):
            told = render_run_v2(facts, names)
            special = {
                "THREAD_ID": thread_id,
                "TRACE_ID": uuid_text(shown_trace_id(row)),
                "LATENCY": told.get("latency_seconds"),
                "OP": _OPS.index(told["run_type"]) if "run_type" in told else None,
                "TURN_NUMBER": numbers.get(run_id_at(row)),
            }
            items.append({name.lower(): special.get(name, told.get(name.lower())) for name in columns})
        return {"items": items, "next_cursor": encode_cursor(page.after, order)}

    return run_reply(await services.reads.run(read))


@requires(Permission.READ)
async def read_thread_stats_v2(request: Request) -> Response:
    """Figures of one conversation."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    thread_id = request.path_params["thread_id"]
    project = read_project(query, "session_id" if query.get("session_id") else "project_id")
    more, selects = _expr(query, "filter"), [name.upper() for name in query.getlist("selects")]

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, [project]))
        where = all_of([of_thread(thread_id), *([] if more is None else [more])])
        turns = Turns(thread_id, list(scan_turns(loader, where, Window())))
        if not turns.rows:
            raise NotFound("Thread not found")
        told = _thread_stats(figures_of(turns.rows))
        if not selects or "FEEDBACK_STATS" in selects:
            told["feedback_stats"] = feedback_of(loader, [turns])[thread_id]
        return {name: told[name] for name in told if not selects or _select_of(name) in selects}

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def query_thread_stats_v2(request: Request) -> Response:
    """Figures over all conversations that match."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    if (refusal := declined(request, body)) is not None:
        return refusal
    project, window = read_project(body), read_window_v2(body, services.clock.now_ns())
    selects = [name.upper() for name in optional_texts(body, "select") or ()]
    turns_are, threads_have = _threads_asked(body)

    def read() -> Json:
        loader = loader_for(services, principal, scope_of(services, principal, [project]))
        threads = _threads(loader, turns_are, threads_have, window)
        told = _aggregate_stats(len(threads), figures_of([row for turns in threads for row in turns.rows]))
        return {name: told[name] for name in told if not selects or _select_of(name) in selects}

    return json_reply(await services.reads.run(read))


@requires(Permission.ANNOTATE)
async def share_thread_v2(request: Request) -> Response:
    """Not here: a link belongs to one trace and ends with it, and a conversation goes on."""
    return not_available(request, "A thread cannot be shared as a whole; share its traces one by one.")


@requires(Permission.READ)
async def read_thread_share_v2(request: Request) -> Response:
    """A conversation never has a link."""
    raise NotFound("This thread is not shared.")


@requires(Permission.ANNOTATE)
async def unshare_thread_v2(request: Request) -> Response:
    """There is nothing to end, and that is well."""
    return Response(status_code=204)


def _threads_asked(body: Json) -> tuple[Expr | None, Expr | None]:
    """(what a turn must satisfy to count, what some turn must satisfy for its thread to count)."""
    return _expr(body, "filter"), _expr(body, "trace_filter", "tree_filter")


def _expr(said: Mapping[str, Any], *names: str) -> Expr | None:
    texts = {name: said.get(name) for name in names}
    return all_of(read_run_query_v2(texts, 0, default_size=1, most=1).parts)


def _threads(loader: Loader, turns_are: Expr | None, threads_have: Expr | None, window: Window) -> list[Turns]:
    """The threads by latest activity, newest first; ties by thread id."""
    found = scan_threads(loader, turns_are, window)
    if threads_have is not None:
        having = scan_threads(loader, threads_have, window)
        found = {thread_id: turns for thread_id, turns in found.items() if thread_id in having}
    return sorted(found.values(), key=_place, reverse=True)


def _place(turns: Turns) -> tuple[int, str]:
    return turns.last.detail.span.start_ns, turns.thread_id


def _read_place(text: str | None) -> tuple[int, str] | None:
    if not text:
        return None
    kind, *place = decode_place(text)
    if kind == "t" and len(place) == 2:
        start_ns, thread_id = place
        if isinstance(start_ns, int) and isinstance(thread_id, str):
            return start_ns, thread_id
    raise InvalidPage("This cursor does not belong to this query; begin without one.", fields=("cursor",))


def _summaries(loader: Loader, page: list[Turns]) -> list[Json]:
    edges = [row for turns in page for row in (turns.first, turns.last, turns.last_failed) if row is not None]
    contents, said = contents_of(loader, edges), feedback_of(loader, page)
    items = []
    for turns in page:
        figures = figures_of(turns.rows)
        first, last = content_at(contents, turns.first), content_at(contents, turns.last)
        failed = content_at(contents, turns.last_failed)
        items.append({
            "thread_id": turns.thread_id,
            "count": figures.turns,
            "trace_id": uuid_text(shown_trace_id(turns.last)),
            "first_trace_id": uuid_text(shown_trace_id(turns.first)),
            "last_trace_id": uuid_text(shown_trace_id(turns.last)),
            "first_inputs": first and first.inputs_preview,
            "last_outputs": last and last.outputs_preview,
            "last_error": failed and failed.error,
            "start_time": render_time(figures.last_start_ns),
            "min_start_time": render_time(figures.first_start_ns),
            "max_start_time": render_time(figures.last_start_ns),
            "latency_p50": figures.latency_s[0],
            "latency_p99": figures.latency_s[1],
            "num_errored_turns": figures.errors,
            "total_tokens": figures.total_tokens,
            "total_cost": usd_from_pico(figures.cost_pico),
            "total_token_details": _details(figures.cached_tokens, figures.reasoning_tokens),
            "feedback_stats": said[turns.thread_id],
        })  # fmt: skip
    return items


def _details(cached: int | None, reasoning: int | None) -> Json:
    counts = {"cache_read": cached, "reasoning": reasoning}
    return {name: count for name, count in counts.items() if count is not None}


def _turn_numbers(loader: Loader, thread_id: str) -> dict[str, int]:
    """Run id → its position in the conversation, from 1."""
    rows: list[SpanRow] = list(scan_turns(loader, of_thread(thread_id), Window()))
    rows.sort(key=lambda row: (row.detail.span.start_ns, shown_trace_id(row)))
    return {run_id_at(row): number for number, row in enumerate(rows, 1)}


_OF_RUN: Final = {"OP": "RUN_TYPE", "LATENCY": "LATENCY_SECONDS"}


def _select_of(name: str) -> str:
    return name.removesuffix("_seconds").upper()


def _thread_stats(figures: Figures) -> Json:
    return {
        "turns": figures.turns,
        "first_start_time": render_time(figures.first_start_ns),
        "last_start_time": render_time(figures.last_start_ns),
        "last_end_time": render_time(figures.last_end_ns),
        "latency_p50_seconds": figures.latency_s[0],
        "latency_p99_seconds": figures.latency_s[1],
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "total_tokens": figures.total_tokens,
        "total_cost": usd_from_pico(figures.cost_pico),
        "prompt_token_details": {"raw": _details(figures.cached_tokens, None)},
        "completion_token_details": {"raw": _details(None, figures.reasoning_tokens)},
    }


def _aggregate_stats(threads: int, figures: Figures) -> Json:
    return {
        "thread_count": threads,
        "trace_count": figures.turns,
        "total_tokens": figures.total_tokens or 0,
        "prompt_tokens": figures.prompt_tokens or 0,
        "completion_tokens": figures.completion_tokens or 0,
        "total_cost": usd_from_pico(figures.cost_pico or 0),
        "median_tokens": None if figures.median_tokens is None else round(figures.median_tokens),
        "error_rate": figures.errors / figures.turns if figures.turns else None,
        "streaming_rate": figures.streaming / figures.ended if figures.ended else None,
        "latency_p50_seconds": figures.latency_s[0],
        "latency_p99_seconds": figures.latency_s[1],
        "first_token_p50_seconds": figures.first_token_s[0],
        "first_token_p99_seconds": figures.first_token_s[1],
        "prompt_token_details": _details(figures.cached_tokens, None),
        "completion_token_details": _details(None, figures.reasoning_tokens),
    }


ROUTES: Final[tuple[RestRoute, ...]] = (
    v2("POST", "/threads/query", query_threads_v2),
    v2("POST", "/threads/stats", query_thread_stats_v2),
    v2("GET", "/threads/{thread_id}/traces", list_thread_traces_v2),
    v2("GET", "/threads/{thread_id}/stats", read_thread_stats_v2),
    v2("POST", "/threads/{thread_id}/share", share_thread_v2),
    v2("GET", "/threads/{thread_id}/share", read_thread_share_v2),
    v2("DELETE", "/threads/{thread_id}/share", unshare_thread_v2),
)
