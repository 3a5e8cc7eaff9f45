"""The workflow of an experiment: its steps as the caller wrote them, checked before anything is stored.

A workflow is a list of `{"type", "config"}`. What a type or a config key means is a closed set, so that a typing error
is an answer of 400 and not a run that quietly does something else. Nothing here runs; steps.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from clearspan.experiments.conditions import Check, parse_policy
from clearspan.experiments.templates import check_template
from clearspan.model.errors import InvalidInput

STEPS_MAX: Final = 50
MESSAGES_MAX: Final = 200
TIMEOUT_HOURS_MAX: Final = 366 * 24
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
ALIASES: Final[Mapping[str, str]] = {"evaluator": "eval", "custom": "wait"}
"""Words of older clients for a type."""

OnFalse: TypeAlias = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The item's reference output becomes the output."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The item waits until somebody gives it an input and an output.

    Attributes:
        timeout_hours: how long; then the item fails. None: for ever.
    """

    timeout_hours: float | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """What follows is done only where every check holds.

    Attributes:
        on_false: `stop` ends the workflow of the item, `skip` passes over the next step alone.
    """

    checks: tuple[Check, ...]
    on_false: OnFalse = "stop"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a model.

    Attributes:
        messages: with `{{…}}` in their texts; None: the input itself is asked.
        parameters: passed on as they are.
        prompt: what the prompt is called, and its version; None of a plain completion.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...] | None
    parameters: Mapping[str, Any]
    prompt: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluators, by UUID or slug, score what there is by now; later conditions can ask for it."""

    evaluators: tuple[str, ...]


Step: TypeAlias = Duplicate | Wait | Branch | Call | Evaluate


class _Known(NamedTuple):
    """What a workflow may refer to."""

    evaluator: Callable[[str], bool]
    default_model: str | None


class _Config:
    """The config of one step, read key by key; every refusal names its key."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._config = config
        self._where = where
        self._read: set[str] = set()

    def take(self, key: str) -> Any:
        """The value, None when it is not given."""
        self._read.add(key)
        return self._config.get(key)

    def text(self, key: str) -> str | None:
        """A text that is not empty, or None."""
        value = self.take(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise self.refusal(key, "must be a text that is not empty")
        return value

    def refusal(self, key: str, reason: str) -> InvalidInput:
        """An error about one key."""
        name = f"{self._where}.config.{key}"
        return InvalidInput(f"{name} {reason}.", fields=(name,))

    def end(self, told: Sequence[str]) -> None:
        """Raises InvalidInput when there is a key that nobody read."""
        unknown = next((key for key in self._config if key not in self._read), None)
        if unknown is not None:
            allowed = f"allowed: {', '.join(told)}" if told else "this step takes none"
            raise self.refusal(str(unknown)[:100], f"is not known ({allowed})")


def parse_workflow(
    workflow: Any, *, knows: Callable[[str], bool] = lambda name: True, default_model: str | None = None
) -> tuple[Step, ...]:
    """The steps of a workflow.

    Args:
        workflow: as the caller sent it.
        knows: whether there is an evaluator of that UUID or slug.
        default_model: what a step asks that names no model (the setting `llm_model`); None: a step must name one.
    Raises:
        InvalidInput: names the step and the key that is wrong, such as `workflow[1].config.model`.
    """
    if not isinstance(workflow, list) or not workflow:
        raise InvalidInput("workflow must be a list of at least one step.", fields=("workflow",))
    if len(workflow) > STEPS_MAX:
        raise InvalidInput(f"workflow has more than {STEPS_MAX} steps.", fields=("workflow",))
    known = _Known(knows, default_model)
    return tuple(_parse_step(step, f"workflow[{number}]", known) for number, step in enumerate(workflow))


def normal_workflow(workflow: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A workflow that was parsed, with the types by their present names: what is stored and shown."""
    return [{"type": type_of(step), "config": dict(step.get("config") or {})} for step in workflow]


def type_of(step: Mapping[str, Any]) -> str:
    """The present name of a step's type."""
    told = step.get("type")
    return ALIASES.get(told, told) if isinstance(told, str) else ""


def timeout_hours(step: Mapping[str, Any]) -> float | None:
    """How long a stored step of type `wait` waits; None: for ever, or it is none."""
    hours = (step.get("config") or {}).get("timeout_hours") if type_of(step) == "wait" else None
    return hours if isinstance(hours, int | float) else None


def _parse_step(step: Any, where: str, known: _Known) -> Step:
    if not isinstance(step, dict):
        raise InvalidInput(f"{where} must be an object with type and config.", fields=(where,))
    unknown = next((key for key in step if key not in ("type", "config")), None)
    if unknown is not None:
        name = f"{where}.{str(unknown)[:100]}"
        raise InvalidInput(f"{name} is not known (allowed: type, config).", fields=(name,))
    parse = _PARSERS.get(type_of(step))
    if parse is None:
        raise InvalidInput(f"{where}.type must be one of {', '.join(_PARSERS)}.", fields=(f"{where}.type",))
    config = step.get("config")
    if config is not None and not isinstance(config, dict):
        raise InvalidInput(f"{where}.config must be an object.", fields=(f"{where}.config",))
    return parse(_Config(config or {}, where), known)


def _duplicate(config: _Config, known: _Known) -> Step:
    config.end(())
    return Duplicate()


def _wait(config: _Config, known: _Known) -> Step:
    if config.take("allow_submission") not in (None, True):
        raise config.refusal("allow_submission", "can only be true: a waiting item is always open for its result")
    hours = config.take("timeout_hours")
    is_number = isinstance(hours, int | float) and not isinstance(hours, bool)
    if hours is not None and not (is_number and 0 < hours <= TIMEOUT_HOURS_MAX):
        raise config.refusal("timeout_hours", f"must be a number above 0 and at most {TIMEOUT_HOURS_MAX}: a year")
    config.end(("allow_submission", "timeout_hours"))
    return Wait(hours)


def _condition(config: _Config, known: _Known) -> Step:
    try:
        checks = parse_policy(config.take("condition_policy"))
    except InvalidInput as error:
        raise config.refusal(".".join(("condition_policy", *error.fields)), error.message) from None
    on_false = config.take("on_false")
    if on_false not in (None, "stop", "skip"):
        raise config.refusal("on_false", "must be stop or skip")
    config.end(("condition_policy", "on_false"))
    return Branch(checks, on_false or "stop")


def _completion(config: _Config, known: _Known) -> Step:
    model, messages = _model(config, known), _messages(config)
    parameters = _parameters(config)
    config.end(("model", "messages", "template", *_PARAMETERS))
    return Call(model, messages, parameters)


def _prompt(config: _Config, known: _Known) -> Step:
    prompt_id, slug, version = config.text("prompt_id"), config.text("prompt_slug"), config.take("version")
    if prompt_id is None and slug is None:
        raise config.refusal("prompt_id", "or prompt_slug is missing")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int | str)):
        raise config.refusal("version", "must be a number or a text")
    messages = _messages(config)
    if messages is None:
        reason = "or template is missing: no prompts are kept here, so the step says the text of the one it names"
        raise config.refusal("messages", reason)
    model, parameters = _model(config, known), _parameters(config)
    config.end(("prompt_id", "prompt_slug", "version", "model", "messages", "template", *_PARAMETERS))
    return Call(model, messages, parameters, slug or prompt_id, None if version is None else str(version))


def _eval(config: _Config, known: _Known) -> Step:
    keys = ("evaluator_ids", "evaluator_slugs", "evaluator_id", "evaluator_slug")
    names: list[str] = []
    for key in keys:
        given = config.take(key)
        listed = given if isinstance(given, list) else [] if given is None else [given]
        for name in listed:
            if not isinstance(name, str) or not name:
                raise config.refusal(key, "must name evaluators")
            if not known.evaluator(name):
                raise config.refusal(key, "names an evaluator that does not exist")
            names.append(name)
    if not names:
        raise config.refusal("evaluator_slugs", "or evaluator_ids is missing")
    config.end(keys)
    return Evaluate(tuple(dict.fromkeys(names)))


def _model(config: _Config, known: _Known) -> str:
    model = config.text("model") or known.default_model
    if model is None:
        raise config.refusal("model", "is missing")
    return model


def _messages(config: _Config) -> tuple[Mapping[str, Any], ...] | None:
    template, messages = config.text("template"), config.take("messages")
    if template is not None and messages is not None:
        raise config.refusal("template", "and messages exclude each other")
    if template is not None:
        _check_texts(config, "template", template)
        return ({"role": "user", "content": template},)
    if messages is None:
        return None
    if not isinstance(messages, list) or not 0 < len(messages) <= MESSAGES_MAX:
        raise config.refusal("messages", f"must be a list of 1 to {MESSAGES_MAX} messages")
    for number, message in enumerate(messages):
        key = f"messages[{number}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise config.refusal(f"{key}.role", f"must be one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str | list | None):
            raise config.refusal(f"{key}.content", "must be a text or a list of parts")
        _check_texts(config, f"{key}.content", message.get("content"))
    return tuple(messages)


def _check_texts(config: _Config, key: str, content: Any) -> None:
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content or () if _is_text(part)]
    for text in texts:
        try:
            check_template(text)
        except InvalidInput as error:
            raise config.refusal(key, error.message) from None


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _parameters(config: _Config) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for key, (is_valid, expected) in _PARAMETERS.items():
        value = config.take(key)
        if value is None:
            continue
        if not is_valid(value):
            raise config.refusal(key, f"must be {expected}")
        if key != "stream":
            parameters[key] = value
    return parameters


def _number(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    def is_valid(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return is_valid, f"a number from {low:g} to {high:g}"


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    def is_valid(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= low

    return is_valid, f"a whole number from {low}"


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


_PARAMETERS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "max_tokens": _whole(1),
    "max_completion_tokens": _whole(1),
    "seed": _whole(-(2**63)),
    "stop": (_is_stop, "a text or a list of texts"),
    "response_format": (lambda value: isinstance(value, dict), "an object"),
    "tools": (lambda value: isinstance(value, list), "a list"),
    "tool_choice": (lambda value: isinstance(value, str | dict), "a text or an object"),
    "parallel_tool_calls": (lambda value: isinstance(value, bool), "true or false"),
    "logit_bias": (lambda value: isinstance(value, dict), "an object"),
    "verbosity": (lambda value: isinstance(value, str), "a text"),
    "reasoning_effort": (lambda value: isinstance(value, str), "a text"),
    "stream": (lambda value: value is False, "false: an answer is stored whole"),
}
"""Settings of a model call that are passed on."""

_PARSERS: Final[Mapping[str, Callable[[_Config, _Known], Step]]] = {
    "duplicate": _duplicate,
    "wait": _wait,
    "condition": _condition,
    "completion": _completion,
    "prompt": _prompt,
    "eval": _eval,
}
