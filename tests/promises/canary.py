"""Traces full of needles, and for every read route the questions that would show them.

A read route is one that can answer with something of a trace: every GET, and every other route that is not named in
WRITES. Each needs an entry in CANARIES under the name of its endpoint; all its paths and methods are asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from clearspan.api.app import build_routes
from clearspan.api.auth import Permission, route_permissions
from clearspan.api.langsmith.run_views import COLUMNS, COLUMNS_V2
from clearspan.query.fields import FIELDS, METADATA, FieldType
from clearspan.testing.wire import SECOND_NS, Wire, iso

from .planting import UUID_HEX, Planted, named_in

NO_NEEDLE: Final = {
    "environment": "a deployment's name, given by the key",
    "organization_key_id": "the key's, not the trace's",
    "log_type": "one of a few kinds",
    "status": "one of two words",
    "error_fingerprint": "computed",
    "span_parent_id": "is the root's span id",
    "root_span_unique_id": "is the root's span id",
}
"""Text fields without a needle of their own, and why."""


class Question(NamedTuple):
    """One request that may show something."""

    query: str = ""
    body: Any = None
    path: Mapping[str, str] = {}  # path parameters

    def words(self) -> set[str]:
        """What the question itself names: an answer that repeats it shows nothing."""
        text = f"{self.query} {self.body} {self.path}"
        return named_in(text)


class Canary(NamedTuple):
    """How a route is asked.

    Attributes:
        questions: every way in which it might show a needle.
        shows: whether it shows what is visible, so that asking before the deletion must find something.
        counts: numbers of its answer that count traces, by path: they must be 0 afterwards.
        lasts: it answers until the deletion is over, so it is asked beside the others.
    """

    questions: Callable[[Wire, Planted], Iterable[Question]]
    shows: bool = True
    counts: tuple[str, ...] = ()
    lasts: bool = False


def _once(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question()


def _pages(wire: Wire, _: Planted) -> Iterator[Question]:
    yield Question(wire.window() + "&page_size=1000")
    yield Question(wire.window() + "&page_size=1&page=2")


def _filters(wire: Wire, planted: Planted) -> Iterator[Question]:
    """A list by page, by every field and by every word."""
    yield from _pages(wire, planted)
    for sort in ("timestamp", "-total_cost", "duration"):
        yield Question(f"{wire.window()}&sort_by={sort}")
    for name, value in planted.by_field.items():
        yield Question(wire.window(), {"filters": {name: {"value": [value]}}})
    for word in sorted(planted.needles):
        said = {"operator": "full_text_search", "value": [word]}
        yield Question(wire.window(), {"filters": {"text": said}})


def _ids(_: Wire, planted: Planted) -> Iterator[Question]:
    for trace_id in planted.trace_ids:
        yield Question(path={"trace_unique_id": trace_id})


def _public_ids(wire: Wire, planted: Planted) -> Iterator[Question]:
    organisation = wire.catalog.first_org.public_id
    for trace_id in planted.trace_ids:
        yield Question(path={"trace_unique_id": trace_id, "unique_organization_id": organisation})


def _deletion(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(path={"deletion_id": planted.deletion_id})


def _members(_: Wire, planted: Planted) -> Iterator[Question]:
    for trace_id in planted.trace_ids:
        yield Question(f"?project=default&trace_id={trace_id}", path={"deletion_id": planted.deletion_id})


def _previews(wire: Wire, planted: Planted) -> Iterator[Question]:
    """A plan by every field, by word and by ids: its counts and samples would show what is there."""
    day = {"start_time": iso(wire.clock.now_ns() - 86_400 * SECOND_NS), "end_time": iso(wire.clock.now_ns())}
    for name, value in planted.by_field.items():
        yield Question(body={"filters": {name: {"value": [value]}}, **day})
    yield Question(body={"trace_ids": planted.trace_ids, **day})
    yield Question(body={"filters": {"span_count": {"operator": "gt", "value": [0]}}, **day})


def _states(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question()
    for state in ("hidden", "verified", "released", "all"):
        yield Question(f"?state={state}")


def _proofs(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("", "?index=0", "?from=1", f"?deletion_id={planted.deletion_id}", "?limit=200"):
        yield Question(query)


def _hold(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question(path={"hold_id": "hold_unknown"})


def _default(wire: Wire) -> str:
    default = wire.catalog.find_project(wire.catalog.first_org.id, "default")
    assert default is not None
    return default.uuid


def _session(wire: Wire, _: Planted) -> Iterator[Question]:
    yield Question("?include_stats=true&k=100", path={"session_id": _default(wire)})


def _sessions(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("", "?include_stats=true", f"?name_contains={planted.customer}", "?kind=EVALUATOR"):
        yield Question(query)


def _runs(_: Wire, planted: Planted) -> Iterator[Question]:
    for run_id in planted.run_ids:
        yield Question(path={"run_id": run_id})


def _feedback(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("", "?has_comment=true", "?level=run", "?source=api", "?limit=100&offset=1"):
        yield Question(query)
    for trace_id in filter(UUID_HEX.fullmatch, planted.trace_ids):
        yield Question(f"?run={trace_id}")
    for word in sorted(planted.needles):
        yield Question(f"?key={word}")


def _configs(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question(path={"project": "default", "config": "user_feedback"})


def _phoenix_annotations(kind: str) -> Callable[[Wire, Planted], Iterator[Question]]:
    def ask_all(_: Wire, planted: Planted) -> Iterator[Question]:
        path = {"project": "default"}
        for word in sorted(planted.needles):
            yield Question(f"?limit=1000&identifier={word}", path=path)
        for trace_id in planted.trace_ids if kind == "trace" else ():
            yield Question(f"?limit=1000&trace_ids={trace_id}", path=path)

    return ask_all


def _phoenix_spans(_: Wire, planted: Planted) -> Iterator[Question]:
    """The spans of the project, in each order and by what names one."""
    path = {"project": "default"}
    for query in ("?limit=1000", "?sort=start_time&order=asc", "?order=asc&span_kind=UNKNOWN", "?status_code=error"):
        yield Question(query, path=path)
    for trace_id in planted.trace_ids:
        yield Question(f"?trace_id={trace_id}", path=path)
    yield Question(f"?attribute=user.id:{planted.customer}&limit=1000", path=path)


def _phoenix_project(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question(path={"project": "default"})


def _phoenix_queries(_: Wire, planted: Planted) -> Iterator[Question]:
    """Tables of spans: whole, by their words, and by what they look up."""
    yield Question(body={"queries": [{}], "limit": 10_000})
    shown = {"select": {"i": {"key": "input.value"}, "m": {"key": "metadata"}}, "index": {"key": "trace_id"}}
    yield Question(body={"queries": [shown], "root_spans_only": True})
    yield Question(body={"queries": [shown | {"filter": {"condition": f"user.id == '{planted.customer}'"}}]})
    ids = ", ".join(f"'{each}'" for each in planted.trace_ids)
    yield Question(body={"queries": [{"filter": {"condition": f"trace_id in [{ids}]"}}]})


def _phoenix_traces(_: Wire, planted: Planted) -> Iterator[Question]:
    """A project's traces with their spans: all, of one session, and by what expressions can say."""
    path = {"project": "default"}
    yield Question("?limit=1000&include_spans=true", path=path)
    yield Question("?limit=1&sort=latency_ms&order=asc", path=path)
    yield Question(f"?session_identifier={planted.by_field['session_identifier']}", path=path)
    expressions = [f"trace_id == '{each}'" for each in planted.trace_ids]
    expressions += [f"user.id == '{planted.customer}'", "any(s.latency_ms >= 0 for s in spans)"]
    expressions += [f"'{word}' in input" for word in sorted(planted.needles)[:20]]
    for text in expressions:
        yield Question(f"?limit=1000&{urlencode({'filter': text})}", path=path)


def _phoenix_session_lists(_: Wire, planted: Planted) -> Iterator[Question]:
    path = {"project": "default"}
    session_id = planted.by_field["session_identifier"]
    for query in ("limit=1000", "limit=1&order=desc", urlencode({"filter": f"session_id == '{session_id}'"})):
        yield Question(f"?{query}", path=path)


def _phoenix_session(_: Wire, planted: Planted) -> Iterator[Question]:
    for word in sorted({planted.by_field["session_identifier"], *planted.needles}):
        yield Question(path={"session": word})


def _one_feedback(_: Wire, planted: Planted) -> Iterator[Question]:
    for annotation_id in planted.annotation_ids:
        yield Question(path={"feedback_id": annotation_id})


def _run_queries(wire: Wire, planted: Planted) -> Iterator[Question]:
    """Pages of runs by everything that finds some."""
    yield Question(body={"session": [_default(wire)], "select": list(COLUMNS)})
    yield Question(body={"order": "asc", "limit": 1})
    yield Question(body={"id": planted.run_ids})
    yield Question(body={"is_root": True, "error": True, "execution_order": 1})
    yield Question(body={"filter": f'eq(metadata_value, "{planted.customer}")', "tree_filter": "gt(total_tokens, 1)"})
    for run_id in planted.run_ids:
        yield Question(body={"trace": run_id})
        yield Question(body={"parent_run": run_id})
    for word in sorted(planted.needles)[:20]:
        yield Question(body={"query": word})
        yield Question(body={"filter": f'or(search("{word}"), eq(thread_id, "{word}"), has(tags, "{word}"))'})


def _run_stats(wire: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(body={})
    yield Question(body={"session": [_default(wire)], "is_root": True})
    yield Question(body={"id": planted.run_ids})


def _run_queries_v2(wire: Wire, planted: Planted) -> Iterator[Question]:
    project = {"project_ids": [_default(wire)], "project_id": _default(wire)}
    yield Question(body={**project, "selects": list(COLUMNS_V2)})
    yield Question(body={**project, "ids": planted.run_ids, "trace_ids": planted.run_ids})
    yield Question(body={**project, "page_size": 1, "trace_filter": "eq(is_root, true)"})
    for word in sorted(planted.needles)[:20]:
        yield Question(body={**project, "filter": f'search("{word}")', "tree_filter": f'search("{word}")'})


def _runs_v2(wire: Wire, planted: Planted) -> Iterator[Question]:
    """Runs, traces and their addresses, with every column."""
    selects = "&".join(f"selects={name}" for name in COLUMNS_V2)
    for run_id in planted.run_ids:
        at = {"run_id": run_id, "trace_id": run_id}
        yield Question(f"?project_id={_default(wire)}&trace_id={run_id}&{selects}", path=at)


def _threads(wire: Wire, planted: Planted) -> Iterator[Question]:
    project = f"project_id={_default(wire)}&session_id={_default(wire)}"
    for thread_id in planted.thread_ids:
        yield Question(f"?{project}", path={"thread_id": thread_id})
        yield Question(f"?{project}&selects=INPUTS&selects=TURN_NUMBER&selects=TURNS", path={"thread_id": thread_id})


def _thread_lists(wire: Wire, _: Planted) -> Iterator[Question]:
    project = {"project_id": _default(wire), "session_id": _default(wire)}
    yield Question(body={**project, "select": ["THREAD_COUNT", "TRACE_COUNT", "TOTAL_TOKENS"]})
    yield Question(body={**project, "select": ["THREAD_COUNT", "TRACE_COUNT", "TOTAL_TOKENS"],
                         "tree_filter": "gt(total_tokens, 1)"})  # fmt: skip


def _shared_runs(_: Wire, planted: Planted) -> Iterator[Question]:
    """By each link: all of its trace, its root, its root by name; with the columns of both APIs."""
    selects = "&".join(f"selects={name}" for name in COLUMNS_V2)
    for token, run_id in zip(planted.tokens, planted.run_ids, strict=True):
        at = {"share_token": token, "run_id": run_id}
        yield Question(f"?{selects}", path=at)
        for body in ({"select": list(COLUMNS), "selects": list(COLUMNS_V2)}, {"id": [run_id]}, {"is_root": True}):
            yield Question(body=body, path=at)


def _links(_: Wire, planted: Planted) -> Iterator[Question]:
    for token in planted.attachments:
        yield Question(path={"token": token})


def _audits(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("&limit=100", "&operations=delete_runs", "&operations=deletion_verified"):
        yield Question(f"?start_time=2020-01-01{query}")


_QUIET: Final = Canary(_once, shows=False)
_ONE: Final = Canary(_deletion, shows=False)
_PROOF: Final = Canary(_proofs, shows=False)

CANARIES: Final[dict[str, Canary]] = {
    "list_traces": Canary(_filters, counts=("count",)),
    "summarise_traces": Canary(_filters, counts=("total_traces", "total_tokens")),
    "retrieve_trace": Canary(_ids),
    "public_trace": Canary(_public_ids),
    "preview_deletion": Canary(_previews, counts=("traces.matched",)),
    "get_deletion": _ONE,
    "watch_deletion": Canary(_deletion, shows=False, lasts=True),
    "get_receipt": _ONE,
    "list_tombstones": _ONE,
    "get_membership": Canary(_members, shows=False),
    "list_deletions": Canary(_states, shows=False),
    "list_holds": Canary(_states, shows=False),
    "get_hold": Canary(_hold, shows=False),
    "list_entries": _PROOF,
    "get_head": _PROOF,
    "get_inclusion": _PROOF,
    "get_consistency": _PROOF,
    "get_keys": _QUIET,
    "list_audit_logs": Canary(_audits, shows=False),
    "list_operations": _QUIET,
    "server_info": _QUIET,
    "workspace_settings": _QUIET,
    "list_workspaces": _QUIET,
    "list_sessions": Canary(_sessions, shows=False),
    "list_sessions_v2": Canary(_sessions, shows=False),
    "resolve_session": Canary(_sessions, shows=False),
    "read_session": Canary(_session, counts=("run_count",)),
    "read_session_v2": Canary(_session, shows=False),
    "session_metadata": Canary(_session),
    "read_run_share": Canary(_runs, shows=False),
    "list_shared": Canary(_once),
    "list_feedback_configs": _QUIET,
    "list_feedback": Canary(_feedback),
    "get_feedback": Canary(_one_feedback),
    "list_annotation_configs": _QUIET,
    "get_annotation_config": Canary(_configs, shows=False),
    "list_project_annotation_configs": Canary(_configs, shows=False),
    "list_span_annotations": Canary(_phoenix_annotations("span")),
    "list_trace_annotations": Canary(_phoenix_annotations("trace")),
    "list_session_annotations": Canary(_phoenix_annotations("session")),
    "phoenix_version": _QUIET,
    "phoenix_list_traces": Canary(_phoenix_traces),
    "phoenix_list_sessions": Canary(_phoenix_session_lists),
    "phoenix_read_session": Canary(_phoenix_session),
    "current_user": _QUIET,
    "list_users": _QUIET,
    "list_system_keys": _QUIET,
    "list_own_keys": _QUIET,
    "list_user_keys": _QUIET,
    "phoenix_list_projects": _QUIET,
    "phoenix_read_project": Canary(_phoenix_project, shows=False),
    "phoenix_list_spans": Canary(_phoenix_spans),
    "phoenix_list_otlp_spans": Canary(_phoenix_spans),
    "phoenix_query_spans": Canary(_phoenix_queries),
    "read_attachment": Canary(_links),
    "read_run": Canary(_runs),
    "query_runs": Canary(_run_queries),
    "validate_run_query": Canary(_run_queries, shows=False),
    "query_run_stats": Canary(_run_stats, counts=("run_count", "total_tokens")),
    "group_runs": Canary(_thread_lists, counts=("total",)),
    "preview_thread": Canary(_threads),
    "query_runs_v2": Canary(_run_queries_v2),
    "read_run_v2": Canary(_runs_v2),
    "locate_run_v2": Canary(_runs_v2, shows=False),
    "query_traces_v2": Canary(_run_queries_v2),
    "list_trace_runs_v2": Canary(_runs_v2),
    "query_threads_v2": Canary(_thread_lists),
    "query_thread_stats_v2": Canary(_thread_lists, counts=("thread_count", "trace_count", "total_tokens")),
    "list_thread_traces_v2": Canary(_threads),
    "read_thread_stats_v2": Canary(_threads, shows=False),
    "read_thread_share_v2": Canary(_threads, shows=False),
    "read_shared_run": Canary(_shared_runs),
    "query_shared_runs": Canary(_shared_runs),
    "list_shared_feedback": Canary(_shared_runs, shows=False),
    "query_shared_runs_v2": Canary(_shared_runs),
    "read_shared_run_v2": Canary(_shared_runs),
    "index": _QUIET,
    "health": _QUIET,
    "readiness": _QUIET,
    "metrics": _QUIET,
    "openapi": _QUIET,
}
"""By the name of the endpoint."""

WRITES: Final = {
    "bulk_delete": "deletes; answers with counts alone",
    "delete_trace": "deletes; answers with counts alone",
    "share_trace": "answers with the id it was asked with",
    "create_deletion": "deletes; answers with counts alone",
    "cancel_deletion": "answers with the deletion, as get_deletion",
    "retry_deletion": "answers with the deletion, as get_deletion",
    "lift_tombstone": "answers with the id of a deletion",
    "create_hold": "answers with what it was asked with, and with counts",
    "release_hold": "answers with the hold",
    "erase_private": "answers with a number",
    "delete_runs": "deletes; answers with counts, and with the ids it was asked with that name nothing",
    "delete_session": "deletes; answers with counts alone",
    "delete_sessions": "deletes; answers with counts alone",
    "share_run": "answers with the id and token it was asked with",
    "unshare_run": "answers with a sentence",
    "share_run_v2": "answers with a token",
    "unshare_run_v2": "answers with nothing",
    "unshare_all": "answers with a number",
    "share_thread_v2": "is not available",
    "unshare_thread_v2": "answers with nothing",
    "create_feedback": "answers with what it was asked with",
    "update_feedback": "answers with the feedback, as get_feedback",
    **{f"create_{kind}_annotations": "answers with numbers" for kind in ("span", "trace", "session", "document")},
    **{
        f"{act}_annotation_config": "answers with the config, or with nothing"
        for act in ("create", "update", "delete", "assign", "unassign")
    },
    **{f"delete_{kind}_annotations": "deletes; answers with counts alone" for kind in ("span", "trace", "session")},
    "set_project_annotation_configs": "answers with the configs",
    **{f"create_{kind}_note": "answers with a number" for kind in ("span", "trace", "session")},
    "delete_feedback": "deletes; answers with counts alone",
    **{f"phoenix_{act}": "answers with the project" for act in ("update_project", "set_retention")},
    "phoenix_delete_project": "deletes; answers with counts in its head",
    **{f"phoenix_delete_{what}": "deletes; answers with counts in its head" for what in ("trace", "traces", "session")},
    "phoenix_delete_sessions": "deletes; answers with counts and with what it was asked with, in its head",
    "phoenix_delete_span": "deletes; answers with counts in its head",
    "create_feedback_config": "answers with what it was asked with",
    "update_feedback_config": "answers with the config",
    "delete_feedback_config": "answers with nothing",
    "create_user": "answers with the user",
    "delete_user": "answers with nothing",
    **{f"create_{kind}_key": "answers with the key" for kind in ("system", "user")},
    **{f"delete_{kind}_key": "answers with nothing" for kind in ("system", "user")},
}
"""Routes other than GET that show nothing of a trace, and why. Ingest is known by its permission."""


class Route(NamedTuple):
    method: str
    path: str
    endpoint: str


def read_routes(wire: Wire) -> list[Route]:
    """Every read route of the running app, each spelling and method by itself."""
    app = build_routes(wire.services)
    permissions = route_permissions(app)
    found = []
    for route in app.router.routes:
        for method in sorted(getattr(route, "methods", None) or ["*"]):
            name = endpoint_name(route)
            if permissions[method, route.path] is Permission.INGEST or (method != "GET" and name in WRITES):
                continue
            found.append(Route(method, route.path, name))
    return found


def endpoint_name(route: Any) -> str:
    endpoint = route.endpoint
    while hasattr(endpoint, "func"):
        endpoint = endpoint.func
    return str(getattr(endpoint, "__name__", type(endpoint).__name__))


def text_fields_without_needle(planted: Planted) -> set[str]:
    """Filter fields whose text nobody planted: a new one must be added to the traces above, or excused."""
    texts = {each.name for each in FIELDS if each.type in (FieldType.TEXT, FieldType.ID, FieldType.VERSION)}
    return texts - set(planted.by_field) - set(NO_NEEDLE) - {METADATA.name}


def ask(wire: Wire, planted: Planted, route: Route) -> tuple[int, int]:
    """Ask one route everything: (questions, hits). A hit is a needle in the answer, or a trace that it counts."""
    canary = CANARIES[route.endpoint]
    asked = hits = 0
    for question in canary.questions(wire, planted):
        if route.method in ("GET", "HEAD") and question.body is not None:
            continue
        path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda match, q=question: q.path[match[1]], route.path)
        body = {} if question.body is None and route.method == "POST" else question.body
        answer = wire.send(route.method, path + question.query, body)
        assert answer.status_code < 500, (route, answer.text)
        asked += 1
        hits += planted.hits(answer.text + str(answer.headers), question.words())
        if canary.counts and answer.status_code == 200 and route.method != "HEAD":
            hits += sum(_number(answer.json(), name) for name in canary.counts)
    return asked, hits


def _number(told: Any, name: str) -> int:
    for part in name.split("."):
        told = told[part]
    return int(told)


def late_span(wire: Wire, planted: Planted) -> dict[str, Any]:
    """A late span of a planted trace, with a needle that must never be seen."""
    start = iso(wire.clock.now_ns() - 30 * SECOND_NS)
    return wire.span(planted.trace_ids[0], "late", start_time=start, input=planted.customer)
