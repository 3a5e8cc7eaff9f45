"""The questions of canaries: what each read route is asked to make it show what was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlencode

from clearspan.api.langsmith.run_views import COLUMNS, COLUMNS_V2
from clearspan.catalog.experiments import ExperimentDefinition
from clearspan.testing.wire import SECOND_NS, Wire, iso

from .asking import Question, default_session
from .planting import UUID_HEX, Planted


def once(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question()


def pages(wire: Wire, _: Planted) -> Iterator[Question]:
    yield Question(wire.window() + "&page_size=1000")
    yield Question(wire.window() + "&page_size=1&page=2")


def filters(wire: Wire, planted: Planted) -> Iterator[Question]:
    """A list by page, by every field and by every word."""
    yield from pages(wire, planted)
    for sort in ("timestamp", "-total_cost", "duration"):
        yield Question(f"{wire.window()}&sort_by={sort}")
    for name, value in planted.by_field.items():
        yield Question(wire.window(), {"filters": {name: {"value": [value]}}})
    for word in sorted(planted.needles):
        said = {"operator": "full_text_search", "value": [word]}
        yield Question(wire.window(), {"filters": {"text": said}})


def ids(_: Wire, planted: Planted) -> Iterator[Question]:
    for trace_id in planted.trace_ids:
        yield Question(path={"trace_unique_id": trace_id})


def public_ids(wire: Wire, planted: Planted) -> Iterator[Question]:
    organisation = wire.catalog.first_org.public_id
    for trace_id in planted.trace_ids:
        yield Question(path={"trace_unique_id": trace_id, "unique_organization_id": organisation})


def deletion(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(path={"deletion_id": planted.deletion_id})


def members(_: Wire, planted: Planted) -> Iterator[Question]:
    for trace_id in planted.trace_ids:
        yield Question(f"?project=default&trace_id={trace_id}", path={"deletion_id": planted.deletion_id})


def previews(wire: Wire, planted: Planted) -> Iterator[Question]:
    """A plan by every field, by word and by ids: its counts and samples would show what is there."""
    day = {"start_time": iso(wire.clock.now_ns() - 86_400 * SECOND_NS), "end_time": iso(wire.clock.now_ns())}
    for name, value in planted.by_field.items():
        yield Question(body={"filters": {name: {"value": [value]}}, **day})
    yield Question(body={"trace_ids": planted.trace_ids, **day})
    yield Question(body={"filters": {"span_count": {"operator": "gt", "value": [0]}}, **day})


def states(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question()
    for state in ("hidden", "verified", "released", "all"):
        yield Question(f"?state={state}")


def proofs(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("", "?index=0", "?from=1", f"?deletion_id={planted.deletion_id}", "?limit=200"):
        yield Question(query)


def hold(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question(path={"hold_id": "hold_unknown"})


def session(wire: Wire, _: Planted) -> Iterator[Question]:
    yield Question("?include_stats=true&k=100", path={"session_id": default_session(wire)})


def sessions(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("", "?include_stats=true", f"?name_contains={planted.customer}", "?kind=EVALUATOR"):
        yield Question(query)


def runs(_: Wire, planted: Planted) -> Iterator[Question]:
    for run_id in planted.run_ids:
        yield Question(path={"run_id": run_id})


def feedback(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("", "?has_comment=true", "?level=run", "?source=api", "?limit=100&offset=1"):
        yield Question(query)
    for trace_id in filter(UUID_HEX.fullmatch, planted.trace_ids):
        yield Question(f"?run={trace_id}")
    for word in sorted(planted.needles):
        yield Question(f"?key={word}")


def scores(_: Wire, planted: Planted) -> Iterator[Question]:
    """Scores: all, of each trace, by name and by whom."""
    for trace_id in planted.trace_ids:
        yield Question("?page_size=100", path={"log_id": trace_id})
        yield Question("?page_size=100", {"filters": {"log_id": {"value": [trace_id]}}}, {"log_id": trace_id})
    for word in sorted(planted.needles):
        for name in ("evaluator_slug", "scorer"):
            yield Question("?page_size=100", {"filters": {name: {"value": [word]}}}, {"log_id": word})


def score(_: Wire, planted: Planted) -> Iterator[Question]:
    for annotation_id in planted.annotation_ids:
        for trace_id in planted.trace_ids:
            yield Question(path={"score_id": annotation_id, "log_id": trace_id})


def evaluators(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(path={"evaluator_id": "unknown"})


def configs(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question(path={"project": "default", "config": "user_feedback"})


def phoenix_annotations(kind: str) -> Callable[[Wire, Planted], Iterator[Question]]:
    def ask_all(_: Wire, planted: Planted) -> Iterator[Question]:
        path = {"project": "default"}
        for word in sorted(planted.needles):
            yield Question(f"?limit=1000&identifier={word}", path=path)
        for trace_id in planted.trace_ids if kind == "trace" else ():
            yield Question(f"?limit=1000&trace_ids={trace_id}", path=path)

    return ask_all


def phoenix_spans(_: Wire, planted: Planted) -> Iterator[Question]:
    """The spans of the project, in each order and by what names one."""
    path = {"project": "default"}
    for query in ("?limit=1000", "?sort=start_time&order=asc", "?order=asc&span_kind=UNKNOWN", "?status_code=error"):
        yield Question(query, path=path)
    for trace_id in planted.trace_ids:
        yield Question(f"?trace_id={trace_id}", path=path)
    yield Question(f"?attribute=user.id:{planted.customer}&limit=1000", path=path)


def phoenix_project(_: Wire, __: Planted) -> Iterator[Question]:
    yield Question(path={"project": "default"})


def phoenix_queries(_: Wire, planted: Planted) -> Iterator[Question]:
    """Tables of spans: whole, by their words, and by what they look up."""
    yield Question(body={"queries": [{}], "limit": 10_000})
    shown = {"select": {"i": {"key": "input.value"}, "m": {"key": "metadata"}}, "index": {"key": "trace_id"}}
    yield Question(body={"queries": [shown], "root_spans_only": True})
    yield Question(body={"queries": [shown | {"filter": {"condition": f"user.id == '{planted.customer}'"}}]})
    ids = ", ".join(f"'{each}'" for each in planted.trace_ids)
    yield Question(body={"queries": [{"filter": {"condition": f"trace_id in [{ids}]"}}]})


def phoenix_traces(_: Wire, planted: Planted) -> Iterator[Question]:
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


def phoenix_session_lists(_: Wire, planted: Planted) -> Iterator[Question]:
    path = {"project": "default"}
    session_id = planted.by_field["session_identifier"]
    for query in ("limit=1000", "limit=1&order=desc", urlencode({"filter": f"session_id == '{session_id}'"})):
        yield Question(f"?{query}", path=path)


def phoenix_session(_: Wire, planted: Planted) -> Iterator[Question]:
    for word in sorted({planted.by_field["session_identifier"], *planted.needles}):
        yield Question(path={"session": word})


def one_feedback(_: Wire, planted: Planted) -> Iterator[Question]:
    for annotation_id in planted.annotation_ids:
        yield Question(path={"feedback_id": annotation_id})


def run_queries(wire: Wire, planted: Planted) -> Iterator[Question]:
    """Pages of runs by everything that finds some."""
    yield Question(body={"session": [default_session(wire)], "select": list(COLUMNS)})
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


def run_stats(wire: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(body={})
    yield Question(body={"session": [default_session(wire)], "is_root": True})
    yield Question(body={"id": planted.run_ids})


def run_queries_v2(wire: Wire, planted: Planted) -> Iterator[Question]:
    project = {"project_ids": [default_session(wire)], "project_id": default_session(wire)}
    yield Question(body={**project, "selects": list(COLUMNS_V2)})
    yield Question(body={**project, "ids": planted.run_ids, "trace_ids": planted.run_ids})
    yield Question(body={**project, "page_size": 1, "trace_filter": "eq(is_root, true)"})
    for word in sorted(planted.needles)[:20]:
        yield Question(body={**project, "filter": f'search("{word}")', "tree_filter": f'search("{word}")'})


def runs_v2(wire: Wire, planted: Planted) -> Iterator[Question]:
    """Runs, traces and their addresses, with every column."""
    selects = "&".join(f"selects={name}" for name in COLUMNS_V2)
    for run_id in planted.run_ids:
        at = {"run_id": run_id, "trace_id": run_id}
        yield Question(f"?project_id={default_session(wire)}&trace_id={run_id}&{selects}", path=at)


def threads(wire: Wire, planted: Planted) -> Iterator[Question]:
    project = f"project_id={default_session(wire)}&session_id={default_session(wire)}"
    for thread_id in planted.thread_ids:
        yield Question(f"?{project}", path={"thread_id": thread_id})
        yield Question(f"?{project}&selects=INPUTS&selects=TURN_NUMBER&selects=TURNS", path={"thread_id": thread_id})


def thread_lists(wire: Wire, _: Planted) -> Iterator[Question]:
    project = {"project_id": default_session(wire), "session_id": default_session(wire)}
    yield Question(body={**project, "select": ["THREAD_COUNT", "TRACE_COUNT", "TOTAL_TOKENS"]})
    yield Question(body={**project, "select": ["THREAD_COUNT", "TRACE_COUNT", "TOTAL_TOKENS"],
                         "tree_filter": "gt(total_tokens, 1)"})  # fmt: skip


def shared_runs(_: Wire, planted: Planted) -> Iterator[Question]:
    """By each link: all of its trace, its root, its root by name; with the columns of both APIs."""
    selects = "&".join(f"selects={name}" for name in COLUMNS_V2)
    for token, run_id in zip(planted.tokens, planted.run_ids, strict=True):
        at = {"share_token": token, "run_id": run_id}
        yield Question(f"?{selects}", path=at)
        for body in ({"select": list(COLUMNS), "selects": list(COLUMNS_V2)}, {"id": [run_id]}, {"is_root": True}):
            yield Question(body=body, path=at)


def links(_: Wire, planted: Planted) -> Iterator[Question]:
    for token in planted.attachments:
        yield Question(path={"token": token})


def audits(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("&limit=100", "&operations=delete_runs", "&operations=deletion_verified"):
        yield Question(f"?start_time=2020-01-01{query}")


def dataset(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(path={"dataset_id": planted.dataset_id})


def dataset_logs(wire: Wire, planted: Planted) -> Iterator[Question]:
    """A dataset's rows: all, as they were, by words, and by what they are made of."""
    path = {"dataset_id": planted.dataset_id}
    yield Question("?page_size=100", path=path)
    yield Question(f"?as_of={iso(wire.clock.now_ns())}&page_size=1&sort_by=timestamp", path=path)
    for word in sorted(planted.needles)[:5]:
        said = {"operator": "full_text_search", "value": [word]}
        yield Question(body={"filters": {"text": said}}, path=path)
    yield Question(body={"filters": {"id": {"operator": "in", "value": planted.item_ids}}}, path=path)
    yield Question(body={"filters": {"metadata__source_run_id": {"value": planted.run_ids}}}, path=path)


def dataset_log(wire: Wire, planted: Planted) -> Iterator[Question]:
    for item_id in planted.item_ids:
        for query in ("", f"?as_of={iso(wire.clock.now_ns())}"):
            yield Question(query, path={"dataset_id": planted.dataset_id, "unique_id": item_id})


def versions(_: Wire, planted: Planted) -> Iterator[Question]:
    for query in ("?tag=latest", "?from_version=2020-01-01&to_version=latest", "?search=latest", "?as_of=2090-01-01"):
        yield Question(query, path={"dataset_id": planted.dataset_id})


def examples(wire: Wire, planted: Planted) -> Iterator[Question]:
    """A dataset's examples: all, as they were, by id and by word."""
    of_dataset = f"?dataset={planted.dataset_id}"
    for query in ("", "&select=attachment_urls", "&order=recent&limit=1", f"&as_of={iso(wire.clock.now_ns())}"):
        yield Question(of_dataset + query)
    for item_id in planted.item_ids:
        yield Question(f"?id={item_id}")
    for word in sorted(planted.needles)[:3]:
        yield Question(f"{of_dataset}&full_text_contains={word}")
        yield Question(of_dataset + "&" + urlencode({"filter": f'search("{word}")'}))


def example_counts(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(f"?dataset={planted.dataset_id}")


def example(wire: Wire, planted: Planted) -> Iterator[Question]:
    for item_id in planted.item_ids:
        for query in ("", f"?as_of={iso(wire.clock.now_ns())}"):
            yield Question(query, path={"example_id": item_id})


def examples_with_runs(wire: Wire, planted: Planted) -> Iterator[Question]:
    path, sessions = {"dataset_id": planted.dataset_id}, [default_session(wire)]
    asked = {"session_ids": sessions, "experiment_ids": sessions, "selects": list(COLUMNS_V2)}
    for body in (asked, asked | {"preview": True}, asked | {"example_ids": planted.item_ids}):
        yield Question(body=body, path=path)
    yield Question(body=asked | {"filters": {sessions[0]: ["gt(total_tokens, 1)"]}}, path=path)


def experiment(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question(path={"experiment_id": planted.experiment_id})


def experiment_lists(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question()
    yield Question(body={"filters": {"id": {"value": [planted.experiment_id]}}})


def results(wire: Wire, planted: Planted) -> Iterator[Question]:
    """An experiment's traces: all, with their spans, cut, in odd orders, exported, and by what finds one."""
    path = {"experiment_id": planted.experiment_id}
    yield Question("?page_size=100&detail=1", path=path)
    yield Question(f"?page_size=1&page=2&preview_length=90&start_time={iso(0)}", path=path)
    for sort_by in ("name", "scores__accuracy", "-cost"):
        yield Question(f"?sort_by={sort_by}", path=path)
    for filters in (
        {"scores__accuracy": {"operator": "gte", "value": [0]}},
        {"customer_identifier": {"value": [planted.customer]}},
        {"comparison_key": {"operator": "in", "value": planted.item_ids}},
        {"id": {"operator": "in", "value": planted.result_ids}},
        *({"text": {"operator": "full_text_search", "value": [word]}} for word in sorted(planted.needles)[:20]),
    ):
        yield Question(body={"filters": filters}, path=path)


def one_result(_: Wire, planted: Planted) -> Iterator[Question]:
    for log_id in planted.result_ids:
        yield Question(path={"experiment_id": planted.experiment_id, "log_id": log_id})


def histograms(_: Wire, planted: Planted) -> Iterator[Question]:
    yield Question("?evaluator_id=accuracy&bins=3", path={"experiment_id": planted.experiment_id})


def comparisons(wire: Wire, planted: Planted) -> Iterator[Question]:
    """The planted experiment beside one without results, as the baseline and as what is compared."""
    experiments, org_id = wire.catalog.experiments, wire.catalog.first_org.id
    planted_one = experiments.find(org_id, planted.experiment_id)
    assert planted_one is not None
    if experiments.find(org_id, "beside") is None:
        said = ExperimentDefinition("beside", planted_one.dataset_uuid, [], wire.clock.now_ns(), public_id="beside")
        experiments.create(org_id, said)
    for pair in ((planted.experiment_id, "beside"), ("beside", planted.experiment_id)):
        query = "&".join(f"experiments={each}" for each in pair)
        for rest in ("&preview_length=10000&limit=200", "&verdict=missing", "&evaluator=accuracy&limit=1"):
            yield Question(f"?{query}{rest}")


def exports(_: Wire, planted: Planted) -> Iterator[Question]:
    path = {"experiment_id": planted.experiment_id, "export_id": planted.export_id}
    for format in ("jsonl", "csv"):
        yield Question(f"?format={format}", path=path)
