"""How annotations of one name are to be read: LangSmith's feedback configs, Phoenix's annotation configs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from clearspan.catalog.database import Database
from clearspan.catalog.projects import DESCRIPTION_CHARS_MAX, check_name
from clearspan.catalog.tables import annotation_config, annotation_config_project, project
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound

INITIAL_NAME = "user_feedback"
"""The config that every organisation begins with, as a fresh Phoenix does."""
CATEGORIES_MAX = 1_000
LABEL_CHARS_MAX = 1_000


class ConfigType(StrEnum):
    """What an annotation of that name says."""

    CONTINUOUS = "continuous"
    CATEGORICAL = "categorical"
    FREEFORM = "freeform"


class Direction(StrEnum):
    """Which end of the scale is the good one."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"
    NONE = "none"


class Category(NamedTuple):
    """One label, and the score it stands for."""

    label: str | None
    value: float | None


class ConfigDefinition(NamedTuple):
    """What a config says."""

    type: ConfigType
    direction: Direction = Direction.NONE
    lower_bound: float | None = None
    upper_bound: float | None = None
    threshold: float | None = None
    categories: tuple[Category, ...] = ()
    description: str | None = None


class AnnotationConfig(NamedTuple):
    """A config of an organisation; its name is unique there."""

    id: int
    public_id: str
    org_id: int
    name: str
    definition: ConfigDefinition
    created_at_ns: int
    updated_at_ns: int


_CONFIG = select(annotation_config)


class AnnotationConfigs:
    """Configs of every organisation; each method one transaction, safe from any thread."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    def create(self, org_id: int, name: str, definition: ConfigDefinition) -> AnnotationConfig:
        """A new config. Raises Conflict when the name is taken, InvalidInput when the definition makes no sense."""
        now = self._clock.now_ns()
        values = _columns(definition) | {
            "public_id": self._ids.new_id("aconf"),
            "org_id": org_id,
            "name": check_name(name),
            "created_at_ns": now,
            "updated_at_ns": now,
        }
        with self._database.write() as db:
            try:
                with db.begin_nested():
                    db.execute(insert(annotation_config).values(values))
            except IntegrityError as error:
                raise Conflict(f"There is a config for {name!r} already.", fields=("name",)) from error
            return _named(db, org_id, name)

    def of_organisation(self, org_id: int) -> list[AnnotationConfig]:
        """The organisation's configs, oldest first."""
        query = _CONFIG.where(annotation_config.c.org_id == org_id).order_by(annotation_config.c.id)
        with self._database.read() as db:
            return [_config(row) for row in db.execute(query)]

    def get(self, org_id: int, name: str) -> AnnotationConfig:
        """The config of a name. Raises NotFound."""
        with self._database.read() as db:
            return _named(db, org_id, name)

    def replace(
        self, org_id: int, config_id: int, definition: ConfigDefinition, *, name: str | None = None
    ) -> AnnotationConfig:
        """Give a config another definition, and another name. Raises NotFound, Conflict, InvalidInput."""
        values = _columns(definition) | {"updated_at_ns": self._clock.now_ns()}
        if name is not None:
            values["name"] = check_name(name)
        mine = (annotation_config.c.org_id == org_id) & (annotation_config.c.id == config_id)
        with self._database.write() as db:
            try:
                with db.begin_nested():
                    changed = db.execute(update(annotation_config).where(mine).values(values)).rowcount
            except IntegrityError as error:
                raise Conflict(f"There is a config for {name!r} already.", fields=("name",)) from error
            if changed != 1:
                raise NotFound("There is no such config.")
            return _config(db.execute(_CONFIG.where(mine)).one())

    def delete(self, org_id: int, config_id: int) -> None:
        """Remove a config; the annotations of its name stay. Raises NotFound."""
        mine = (annotation_config.c.org_id == org_id) & (annotation_config.c.id == config_id)
        with self._database.write() as db:
            if db.execute(select(annotation_config.c.id).where(mine)).first() is None:
                raise NotFound("There is no such config.")
            db.execute(delete(annotation_config_project).where(annotation_config_project.c.config_id == config_id))
            db.execute(delete(annotation_config).where(mine))

    # Projects

    def of_project(self, org_id: int, project_id: int) -> list[AnnotationConfig]:
        """The configs that a project shows, oldest first."""
        query = (
            _CONFIG.join(annotation_config_project, annotation_config_project.c.config_id == annotation_config.c.id)
            .where(annotation_config.c.org_id == org_id, annotation_config_project.c.project_id == project_id)
            .order_by(annotation_config.c.id)
        )
        with self._database.read() as db:
            return [_config(row) for row in db.execute(query)]

    def assign(self, org_id: int, project_id: int, config_ids: Sequence[int], *, only_these: bool = False) -> None:
        """Let a project show these configs, besides the ones it has or instead of them. Raises NotFound."""
        link = annotation_config_project
        with self._database.write() as db:
            owner = db.execute(select(project.c.org_id).where(project.c.id == project_id)).scalar()
            mine = set(db.scalars(select(annotation_config.c.id).where(annotation_config.c.org_id == org_id)))
            if owner != org_id or not mine.issuperset(config_ids):
                raise NotFound("There is no such config or project.")
            there = set(db.scalars(select(link.c.config_id).where(link.c.project_id == project_id)))
            if only_these:
                db.execute(delete(link).where(link.c.project_id == project_id))
                there = set()
            for config_id in sorted(set(config_ids) - there):
                db.execute(insert(link).values(config_id=config_id, project_id=project_id))

    def unassign(self, org_id: int, project_id: int, config_id: int) -> bool:
        """Let a project not show a config; False when it did not."""
        link = annotation_config_project
        mine = select(annotation_config.c.id).where(annotation_config.c.org_id == org_id)
        which = (link.c.project_id == project_id) & (link.c.config_id == config_id) & link.c.config_id.in_(mine)
        with self._database.write() as db:
            return db.execute(delete(link).where(which)).rowcount > 0


def add_initial(db: Connection, now_ns: int, ids: IdSource, org_id: int) -> None:
    """Give a new organisation its first config: what users say, good or bad."""
    said = (Category("positive", 1.0), Category("negative", 0.0))
    values = _columns(ConfigDefinition(ConfigType.CATEGORICAL, Direction.MAXIMIZE, categories=said)) | {
        "public_id": ids.new_id("aconf"),
        "org_id": org_id,
        "name": INITIAL_NAME,
        "created_at_ns": now_ns,
        "updated_at_ns": now_ns,
    }
    db.execute(insert(annotation_config).values(values))


def check_definition(definition: ConfigDefinition) -> None:
    """Raise InvalidInput when a definition makes no sense."""
    low, high = definition.lower_bound, definition.upper_bound
    values = [category.value for category in definition.categories]
    for number in (low, high, definition.threshold, *values):
        if number is not None and not math.isfinite(number):
            raise InvalidInput("A bound or value must be a finite number.", fields=("feedback_config",))
    if low is not None and high is not None and low >= high:
        raise InvalidInput("The lower bound must lie below the upper one.", fields=("feedback_config",))
    if definition.type is ConfigType.CATEGORICAL and not definition.categories:
        raise InvalidInput("A categorical config needs at least one category.", fields=("feedback_config",))
    if definition.type is not ConfigType.CATEGORICAL and definition.categories:
        raise InvalidInput("Only a categorical config has categories.", fields=("feedback_config",))
    if len(definition.categories) > CATEGORIES_MAX:
        raise InvalidInput(f"A config has at most {CATEGORIES_MAX} categories.", fields=("feedback_config",))
    for category in definition.categories:
        if category.label is None and category.value is None:
            raise InvalidInput("A category has a label or a value.", fields=("feedback_config",))
        if len(category.label or "") > LABEL_CHARS_MAX:
            raise InvalidInput(f"A label has at most {LABEL_CHARS_MAX} characters.", fields=("feedback_config",))
    if len(definition.description or "") > DESCRIPTION_CHARS_MAX:
        raise InvalidInput(f"A description has at most {DESCRIPTION_CHARS_MAX} characters.", fields=("description",))


def _columns(definition: ConfigDefinition) -> dict[str, Any]:
    check_definition(definition)
    return definition._asdict() | {"categories": orjson.dumps([list(each) for each in definition.categories]).decode()}


def _named(db: Connection, org_id: int, name: str) -> AnnotationConfig:
    mine = (annotation_config.c.org_id == org_id) & (annotation_config.c.name == name)
    row = db.execute(_CONFIG.where(mine)).first()
    if row is None:
        raise NotFound("There is no such config.")
    return _config(row)


def _config(row: Any) -> AnnotationConfig:
    definition = ConfigDefinition(
        type=ConfigType(row.type),
        direction=Direction(row.direction),
        lower_bound=row.lower_bound,
        upper_bound=row.upper_bound,
        threshold=row.threshold,
        categories=tuple(Category(*each) for each in orjson.loads(row.categories)),
        description=row.description,
    )
    return AnnotationConfig(
        row.id, row.public_id, row.org_id, row.name, definition, row.created_at_ns, row.updated_at_ns
    )
