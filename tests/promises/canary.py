"""Traces full of needles, and for every read route the questions that would show them.

A read route is one that can answer with something of a trace: every GET, and every other route that is not named in
WRITES. Each needs an entry in CANARIES under the name of its endpoint; all its paths and methods are asked.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Final, NamedTuple

from clearspan.api.app import build_routes
from clearspan.api.auth import Permission, route_permissions
from clearspan.query.fields import FIELDS, METADATA, FieldType
from clearspan.testing.wire import SECOND_NS, Wire, iso

from . import questions
from .asking import Canary
from .planting import Planted

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


_QUIET: Final = Canary(questions.once, shows=False)
_ONE: Final = Canary(questions.deletion, shows=False)
_PROOF: Final = Canary(questions.proofs, shows=False)

CANARIES: Final[dict[str, Canary]] = {
    "list_traces": Canary(questions.filters, counts=("count",)),
    "summarise_traces": Canary(questions.filters, counts=("total_traces", "total_tokens")),
    "retrieve_trace": Canary(questions.ids),
    "public_trace": Canary(questions.public_ids),
    "preview_deletion": Canary(questions.previews, counts=("traces.matched",)),
    "get_deletion": _ONE,
    "watch_deletion": Canary(questions.deletion, shows=False, lasts=True),
    "get_receipt": _ONE,
    "list_tombstones": _ONE,
    "get_membership": Canary(questions.members, shows=False),
    "list_deletions": Canary(questions.states, shows=False),
    "list_holds": Canary(questions.states, shows=False),
    "get_hold": Canary(questions.hold, shows=False),
    "list_entries": _PROOF,
    "get_head": _PROOF,
    "get_inclusion": _PROOF,
    "get_consistency": _PROOF,
    "get_keys": _QUIET,
    "list_audit_logs": Canary(questions.audits, shows=False),
    "list_operations": _QUIET,
    "server_info": _QUIET,
    "workspace_settings": _QUIET,
    "list_workspaces": _QUIET,
    "list_sessions": Canary(questions.sessions, shows=False),
    "list_sessions_v2": Canary(questions.sessions, shows=False),
    "resolve_session": Canary(questions.sessions, shows=False),
    "read_session": Canary(questions.session, counts=("run_count",)),
    "read_session_v2": Canary(questions.session, shows=False),
    "session_metadata": Canary(questions.session),
    "read_run_share": Canary(questions.runs, shows=False),
    "list_shared": Canary(questions.once),
    "list_feedback_configs": _QUIET,
    "list_feedback": Canary(questions.feedback),
    "get_feedback": Canary(questions.one_feedback),
    "respan_list_scores": Canary(questions.scores),
    "respan_retrieve_score": Canary(questions.score),
    "respan_list_evaluators": Canary(questions.evaluators, shows=False),
    "respan_count_evaluators": Canary(questions.evaluators, shows=False),
    "respan_retrieve_evaluator": Canary(questions.evaluators, shows=False),
    "list_annotation_configs": _QUIET,
    "get_annotation_config": Canary(questions.configs, shows=False),
    "list_project_annotation_configs": Canary(questions.configs, shows=False),
    "list_span_annotations": Canary(questions.phoenix_annotations("span")),
    "list_trace_annotations": Canary(questions.phoenix_annotations("trace")),
    "list_session_annotations": Canary(questions.phoenix_annotations("session")),
    "phoenix_version": _QUIET,
    "phoenix_list_traces": Canary(questions.phoenix_traces),
    "phoenix_list_sessions": Canary(questions.phoenix_session_lists),
    "phoenix_read_session": Canary(questions.phoenix_session),
    "current_user": _QUIET,
    "list_users": _QUIET,
    "list_system_keys": _QUIET,
    "list_own_keys": _QUIET,
    "list_user_keys": _QUIET,
    "phoenix_list_projects": _QUIET,
    "phoenix_read_project": Canary(questions.phoenix_project, shows=False),
    "phoenix_list_spans": Canary(questions.phoenix_spans),
    "phoenix_list_otlp_spans": Canary(questions.phoenix_spans),
    "phoenix_query_spans": Canary(questions.phoenix_queries),
    "read_attachment": Canary(questions.links),
    "read_run": Canary(questions.runs),
    "query_runs": Canary(questions.run_queries),
    "validate_run_query": Canary(questions.run_queries, shows=False),
    "query_run_stats": Canary(questions.run_stats, counts=("run_count", "total_tokens")),
    "group_runs": Canary(questions.thread_lists, counts=("total",)),
    "preview_thread": Canary(questions.threads),
    "query_runs_v2": Canary(questions.run_queries_v2),
    "read_run_v2": Canary(questions.runs_v2),
    "locate_run_v2": Canary(questions.runs_v2, shows=False),
    "query_traces_v2": Canary(questions.run_queries_v2),
    "list_trace_runs_v2": Canary(questions.runs_v2),
    "query_threads_v2": Canary(questions.thread_lists),
    "query_thread_stats_v2": Canary(questions.thread_lists, counts=("thread_count", "trace_count", "total_tokens")),
    "list_thread_traces_v2": Canary(questions.threads),
    "read_thread_stats_v2": Canary(questions.threads, shows=False),
    "read_thread_share_v2": Canary(questions.threads, shows=False),
    "read_shared_run": Canary(questions.shared_runs),
    "query_shared_runs": Canary(questions.shared_runs),
    "list_shared_feedback": Canary(questions.shared_runs, shows=False),
    "query_shared_runs_v2": Canary(questions.shared_runs),
    "read_shared_run_v2": Canary(questions.shared_runs),
    "respan_list_datasets": Canary(questions.once, shows=False),
    "respan_retrieve_dataset": Canary(questions.dataset, shows=False, counts=("log_count",)),
    "respan_dataset_eval_reports": Canary(questions.dataset, shows=False),
    "respan_list_dataset_logs": Canary(questions.dataset_logs, counts=("count",)),
    "respan_retrieve_dataset_log": Canary(questions.dataset_log),
    "respan_summarise_dataset_logs": Canary(questions.dataset_logs, shows=False, counts=("number_of_requests",)),
    **{name: _QUIET for name in ("list_datasets", "list_datasets_v2")},
    "read_dataset": Canary(questions.dataset, shows=False, counts=("example_count",)),
    **{
        name: Canary(questions.dataset, shows=False)
        for name in ("read_dataset_share", "list_comparatives", "list_splits")
    },
    **{name: Canary(questions.versions, shows=False) for name in ("list_versions", "read_version", "diff_versions")},
    **{name: Canary(questions.dataset) for name in ("export_csv", "export_jsonl")},
    "list_examples": Canary(questions.examples),
    "count_examples": Canary(questions.example_counts, shows=False),
    "read_example": Canary(questions.example),
    **{name: Canary(questions.examples_with_runs) for name in ("read_examples_with_runs", "query_experiment_runs")},
    **{
        name: Canary(questions.experiment_lists, shows=False)
        for name in ("list_experiments", "list_experiment_items", "summarise_experiments")
    },
    **{name: Canary(questions.experiment, shows=False) for name in ("retrieve_experiment", "experiment_progress")},
    "compare_experiments": Canary(questions.comparisons),
    "list_experiment_traces": Canary(questions.results, counts=("count",)),
    "retrieve_experiment_trace": Canary(questions.one_result),
    "summarise_experiment_traces": Canary(questions.results, counts=("number_of_requests",)),
    "score_histogram": Canary(questions.histograms, counts=("stats.total",)),
    "read_export": Canary(questions.exports, counts=("count",)),
    "download_export": Canary(questions.exports),
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
    "respan_create_score": "answers with what it was asked with",
    "respan_update_score": "answers with the score, as respan_retrieve_score",
    "respan_delete_score": "deletes; answers with nothing",
    "respan_create_evaluator": "answers with what it was asked with: definitions hold nothing of a trace",
    "respan_update_evaluator": "answers with the evaluator, as respan_retrieve_evaluator",
    "respan_delete_evaluator": "answers with nothing",
    "delete_experiment": "deletes; answers with nothing",
    **{f"phoenix_{act}": "answers with the project" for act in ("update_project", "set_retention")},
    "phoenix_delete_project": "deletes; answers with counts in its head",
    **{f"phoenix_delete_{what}": "deletes; answers with counts in its head" for what in ("trace", "traces", "session")},
    "phoenix_delete_sessions": "deletes; answers with counts and with what it was asked with, in its head",
    "phoenix_transfer_traces": "answers with nothing",
    "phoenix_delete_span": "deletes; answers with counts in its head",
    "create_feedback_config": "answers with what it was asked with",
    "update_feedback_config": "answers with the config",
    "delete_feedback_config": "answers with nothing",
    "create_user": "answers with the user",
    "delete_user": "answers with nothing",
    "respan_delete_dataset": "deletes; answers with nothing, or with counts alone",
    **{f"respan_delete_dataset_{what}": "deletes; answers with counts alone" for what in ("log", "logs")},
    **{
        f"delete_{what}": "deletes; answers with counts, and with the ids it was asked with"
        for what in ("example", "examples", "dataset_example", "listed_examples", "dataset", "datasets")
    },
    "share_dataset": "is not available",
    "unshare_dataset": "answers with a sentence",
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


def ask(wire: Wire, planted: Planted, route: Route, *, step: int = 1, is_first: bool = False) -> tuple[int, int]:
    """Ask one route everything: (questions, hits). A hit is a needle in the answer, or a trace that it counts.

    Args:
        step: ask only every so manieth question, from the first.
        is_first: until there is a hit.
    """
    canary = CANARIES[route.endpoint]
    asked = hits = 0
    for question in itertools.islice(canary.questions(wire, planted), 0, None, step):
        if hits and is_first:
            break
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
