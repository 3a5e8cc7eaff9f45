"""Feedback configs: how the scores of one key are to be read."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.bodies import read_json_object
from clearspan.api.langsmith.info import tenant_of
from clearspan.api.langsmith.inputs import Json, optional_object, optional_text, read_count, render_time
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import services_of
from clearspan.catalog import AnnotationConfig, ConfigDefinition, Principal
from clearspan.catalog.annotation_configs import Category, ConfigType, Direction
from clearspan.model.errors import Conflict, InvalidInput

KEY_CHARS_MAX = 180
LIMIT_MAX = 1_000


@requires(Permission.READ)
async def list_feedback_configs(request: Request) -> Response:
    """The organisation's configs, oldest first; `key`, repeated, names those wanted."""
    services, principal, query = services_of(request), principal_of(request), request.query_params
    offset, limit = read_count(query, "offset", 0), read_count(query, "limit", 100, least=1, most=LIMIT_MAX)
    keys, part = query.getlist("key"), query.get("name_contains", "").casefold()
    every = await services.reads.run(services.catalog.annotation_configs.of_organisation, principal.org_id)
    wanted = [each for each in every if (not keys or each.name in keys) and part in each.name.casefold()]
    return json_reply([render_config(each, principal) for each in wanted[offset : offset + limit]])


@requires(Permission.ANNOTATE)
async def create_feedback_config(request: Request) -> Response:
    """A new config; the same one again is answered as it is, another one under its key is refused."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    name, definition = read_key(body), read_definition(body)
    configs = services.catalog.annotation_configs

    def write() -> AnnotationConfig:
        try:
            return configs.create(principal.org_id, name, definition)
        except Conflict:
            known = configs.get(principal.org_id, name)
            if _same(known.definition, definition):
                return known
            # Not a 409, which its clients would take for success.
            raise InvalidInput(
                f"There is another feedback config for {name!r} already.", fields=("feedback_key",)
            ) from None

    return json_reply(render_config(await services.reads.run(write), principal))


@requires(Permission.ANNOTATE)
async def update_feedback_config(request: Request) -> Response:
    """Change what is given of a config."""
    services, principal = services_of(request), principal_of(request)
    body = await read_json_object(request)
    name = read_key(body)
    configs = services.catalog.annotation_configs

    def write() -> AnnotationConfig:
        known = configs.get(principal.org_id, name)
        definition = read_definition(body, known.definition)
        return configs.replace(principal.org_id, known.id, definition)

    return json_reply(render_config(await services.reads.run(write), principal))


@requires(Permission.ANNOTATE)
async def delete_feedback_config(request: Request) -> Response:
    """Remove a config; the feedback under its key stays."""
    services, principal = services_of(request), principal_of(request)
    name = request.query_params.get("feedback_key")
    if not name:
        raise InvalidInput("feedback_key is required.", fields=("feedback_key",))
    configs = services.catalog.annotation_configs

    def write() -> None:
        configs.delete(principal.org_id, configs.get(principal.org_id, name).id)

    await services.reads.run(write)
    return Response(status_code=204)


def read_key(body: Json) -> str:
    """The key that a body names. Raises InvalidInput."""
    key = optional_text(body, "feedback_key")
    if not key or len(key) > KEY_CHARS_MAX:
        raise InvalidInput(f"feedback_key must be text of 1 to {KEY_CHARS_MAX} characters.", fields=("feedback_key",))
    return key


def read_definition(body: Json, known: ConfigDefinition | None = None) -> ConfigDefinition:
    """What a body says of a config; what it leaves out stays as `known` has it. Raises InvalidInput."""
    given = optional_object(body, "feedback_config")
    if given is not None:
        categories = given.get("categories") or []
        if not isinstance(categories, list):
            raise InvalidInput("categories must be a list.", fields=("feedback_config.categories",))
        made = ConfigDefinition(
            type=_type(given.get("type")),
            lower_bound=_number(given, "min"),
            upper_bound=_number(given, "max"),
            categories=tuple(_category(each) for each in categories),
        )
        if known is not None:  # what only other dialects say
            made = made._replace(direction=known.direction, threshold=known.threshold, description=known.description)
    elif known is None:
        raise InvalidInput("feedback_config is required.", fields=("feedback_config",))
    else:
        made = known
    lower = body.get("is_lower_score_better")
    if lower is None:
        return made
    if not isinstance(lower, bool):
        raise InvalidInput("is_lower_score_better must be true or false.", fields=("is_lower_score_better",))
    if lower:
        return made._replace(direction=Direction.MINIMIZE)
    return made._replace(direction=Direction.NONE) if made.direction is Direction.MINIMIZE else made


def render_config(config: AnnotationConfig, principal: Principal) -> Json:
    """A config as LangSmith's clients know it."""
    said = config.definition
    return {
        "tenant_id": tenant_of(principal),
        "feedback_key": config.name,
        "feedback_config": {
            "type": said.type.value,
            "min": said.lower_bound,
            "max": said.upper_bound,
            "categories": [each._asdict() for each in said.categories] or None,
        },
        "is_lower_score_better": said.direction is Direction.MINIMIZE,
        "modified_at": render_time(config.updated_at_ns),
    }


def _same(one: ConfigDefinition, other: ConfigDefinition) -> bool:
    """Whether two definitions say the same where this dialect can say anything."""
    lower = [each.direction is Direction.MINIMIZE for each in (one, other)]
    return lower[0] == lower[1] and (one.type, one.lower_bound, one.upper_bound, one.categories) == (
        other.type, other.lower_bound, other.upper_bound, other.categories,
    )  # fmt: skip


def _type(text: object) -> ConfigType:
    try:
        return ConfigType(str(text))
    except ValueError:
        known = ", ".join(each.value for each in ConfigType)
        raise InvalidInput(f"A feedback config's type is one of {known}.", fields=("feedback_config.type",)) from None


def _number(given: Json, name: str) -> float | None:
    value: Any = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e308:
        raise InvalidInput(f"{name} must be a number.", fields=(f"feedback_config.{name}",))
    return float(value)


def _category(given: object) -> Category:
    if not isinstance(given, dict):
        raise InvalidInput("A category must be an object.", fields=("feedback_config.categories",))
    return Category(optional_text(given, "label"), _number(given, "value"))


ROUTES = (
    classic("GET", "/feedback-configs", list_feedback_configs),
    classic("POST", "/feedback-configs", create_feedback_config),
    classic("PATCH", "/feedback-configs", update_feedback_config),
    classic("DELETE", "/feedback-configs", delete_feedback_config),
)
