"""Evaluators in Respan's words: bodies read and checked, definitions shown. Pure.

The vendor has three types, `llm`, `human` and `code`. Code does not run in this server: an evaluator of type `code` is
one that measures, named by `eval_class` and configured by `configurations`, or one whose scores are posted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from clearspan.api.bodies import check_members
from clearspan.api.respan.convert import Json
from clearspan.api.respan.window import render_time
from clearspan.catalog.evaluators import Evaluator
from clearspan.experiments.builtin import MEASURING
from clearspan.experiments.definitions import uuid_text
from clearspan.experiments.evaluator_config import Kind, check_config
from clearspan.model.errors import InvalidInput

SLUG_CHARS_MAX: Final = 100
NAME_CHARS_MAX: Final = 200
_SLUG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-fA-F]{32}")
_NO_SLUG: Final = re.compile(r"[^a-z0-9]+")
_KNOWN: Final = frozenset({
    "name", "evaluator_slug", "type", "score_value_type", "eval_class", "description", "score_config",
    "passing_conditions", "llm_config", "code_config", "configurations", "categorical_choices", "starred", "tags",
})  # fmt: skip
_TYPES: Final = {
    "llm": Kind.LLM, "human": Kind.HUMAN, "code": Kind.EXTERNAL, "function": Kind.EXTERNAL, "custom": Kind.EXTERNAL,
    "human_numerical": Kind.HUMAN, "human_boolean": Kind.HUMAN, "human_categorical": Kind.HUMAN,
    "human_text": Kind.HUMAN,
}  # fmt: skip
"""The vendor's types, the older ones too."""
_TYPED: Final = {
    "human_numerical": "numerical", "human_boolean": "boolean", "human_categorical": "categorical",
    "human_text": "text",
}  # fmt: skip
_TEMPLATES: Final = {"keywordsai_custom_llm": Kind.LLM, "custom_code": Kind.EXTERNAL}
"""The vendor's templates that have no content of their own."""
_OF_LLM: Final = {"evaluator_definition": "prompt", "scoring_rubric": "rubric"}
_SCALE: Final = ("min_score", "max_score", "choices")


class SaidOfEvaluator(NamedTuple):
    """What a body makes of an evaluator: arguments of the Catalog."""

    slug: str | None  # None: not said
    name: str
    kind: str
    config: dict[str, Any]
    score_type: str
    description: str | None

    def changes(self, known: Evaluator) -> dict[str, Any]:
        """What of it differs from how the evaluator is."""
        said = self._asdict() | ({"slug": known.slug} if self.slug is None else {})
        return {name: value for name, value in said.items() if value != getattr(known, name)}


def read_evaluator(body: Json, known: Evaluator | None = None, *, is_whole: bool = True) -> SaidOfEvaluator:
    """What a body says of an evaluator.

    Args:
        known: as it is now; None for a new one.
        is_whole: what is left out goes back to its default; else it stays as it is.
    Raises:
        InvalidInput: with the member that is wrong.
    """
    check_members(body, _KNOWN, "an evaluator")
    said = {name: value for name, value in body.items() if value is not None}
    before = None if is_whole else known
    kind, type_of_scores = _kind(said, known)
    if before is not None and before.kind != kind:
        before = None  # what configures one kind says nothing to another
    config = ({} if before is None else dict(before.config)) | _config(said)
    wanted = _text(said, "score_value_type") or type_of_scores or (None if before is None else before.score_type)
    stored, score_type = check_config(kind, config, wanted)
    kept = None if is_whole or known is None else known
    return SaidOfEvaluator(
        slug=_slug(said),
        name=_name(said, kept),
        kind=kind,
        config=stored,
        score_type=score_type,
        description=_text(said, "description") if "description" in body or kept is None else kept.description,
    )


def slug_of(name: str) -> str:
    """A slug made of a name."""
    made = _NO_SLUG.sub("_", name.lower()).strip("_")[: SLUG_CHARS_MAX - 4] or "evaluator"
    return f"{made}_" if _UUID.fullmatch(made) else made


def render_evaluator(evaluator: Evaluator) -> Json:
    """An evaluator as clients know it. There is one version of each, which can be changed."""
    config, kind = evaluator.config, Kind(evaluator.kind)
    ours = {"passing_conditions", "starred", *_SCALE}
    wire = {ours_name: theirs for theirs, ours_name in _OF_LLM.items()}
    llm = {wire.get(name, name): value for name, value in config.items() if name not in ours}
    return {
        "id": uuid_text(evaluator.uuid),
        "version_id": uuid_text(evaluator.uuid),
        "version": 0,
        "version_count": 1,
        "is_read_only": False,
        "version_description": None,
        "name": evaluator.name,
        "evaluator_slug": evaluator.slug,
        "type": type_of(kind),
        "score_value_type": evaluator.score_type,
        "eval_class": kind.value if kind in MEASURING else None,
        "description": evaluator.description,
        "score_config": {name: config[name] for name in _SCALE if name in config} or None,
        "passing_conditions": config.get("passing_conditions"),
        "llm_config": llm if kind is Kind.LLM else None,
        "code_config": None,
        "configurations": {name: value for name, value in config.items() if name not in ours} or None,
        "categorical_choices": config.get("choices"),
        "starred": config.get("starred", False),
        "created_at": render_time(evaluator.created_at_ns),
        "updated_at": render_time(evaluator.updated_at_ns),
        "created_by": None,
        "updated_by": None,
        "tags": [],
        "is_public": False,
        "kind": kind.value,
    }


def type_of(kind: Kind) -> str:
    """The vendor's type of a kind."""
    return kind.value if kind in (Kind.LLM, Kind.HUMAN) else "code"


def _kind(said: Json, known: Evaluator | None) -> tuple[Kind, str | None]:
    """The kind, and the type of scores where an old type says it."""
    given, template = _text(said, "type"), _text(said, "eval_class")
    configurations = _object(said, "configurations")
    named = None if given is None else _TYPES.get(given) or _kind_named(given, "type")
    made = None if template is None else _TEMPLATES.get(template) or _kind_named(template, "eval_class")
    if made is not None and named not in (None, made) and not (named is Kind.EXTERNAL and made in MEASURING):
        raise InvalidInput(f"eval_class {template!r} does not fit type {given!r}.", fields=("eval_class",))
    if _object(said, "code_config").get("eval_code_snippet"):
        raise InvalidInput(
            "Code does not run in this server: run it yourself and post its scores, or let eval_class measure.",
            code="code_not_run",
            fields=("code_config",),
        )
    kind = made or named
    if kind is None and ("llm_config" in said and known is None):
        kind = Kind.LLM
    if kind is Kind.EXTERNAL and made is None and known is not None and type_of(Kind(known.kind)) == "code":
        kind = Kind(known.kind)  # `code` again says nothing new
    if kind is None and known is not None:
        kind = Kind(known.kind)
    if kind is None:
        raise InvalidInput("type is required: llm, human or code.", fields=("type",))
    if kind not in MEASURING and kind is not Kind.LLM and configurations:
        raise InvalidInput(f"An evaluator of kind {kind} has no configurations.", fields=("configurations",))
    return kind, _TYPED.get(given or "")


def _kind_named(word: str, where: str) -> Kind:
    try:
        return Kind(word)
    except ValueError:
        known = ", ".join(["llm, human, code"] if where == "type" else sorted(MEASURING))
        raise InvalidInput(f"{where} is one of {known}.", fields=(where,)) from None


def _config(said: Json) -> dict[str, Any]:
    """What the body says of the configuration, under our names."""
    llm = {_OF_LLM.get(name, name): value for name, value in _object(said, "llm_config").items()}
    config = dict(_object(said, "configurations")) | llm | dict(_object(said, "score_config"))
    if "categorical_choices" in said:
        config.setdefault("choices", said["categorical_choices"])
    config |= {name: said[name] for name in ("passing_conditions", "starred") if name in said}
    return {name: value for name, value in config.items() if value is not None}


def _slug(said: Json) -> str | None:
    slug = _text(said, "evaluator_slug")
    if slug is not None and (len(slug) > SLUG_CHARS_MAX or not _SLUG.fullmatch(slug) or _UUID.fullmatch(slug)):
        raise InvalidInput(
            f"evaluator_slug has 1 to {SLUG_CHARS_MAX} letters, digits, `_`, `-` and `.`, and is not like an id.",
            fields=("evaluator_slug",),
        )
    return slug


def _name(said: Json, known: Evaluator | None) -> str:
    name = _text(said, "name")
    if name is None and known is not None:
        return known.name
    if not name or len(name) > NAME_CHARS_MAX:
        raise InvalidInput(f"name must be a text of 1 to {NAME_CHARS_MAX} characters.", fields=("name",))
    return name


def _text(said: Json, name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name} must be a text.", fields=(name,))
    return value


def _object(said: Json, name: str) -> Mapping[str, Any]:
    value = said.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object.", fields=(name,))
    return value
