"""Annotation configs: how annotations of one name are to be read, and which projects show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, RootModel
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix import globalids
from clearspan.api.phoenix.annotation_kinds import NOTE_NAME
from clearspan.api.phoenix.conventions import (
    AnyLimit,
    Body,
    Query,
    Refused,
    data_reply,
    no_content,
    page_reply,
    phoenix,
    read_object,
    read_query,
)
from clearspan.api.phoenix.cursors import parse_cursor, render_cursor
from clearspan.api.phoenix.naming import find_project
from clearspan.api.routing import RestRoute
from clearspan.api.services import Services, services_of
from clearspan.catalog import AnnotationConfig, ConfigDefinition, Principal
from clearspan.catalog.annotation_configs import AnnotationConfigs, Category, ConfigType, Direction
from clearspan.model.errors import Conflict, InvalidInput, NotFound

Json = dict[str, Any]
DirectionWord = Literal["MINIMIZE", "MAXIMIZE", "NONE"]
Number = Annotated[float, Field(allow_inf_nan=False)]

_GIDS: Final = {
    ConfigType.CATEGORICAL: globalids.CATEGORICAL_CONFIG,
    ConfigType.CONTINUOUS: globalids.CONTINUOUS_CONFIG,
    ConfigType.FREEFORM: globalids.FREEFORM_CONFIG,
}
_ANY_CONFIG: Final = tuple(_GIDS.values())
_CURSOR: Final = "annotation_configs"
_ABSENT: Final = "Annotation configuration not found"
_TAKEN: Final = "The name of the annotation configuration is already taken"
_RESERVED: Final = "The name 'note' is reserved for trace and span notes and cannot be used for annotation configs."
_NO_VALUES: Final = "Values must be non-empty"
_BOUNDS: Final = "Lower bound must be strictly less than upper bound"


class _Value(Body):
    label: str
    score: Number | None = None


class _Categorical(Body):
    name: str
    type: Literal["CATEGORICAL"]
    description: str | None = None
    optimization_direction: DirectionWord
    values: list[_Value]


class _Continuous(Body):
    name: str
    type: Literal["CONTINUOUS"]
    description: str | None = None
    optimization_direction: DirectionWord
    lower_bound: Number | None = None
    upper_bound: Number | None = None


class _Freeform(Body):
    name: str
    type: Literal["FREEFORM"]
    description: str | None = None
    optimization_direction: DirectionWord | None = None
    threshold: Number | None = None
    lower_bound: Number | None = None
    upper_bound: Number | None = None


class _Config(RootModel[Annotated[_Categorical | _Continuous | _Freeform, Field(discriminator="type")]]):
    """The object itself, without a wrapper."""


class _PageQuery(Query):
    cursor: str | None = None
    limit: AnyLimit = 100


class _Assigned(Body):
    annotation_config_ids: list[str]


@requires(Permission.READ)
async def list_annotation_configs(request: Request) -> Response:
    """The organisation's configs, newest first."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _PageQuery)
    before = _cursor(asked)
    every = await services.reads.run(_configs(services).of_organisation, principal.org_id)
    return _page(every, before, asked.limit)


@requires(Permission.READ)
async def get_annotation_config(request: Request) -> Response:
    """One config, by its id or its name."""
    services, principal = services_of(request), principal_of(request)
    named = request.path_params["config"]
    return data_reply(render_config(await services.reads.run(_find, services, principal, named)))


@requires(Permission.ANNOTATE)
async def create_annotation_config(request: Request) -> Response:
    """A new config; its name must be free."""
    services, principal = services_of(request), principal_of(request)
    said = (await read_object(request, _Config)).root
    definition = _definition(said)

    def write() -> AnnotationConfig:
        with _Refusing():
            return _configs(services).create(principal.org_id, said.name, definition)

    return data_reply(render_config(await services.reads.run(write)))


@requires(Permission.ANNOTATE)
async def update_annotation_config(request: Request) -> Response:
    """Give a config, named by its id, another definition and another name."""
    services, principal = services_of(request), principal_of(request)
    said = (await read_object(request, _Config)).root
    definition = _definition(said)
    number = _number(request.path_params["config"], 400)

    def write() -> AnnotationConfig:
        with _Refusing():
            return _configs(services).replace(principal.org_id, number, definition, name=said.name)

    return data_reply(render_config(await services.reads.run(write)))


@requires(Permission.ANNOTATE)
async def delete_annotation_config(request: Request) -> Response:
    """Remove a config, named by its id; the annotations of its name stay. Answers with what it was."""
    services, principal = services_of(request), principal_of(request)
    named = request.path_params["config"]
    _number(named, 422)

    def write() -> AnnotationConfig:
        found = _find(services, principal, named)
        with _Refusing():
            _configs(services).delete(principal.org_id, found.id)
        return found

    return data_reply(render_config(await services.reads.run(write)))


# Of projects


@requires(Permission.READ)
async def list_project_annotation_configs(request: Request) -> Response:
    """The configs that a project shows, newest first."""
    services, principal = services_of(request), principal_of(request)
    asked = read_query(request, _PageQuery)
    before = _cursor(asked)

    def load() -> list[AnnotationConfig]:
        project = find_project(services, principal, request.path_params["project"])
        return _configs(services).of_project(principal.org_id, project.id)

    return _page(await services.reads.run(load), before, asked.limit)


@requires(Permission.ANNOTATE)
async def set_project_annotation_configs(request: Request) -> Response:
    """Let a project show exactly these configs. Answers with them."""
    services, principal = services_of(request), principal_of(request)
    ids = (await read_object(request, _Assigned)).annotation_config_ids
    numbers = [_number(each, 422) for each in ids]

    def write() -> list[AnnotationConfig]:
        project, configs = find_project(services, principal, request.path_params["project"]), _configs(services)
        with _Refusing():
            configs.assign(principal.org_id, project.id, numbers, only_these=True)
        return configs.of_project(principal.org_id, project.id)

    return _page(await services.reads.run(write), None, None)


@requires(Permission.ANNOTATE)
async def assign_annotation_config(request: Request) -> Response:
    """Let a project show one more config, named by its id or its name. Safe to repeat."""
    services, principal = services_of(request), principal_of(request)

    def write() -> AnnotationConfig:
        project = find_project(services, principal, request.path_params["project"])
        found = _find(services, principal, request.path_params["config"])
        with _Refusing():
            _configs(services).assign(principal.org_id, project.id, [found.id])
        return found

    return data_reply(render_config(await services.reads.run(write)))


@requires(Permission.ANNOTATE)
async def unassign_annotation_config(request: Request) -> Response:
    """Let a project not show a config any more. Safe to repeat."""
    services, principal = services_of(request), principal_of(request)

    def write() -> None:
        project = find_project(services, principal, request.path_params["project"])
        found = _find(services, principal, request.path_params["config"])
        _configs(services).unassign(principal.org_id, project.id, found.id)

    await services.reads.run(write)
    return no_content()


def render_config(config: AnnotationConfig) -> Json:
    """A config as Phoenix's clients know it. A category without a label is shown by its value."""
    said = config.definition
    shown: Json = {
        "name": config.name,
        "type": said.type.value.upper(),
        "description": said.description,
        "optimization_direction": said.direction.value.upper(),
    }
    match said.type:
        case ConfigType.CATEGORICAL:
            shown["values"] = [
                {"label": f"{each.value:g}" if each.label is None else each.label, "score": each.value}
                for each in said.categories
            ]
        case ConfigType.CONTINUOUS:
            shown |= {"lower_bound": said.lower_bound, "upper_bound": said.upper_bound}
        case ConfigType.FREEFORM:
            if said.direction is Direction.NONE:
                shown["optimization_direction"] = None
            shown |= {"threshold": said.threshold, "lower_bound": said.lower_bound, "upper_bound": said.upper_bound}
    return shown | {"id": globalids.render(_GIDS[said.type], config.id)}


class _Refusing:
    """What the Catalog objects to, in the dialect's words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Conflict):
            raise Refused(409, _TAKEN) from None
        if isinstance(error, NotFound):
            raise Refused(404, _ABSENT) from None
        if isinstance(error, InvalidInput):
            raise Refused(400, error.message) from None


def _definition(said: _Categorical | _Continuous | _Freeform) -> ConfigDefinition:
    """Raises Refused: 409 for the name of notes, 400 for a definition that makes no sense."""
    if said.name == NOTE_NAME:
        raise Refused(409, _RESERVED)
    direction = Direction((said.optimization_direction or "NONE").lower())
    made = ConfigDefinition(ConfigType(said.type.lower()), direction, description=said.description)
    if isinstance(said, _Categorical):
        if not said.values:
            raise Refused(400, _NO_VALUES)
        return made._replace(categories=tuple(Category(each.label, each.score) for each in said.values))
    if said.lower_bound is not None and said.upper_bound is not None and said.lower_bound >= said.upper_bound:
        raise Refused(400, _BOUNDS)
    made = made._replace(lower_bound=said.lower_bound, upper_bound=said.upper_bound)
    return made._replace(threshold=said.threshold) if isinstance(said, _Freeform) else made


def _configs(services: Services) -> AnnotationConfigs:
    return services.catalog.annotation_configs


def _find(services: Services, principal: Principal, named: str) -> AnnotationConfig:
    """The config of an id or a name. Blocks. Raises Refused (404)."""
    number = globalids.row_of(named, *_ANY_CONFIG)
    every = _configs(services).of_organisation(principal.org_id)
    found = next((each for each in every if (each.name == named if number is None else each.id == number)), None)
    if found is None:
        raise Refused(404, _ABSENT)
    return found


def _number(named: str, status: int) -> int:
    """The number in the GlobalID of a config. Raises Refused with that status."""
    number = globalids.row_of(named, *_ANY_CONFIG)
    if number is None:
        raise Refused(status, f"Invalid annotation configuration ID format: {named}")
    return number


def _cursor(asked: _PageQuery) -> int | None:
    if not asked.cursor:
        return None
    parsed = parse_cursor(asked.cursor, _CURSOR, int)
    if parsed is None:
        raise Refused(400, f"Invalid cursor: {asked.cursor}")
    return int(str(parsed[0]))


def _page(every: Sequence[AnnotationConfig], before: int | None, limit: int | None) -> Response:
    left = [each for each in reversed(every) if before is None or each.id < before]
    shown = left[:limit]
    more = render_cursor(_CURSOR, shown[-1].id) if len(left) > len(shown) else None
    return page_reply([render_config(each) for each in shown], more)


ROUTES: Final[tuple[RestRoute, ...]] = (
    phoenix("GET", "/annotation_configs", list_annotation_configs),
    phoenix("POST", "/annotation_configs", create_annotation_config),
    phoenix("GET", "/annotation_configs/{config}", get_annotation_config),
    phoenix("PUT", "/annotation_configs/{config}", update_annotation_config),
    phoenix("DELETE", "/annotation_configs/{config}", delete_annotation_config),
    phoenix("GET", "/projects/{project}/annotation_configs", list_project_annotation_configs),
    phoenix("PUT", "/projects/{project}/annotation_configs", set_project_annotation_configs),
    phoenix("PUT", "/projects/{project}/annotation_configs/{config}", assign_annotation_config),
    phoenix("DELETE", "/projects/{project}/annotation_configs/{config}", unassign_annotation_config),
)
