"""What clients say of an experiment, in the words of today and of 2024: read and checked before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from clearspan.api.bodies import check_members
from clearspan.api.respan.convert import Json
from clearspan.api.respan.experiments.finding import Evaluators
from clearspan.catalog.experiments import Experiment
from clearspan.catalog.projects import NAME_CHARS_MAX
from clearspan.experiments.workflow import normal_workflow
from clearspan.model.errors import InvalidInput

BATCH_SIZE_MAX: Final = 10_000
CONCURRENCY_MAX: Final = 256
TAGS_MAX: Final = 100
RESERVED: Final = frozenset({"list", "summary", "exports"})
"""Words that stand where an experiment's id does."""
_KNOWN: Final = frozenset({
    "name", "description", "tags", "experiment_id", "dataset_id", "workflow", "workflows", "evaluator_ids",
    "evaluator_slugs", "evaluator_workflow_ids", "span_workflow_name", "enable_tracing", "batch_size", "concurrency",
    "generation_method",
})  # fmt: skip
"""What the clients of every version send, and ours: `tags`."""
_STEP_SETTINGS: Final = ("allow_submission", "timeout_hours")
"""What the oldest clients put beside `config` instead of into it."""
_FIXED: Final = (
    "workflow", "evaluator_ids", "evaluator_workflow_ids", "enable_tracing", "span_workflow_name", "generation_method",
)  # fmt: skip
"""What a result was made by: it cannot change when there may be results."""


class Scoring(NamedTuple):
    """Who scores the results: evaluators by UUID, and by which of the two ways they were named."""

    evaluator_ids: list[str]
    evaluator_workflow_ids: list[str]


class Said(NamedTuple):
    """What a body says of an experiment; None: not said."""

    dataset_id: str | None  # 32 hex digits
    values: Json  # by the names of catalog.experiments.ExperimentDefinition
    experiment_id: str | None


def read_experiment(body: Mapping[str, Any], evaluators: Evaluators, check: Callable[[Any], object]) -> Said:
    """Everything that a body says.

    Args:
        check: raises InvalidInput for a workflow that cannot be run.
    Raises:
        InvalidInput: names the key.
    """
    check_members(body, _KNOWN, "an experiment")
    values: Json = {}
    for key in ("name", "description", "span_workflow_name", "generation_method"):
        if (text := _text(body, key)) is not None:
            values[key] = text
    for key, most in (("batch_size", BATCH_SIZE_MAX), ("concurrency", CONCURRENCY_MAX)):
        if (number := _whole(body, key, most)) is not None:
            values[key] = number
    if body.get("enable_tracing") is not None:
        if not isinstance(body["enable_tracing"], bool):
            raise InvalidInput("enable_tracing is true or false.", fields=("enable_tracing",))
        values["enable_tracing"] = body["enable_tracing"]
    if body.get("tags") is not None:
        values["tags"] = _tags(body["tags"])
    if (workflow := _workflow(body, check)) is not None:
        values["workflow"] = workflow
    if (scoring := _scoring(body, evaluators)) is not None:
        values |= scoring._asdict()
    return Said(_dataset_id(body), values, _experiment_id(body))


def check_new(body: Mapping[str, Any], said: Said) -> None:
    """What a new experiment cannot do without. Raises InvalidInput."""
    if said.dataset_id is None:
        raise InvalidInput("dataset_id is required.", fields=("dataset_id",))
    steps = said.values.get("workflow")
    if steps is None:
        raise InvalidInput("workflow is required.", fields=("workflow",))
    is_old = "workflow" not in body  # old clients run without evaluators, and post their own scores
    if not is_old and "evaluator_ids" not in said.values and all(step["type"] != "eval" for step in steps):
        raise InvalidInput(
            "Exactly one way of scoring is needed: evaluator_ids, evaluator_slugs, evaluator_workflow_ids, "
            "or a step of type eval.",
            fields=("evaluator_ids",),
        )


def changes_to(experiment: Experiment, said: Said) -> Json:
    """What of a body is news to an experiment that exists.

    Raises:
        InvalidInput: it would change what its results were made by, or its dataset.
    """
    changes = {name: value for name, value in said.values.items() if getattr(experiment, name) != value}
    if said.dataset_id is not None and said.dataset_id != experiment.dataset_uuid:
        raise _fixed("dataset_id")
    for name in _FIXED:
        if name in changes:
            raise _fixed(name)
    return changes


def _fixed(name: str) -> InvalidInput:
    return InvalidInput(f"{name} cannot change: results were made by it. Make a new experiment.", fields=(name,))


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{key} must be text.", fields=(key,))
    return value


def _whole(body: Mapping[str, Any], key: str, most: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidInput(f"{key} is a whole number from 1 to {most}.", fields=(key,))
    return value


def _tags(value: Any) -> list[Any]:
    is_list = isinstance(value, list) and len(value) <= TAGS_MAX
    if not is_list or not all(isinstance(each, str | dict) for each in value):
        raise InvalidInput(f"tags is a list of at most {TAGS_MAX} texts or objects.", fields=("tags",))
    return list(value)


def _dataset_id(body: Mapping[str, Any]) -> str | None:
    text = _text(body, "dataset_id")
    if text is None:
        return None
    try:
        return UUID(text).hex
    except ValueError:
        raise InvalidInput("dataset_id names no dataset.", fields=("dataset_id",)) from None


def _experiment_id(body: Mapping[str, Any]) -> str | None:
    text = _text(body, "experiment_id")
    if text is None or text == "":
        return None
    if len(text) > NAME_CHARS_MAX or not text.isprintable():
        raise InvalidInput(
            f"experiment_id has at most {NAME_CHARS_MAX} characters, none of them a control character.",
            fields=("experiment_id",),
        )
    if text in RESERVED or "/" in text or "?" in text or "#" in text or text != text.strip() or text.startswith("."):
        raise InvalidInput("experiment_id must stand in a path, and not be a word of it.", fields=("experiment_id",))
    return text


def _workflow(body: Mapping[str, Any], check: Callable[[Any], object]) -> list[Json] | None:
    key = "workflow" if body.get("workflow") is not None else "workflows"
    given = body.get(key)
    if given is None:
        return None
    steps = [_step(each) for each in given] if isinstance(given, list) else given
    check(steps)
    return normal_workflow(steps)


def _step(step: Any) -> Any:
    """A step with the settings of the oldest clients where they belong."""
    if not isinstance(step, dict):
        return step
    beside = {key: step[key] for key in _STEP_SETTINGS if step.get(key) is not None}
    rest = {key: value for key, value in step.items() if key not in _STEP_SETTINGS}
    config = rest.get("config")
    if beside and (config is None or isinstance(config, dict)):
        rest["config"] = beside | (config or {})
    return rest


def _scoring(body: Mapping[str, Any], evaluators: Evaluators) -> Scoring | None:
    """Of ids and slugs the ids count. Workflows for scoring are not kept here: each id must name an evaluator."""
    workflows = _names(body, "evaluator_workflow_ids")
    by_id, by_slug = _names(body, "evaluator_ids"), _names(body, "evaluator_slugs")
    if workflows and (by_id or by_slug):
        raise InvalidInput(
            "evaluator_workflow_ids and evaluators exclude each other.", fields=("evaluator_workflow_ids",)
        )
    key = "evaluator_workflow_ids" if workflows else "evaluator_ids" if by_id else "evaluator_slugs"
    names = workflows or by_id or by_slug
    if not names:
        return None
    found = []
    for name in names:
        evaluator = evaluators.named(name)
        if evaluator is None:
            raise InvalidInput(f"{key} names {name[:100]!r}, and there is no such evaluator.", fields=(key,))
        found.append(evaluator.uuid)
    return Scoring(list(dict.fromkeys(found)), list(workflows))


def _names(body: Mapping[str, Any], key: str) -> Sequence[str]:
    value = body.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise InvalidInput(f"{key} is a list of ids.", fields=(key,))
    return value
