"""Experiments, their results and figures in Respan's words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import Json, Owner, Tree, render_trace, render_tree
from clearspan.api.respan.experiments.finding import GRADER_MARK, Evaluators
from clearspan.api.respan.texts import detail_texts
from clearspan.api.respan.window import render_time
from clearspan.catalog.evaluators import Evaluator
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.definitions import Known, uuid_text
from clearspan.experiments.histogram import Histogram
from clearspan.experiments.results import Result, ResultSummary, Score, ScoreSummary, words_of
from clearspan.experiments.score_types import ScoreType
from clearspan.model.usage import usd_from_pico
from clearspan.store.port import TraceDetail

_T: Final = ScoreType
_T_VALUES: Final = frozenset(each.value for each in ScoreType)
_NUMBERS: Final = frozenset({_T.NUMERICAL, _T.PERCENTAGE})
_WORDS: Final = frozenset({_T.SINGLE_SELECT, _T.MULTI_SELECT, _T.CATEGORICAL})
_CUT: Final = ("input", "output", "expected_output")
_OF_TRACE: Final = (
    "id", "trace_unique_id", "root_span_unique_id", "environment", "customer_identifier", "name", "start_time",
    "end_time", "duration", "span_count", "llm_call_count", "total_cost", "total_tokens", "total_prompt_tokens",
    "total_completion_tokens", "error_count", "model", "metadata",
)  # fmt: skip
"""What a result is shown with of what every trace has."""


def shown_id(experiment: Experiment) -> str:
    """The id by which clients know an experiment: of a LangSmith client's it is the session's."""
    return experiment.public_id if experiment.managed else uuid_text(experiment.uuid)


def render_summary(known: Known, progress: float | None) -> Json:
    """An experiment in a list.

    Args:
        progress: percent; None: nobody counts.
    """
    experiment = known.experiment
    dataset_id = uuid_text(experiment.dataset_uuid) if experiment.dataset_uuid else None
    return {
        "id": shown_id(experiment),
        "name": experiment.name,
        "description": experiment.description,
        "dataset": dataset_id,
        "dataset_id": dataset_id,
        "dataset_name": known.dataset_name,
        "workflow_count": len(experiment.workflow),
        "status": str(experiment.status),
        "progress": progress,
        "created_at": render_time(experiment.created_at_ns),
        "started_at": render_time(experiment.started_at_ns),
        "completed_at": render_time(experiment.completed_at_ns),
        "tags": [tag if isinstance(tag, dict) else {"name": tag} for tag in experiment.tags],
        "is_managed": experiment.managed,
    }


def render_experiment(known: Known, progress: float | None) -> Json:
    """A whole experiment. `workflows` is what old clients call `workflow`."""
    experiment = known.experiment
    return render_summary(known, progress) | {
        "workflow": experiment.workflow,
        "workflows": experiment.workflow,
        "evaluator_ids": [uuid_text(each) for each in experiment.evaluator_ids],
        "evaluator_slugs": list(known.evaluator_slugs),
        "evaluator_workflow_ids": experiment.evaluator_workflow_ids,
        "batch_size": experiment.batch_size,
        "concurrency": experiment.concurrency,
        "enable_tracing": experiment.enable_tracing,
        "span_workflow_name": experiment.span_workflow_name,
        "generation_method": experiment.generation_method,
        "error_code": experiment.error_code,
        "error_message": experiment.error_message,
        "session_id": uuid_text(experiment.uuid),
    }


class ResultView(NamedTuple):
    """How results are shown."""

    owner: Owner
    evaluators: Evaluators
    expected: Mapping[str, str | None] = {}  # comparison key → reference output
    preview_length: int | None = None  # characters of input, output and expected output; None: all

    def render(self, result: Result) -> Json:
        """A result in a list; also the head of a detail."""
        trace = render_trace(result.row, self.owner)
        told: Json = {name: trace[name] for name in _OF_TRACE}
        told |= {
            "input": result.input,
            "output": result.output,
            "expected_output": self.expected.get(result.comparison_key or ""),
            "status": result.status,
            "error_message": result.error,
            "comparison_key": result.comparison_key,
            "scores": self.scores(result),
        }
        if self.preview_length is not None:
            told |= {name: text[: self.preview_length] for name in _CUT if (text := told[name]) is not None}
        return told

    def scores(self, result: Result) -> Json:
        """By evaluator id, or by name where no evaluator is known: what somebody gave as feedback."""
        told: Json = {}
        for score in result.scores:
            evaluator = self.evaluators.of_score(score.name, score.evaluator_id)
            told[score_key(score, evaluator)] = render_score(score, evaluator) | {"explanation": score.explanation}
        return told

    def tree(self, result: Result, detail: TraceDetail) -> tuple[Json, Tree]:
        """The head of a detail and its spans as nodes."""
        texts = detail_texts(detail)
        summary = detail.row.summary
        tree = render_tree(summary, self.owner, [(span, context) for span, context, _ in detail.spans], texts)
        nodes = {span_id: _node(node) for span_id, node in tree.nodes.items()}
        root = nodes.get(summary.root_span_id or "")
        head = self._replace(preview_length=None).render(result)
        if root is not None:
            root["scores"] = head["scores"]
        return head, tree._replace(nodes=nodes)


def _node(node: Json) -> Json:
    """A span under the names that results have as well."""
    return node | {
        "name": node["span_name"],
        "duration": node["latency"],
        "total_cost": node["cost"],
        "total_tokens": node["total_request_tokens"],
        "total_prompt_tokens": node["prompt_tokens"],
        "total_completion_tokens": node["completion_tokens"],
        "scores": {},
    }


def score_key(score: Score, evaluator: Evaluator | None) -> str:
    """The key of a score in a map of scores."""
    if evaluator is None:
        return score.name
    _, mark, grader = score.name.removeprefix(evaluator.slug).partition(GRADER_MARK)
    return f"{uuid_text(evaluator.uuid)}{mark}{grader}" if mark else uuid_text(evaluator.uuid)


def type_of(score: Score, evaluator: Evaluator | None) -> ScoreType:
    """What kind of score it is: as it says, as its evaluator says, else by what it holds."""
    for said in (score.score_type, None if evaluator is None else evaluator.score_type):
        if said is not None and said in _T_VALUES:
            return ScoreType(said)
    if score.score is not None:
        return _T.NUMERICAL
    if words_of(score):
        return _T.CATEGORICAL
    return _T.TEXT if isinstance(score.value, str) else _T.JSON


def shows_words(evaluators: Evaluators) -> Callable[[Score], bool]:
    """Whether the labels of scores are shown of which a given one is."""
    return lambda score: type_of(score, evaluators.of_score(score.name, score.evaluator_id)) in _WORDS


def render_score(score: Score, evaluator: Evaluator | None) -> Json:
    """A score: the field that fits its type is set, the others are null."""
    kind = type_of(score, evaluator)
    text = score.value if isinstance(score.value, str) else score.label
    return {
        "evaluator_id": score.evaluator_id if evaluator is None else uuid_text(evaluator.uuid),
        "evaluator_slug": score.name if evaluator is None else evaluator.slug,
        "evaluator_name": None if evaluator is None else evaluator.name,
        "score_value_type": str(kind),
        "numerical_value": score.score if kind in _NUMBERS else None,
        "boolean_value": bool(score.score) if kind is _T.BOOLEAN and score.score is not None else None,
        "categorical_value": words_of(score) if kind in _WORDS else None,
        "string_value": text if kind in (_T.TEXT, _T.COMMENT) else None,
        "json_value": dump_json(score.value).decode() if kind is _T.JSON and score.value is not None else None,
        "avg_score": score.score,
        "true_count": None,
        "false_count": None,
    }


def render_result_summary(summary: ResultSummary, evaluators: Evaluators) -> Json:
    """Figures over results. The client's model insists on numbers for cost and tokens: unknown ones are 0 there."""
    scores: Json = {}
    for name, each in summary.scores.items():
        evaluator = evaluators.of_score(name, each.sample.evaluator_id)
        scores[score_key(each.sample, evaluator)] = _summed(each, evaluator)
    return {
        "number_of_requests": summary.results,
        "error_count": summary.error_count,
        "total_cost": usd_from_pico(summary.cost_pico or 0),
        "total_tokens": summary.total_tokens or 0,
        "total_prompt_tokens": summary.prompt_tokens,
        "total_completion_tokens": summary.completion_tokens,
        "avg_latency": summary.latency_s,
        "avg_tps": summary.tokens_per_s,
        "avg_ttft": summary.first_token_s,
        "scores": scores,
    }


def _summed(each: ScoreSummary, evaluator: Evaluator | None) -> Json:
    told = render_score(each.sample, evaluator)
    kind = told["score_value_type"]
    return told | {
        # One result's text or JSON says nothing of all of them.
        "string_value": None,
        "json_value": None,
        "boolean_value": None,
        "numerical_value": each.mean.value if kind in _NUMBERS else None,
        "categorical_value": sorted(each.labels) if kind in _WORDS else None,
        "avg_score": each.mean.value,
        "true_count": each.true_count if kind == _T.BOOLEAN else None,
        "false_count": each.false_count if kind == _T.BOOLEAN else None,
        "evaluator_family_id": told["evaluator_id"],
        "count": each.n,
        "label_counts": each.labels if kind in _WORDS else None,
    }


def render_histogram(found: Histogram, asked: str, name: str, evaluator: Evaluator | None) -> Json:
    """A histogram. The client's model insists on numbers in `stats`: without any they are 0, and so is `total`.

    Args:
        asked: the evaluator as the caller named it.
        name: of the scores.
    """
    low, high, mean = found.stats
    return {
        "evaluator_id": asked,
        "evaluator_slug": name if evaluator is None else evaluator.slug,
        "evaluator_name": None if evaluator is None else evaluator.name,
        "bins": [
            {"lower": each.lower, "upper": each.upper, "count": each.count}
            | ({} if each.label is None else {"label": each.label})
            for each in found.bins
        ],
        "stats": {"min": low or 0.0, "max": high or 0.0, "mean": mean or 0.0, "total": found.total},
        "unbinned": found.unbinned,
    }
