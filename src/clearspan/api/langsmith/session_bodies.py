"""What a body says of a session that is made or changed."""

from __future__ import annotations

from clearspan.api.langsmith.inputs import (
    Json,
    optional_count,
    optional_object,
    optional_text,
    optional_texts,
    optional_time,
    optional_uuid,
)
from clearspan.api.langsmith.session_views import TIERS
from clearspan.catalog import Project, ProjectSettings
from clearspan.model.errors import InvalidInput

_CLOSING = ("dataset_version", "dataset_splits")
_TYPES = ("PROJECT", "AGENT", "EXPERIMENT")


def read_name(body: Json) -> str:
    """The name that a body must give. Raises InvalidInput."""
    name = optional_text(body, "name")
    if name is None:
        raise InvalidInput("name is required.", fields=("name",))
    return name


def read_settings(body: Json, known: Project | None = None) -> ProjectSettings:
    """Everything else; null means "not said". Raises InvalidInput, naming the key.

    Args:
        known: the project that is changed: what the body does not say of an experiment stays.
    """
    options = {name: value for name, value in _options(body).items() if value is not None}
    if options and known is not None:
        options = (known.options or {}) | options
    return ProjectSettings(
        description=optional_text(body, "description"),
        extra=optional_object(body, "extra"),
        options=options or None,
        start_ns=optional_time(body, "start_time"),
        end_ns=optional_time(body, "end_time"),
        reference_dataset_id=optional_uuid(body, "reference_dataset_id"),
        default_dataset_id=optional_uuid(body, "default_dataset_id"),
        trace_tier=_tier(body),
    )


def closes_experiment(body: Json) -> bool:
    """Whether a change of a session says that its experiment is over.

    The last thing that `evaluate()` does is to add the dataset's version and splits to the session's metadata. It sends
    no `end_time`.
    """
    metadata = (optional_object(body, "extra") or {}).get("metadata")
    return isinstance(metadata, dict) and not metadata.keys().isdisjoint(_CLOSING)


def _options(body: Json) -> Json:
    kind = optional_text(body, "type")
    if kind is not None and kind not in _TYPES:
        raise InvalidInput(f"type is one of {', '.join(_TYPES)}.", fields=("type",))
    return {
        "type": kind,
        "num_examples": optional_count(body, "num_examples"),
        "num_repetitions": optional_count(body, "num_repetitions"),
        "longlived_ttl_days": optional_count(body, "longlived_ttl_days"),
        "evaluator_keys": optional_texts(body, "evaluator_keys"),
        "tag_value_ids": optional_texts(body, "tag_value_ids"),
        "kicked_off_by": optional_text(body, "kicked_off_by"),
    }


def _tier(body: Json) -> str | None:
    text = optional_text(body, "trace_tier")
    if text is None:
        return None
    tier = TIERS.get(text, text)
    if tier not in TIERS.values():
        raise InvalidInput("trace_tier is longlived or shortlived.", fields=("trace_tier",))
    return tier
