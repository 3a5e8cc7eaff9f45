"""Datasets: what they are called, what their items look like, and what becomes of an item when its source is deleted.

The items are traces, in a project of the dataset's own that no list of projects shows. Removing a dataset is removing
that project: deletion/projects.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from clearspan.catalog import projects
from clearspan.catalog.database import Database
from clearspan.catalog.projects import DESCRIPTION_CHARS_MAX, Project, ProjectPurpose, ProjectState, json_text
from clearspan.catalog.tables import dataset, project
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound

DATA_TYPES = frozenset({"kv", "llm", "chat"})
_JSON = ("extra", "inputs_schema", "outputs_schema", "transformations", "tags")


class SourcePolicy(StrEnum):
    """What becomes of an item when the trace that it was made from is deleted."""

    ERASE = "erase"  # it goes with the trace
    REDACT = "redact"  # its content goes with the trace, an empty item stays in its place
    DETACH = "detach"  # it stays without the link to its source, and the receipt says that copies stay


class Dataset(NamedTuple):
    """A dataset of an organisation; its name and its UUID are unique there."""

    id: int
    uuid: str  # 32 hex digits
    org_id: int
    project_id: int  # whose traces are its items
    name: str
    description: str | None
    data_type: str  # one of DATA_TYPES
    extra: dict[str, Any] | None
    inputs_schema: dict[str, Any] | None
    outputs_schema: dict[str, Any] | None
    transformations: list[Any] | None
    on_source_deleted: SourcePolicy
    tags: dict[str, int] | None  # name of a version → the time (ns) as of which it is read
    created_at_ns: int
    updated_at_ns: int


class DatasetSettings(NamedTuple):
    """What may be said of a dataset besides its name; None: not said."""

    description: str | None = None
    data_type: str | None = None
    extra: Mapping[str, Any] | None = None
    inputs_schema: Mapping[str, Any] | None = None
    outputs_schema: Mapping[str, Any] | None = None
    transformations: Sequence[Any] | None = None
    on_source_deleted: SourcePolicy | None = None
    tags: Mapping[str, int] | None = None


NO_SETTINGS = DatasetSettings()
_DATASET = select(*(dataset.c[name] for name in Dataset._fields)).join(project, project.c.id == dataset.c.project_id)
_LIVE = project.c.state == ProjectState.LIVE


class Datasets:
    """Datasets of every organisation; each method one transaction, safe from any thread."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, forget: Callable[[], None]) -> None:
        """
        Args:
            forget: called when a project came into being: what is remembered of keys lacks it.
        """
        self._database = database
        self._clock = clock
        self._ids = ids
        self._forget = forget

    def create(
        self, org_id: int, name: str, *, uuid: str | None = None, settings: DatasetSettings = NO_SETTINGS
    ) -> Dataset:
        """A new dataset, and the project of its items.

        Args:
            uuid: chosen by the client (32 hex digits); None: ours.
        Raises:
            Conflict: the organisation has a dataset of that name or UUID; one that is being removed keeps its UUID.
            InvalidInput: a name, UUID or setting that is none.
        """
        projects.check_uuid(uuid)
        uuid = uuid or projects.uuid_of(self._ids.new_id("dset"))
        now = self._clock.now_ns()
        values = {"data_type": "kv", "on_source_deleted": SourcePolicy.ERASE} | _columns(settings)
        values |= {"name": projects.check_name(name), "uuid": uuid, "org_id": org_id}
        with self._database.write() as db:
            _check_free(db, org_id, name, uuid)
            made = projects.create_project(
                db, self._clock, self._ids, org_id, f"dataset:{uuid}", purpose=ProjectPurpose.DATASET
            )
            values |= {"project_id": made.id, "created_at_ns": now, "updated_at_ns": now}
            db.execute(insert(dataset).values(values))
            found = _one(db, dataset.c.project_id == made.id)
        self._forget()
        return found

    def find(self, org_id: int, uuid: str) -> Dataset | None:
        """The organisation's dataset of that UUID (32 hex digits)."""
        with self._database.read() as db:
            return _find(db, dataset.c.org_id == org_id, dataset.c.uuid == uuid)

    def find_name(self, org_id: int, name: str) -> Dataset | None:
        """The organisation's dataset of that name."""
        with self._database.read() as db:
            return _find(db, dataset.c.org_id == org_id, dataset.c.name == name)

    def listed(self, org_id: int) -> list[Dataset]:
        """The organisation's datasets, oldest first."""
        query = _DATASET.where(dataset.c.org_id == org_id, _LIVE).order_by(dataset.c.id)
        with self._database.read() as db:
            return [_dataset(row) for row in db.execute(query)]

    def policies(self, org_id: int) -> dict[int, SourcePolicy]:
        """project of each dataset of an organisation → what becomes of its items when their sources are deleted.

        Datasets that are being removed are among them: what names their items is a copy of them all the same.
        """
        columns = select(dataset.c.project_id, dataset.c.on_source_deleted)
        there = project.c.state != ProjectState.GONE
        mine = columns.join(project, project.c.id == dataset.c.project_id).where(dataset.c.org_id == org_id, there)
        with self._database.read() as db:
            return {row.project_id: SourcePolicy(row.on_source_deleted) for row in db.execute(mine)}

    def of_projects(self, project_ids: Sequence[int]) -> dict[int, Dataset]:
        """project number → its dataset, of any organisation; other projects are left out."""
        with self._database.read() as db:
            found = [_dataset(row) for row in db.execute(_DATASET.where(_LIVE))]
        wanted = set(project_ids)
        return {each.project_id: each for each in found if each.project_id in wanted}

    def update(
        self, org_id: int, uuid: str, *, name: str | None = None, settings: DatasetSettings = NO_SETTINGS
    ) -> Dataset:
        """Change what is given; None leaves it as it is. Raises NotFound, Conflict (a taken name), InvalidInput."""
        values = _columns(settings) | {"updated_at_ns": self._clock.now_ns()}
        if name is not None:
            values["name"] = projects.check_name(name)
        with self._database.write() as db:
            found = _one(db, dataset.c.org_id == org_id, dataset.c.uuid == uuid)
            mine = dataset.c.id == found.id
            try:
                with db.begin_nested():
                    db.execute(update(dataset).where(mine).values(values))
            except IntegrityError as error:
                raise Conflict(f"There is a dataset {name!r} already.", fields=("name",)) from error
            return _one(db, mine)

    def touch(self, org_id: int, uuid: str) -> None:
        """Its items changed. Nothing happens when there is no such dataset."""
        mine = (dataset.c.org_id == org_id) & (dataset.c.uuid == uuid)
        with self._database.write() as db:
            db.execute(update(dataset).where(mine).values(updated_at_ns=self._clock.now_ns()))


# Its project leaves: project_catalog.py calls these in one transaction with those of projects.py


def leave(db: Connection, left: Project) -> None:
    """Free the name of a dataset whose project is leaving; other projects, and a repeat, change nothing."""
    mine = (dataset.c.project_id == left.id) & dataset.c.left_name.is_(None)
    db.execute(update(dataset).where(mine).values(left_name=dataset.c.name, name=left.public_id))


def come_back(db: Connection, back: Project) -> None:
    """Undo `leave`; under a name with its project's id behind it when another dataset has the old one by now."""
    mine = (dataset.c.project_id == back.id) & dataset.c.left_name.is_not(None)
    row = db.execute(select(dataset.c.org_id, dataset.c.left_name).where(mine)).first()
    if row is None:
        return
    taken = _find(db, dataset.c.org_id == row.org_id, dataset.c.name == row.left_name)
    name = row.left_name if taken is None else f"{row.left_name[:200]} ({back.public_id})"
    db.execute(update(dataset).where(mine).values(name=name, left_name=None))


def erase(db: Connection, project_id: int) -> None:
    """Erase the dataset of a project that is gone; of another project there is none."""
    db.execute(delete(dataset).where(dataset.c.project_id == project_id))


def _check_free(db: Connection, org_id: int, name: str, uuid: str) -> None:
    mine = dataset.c.org_id == org_id
    if db.execute(select(dataset.c.id).where(mine, dataset.c.name == name)).first() is not None:
        raise Conflict(f"There is a dataset {name!r} already.", fields=("name",))
    if db.execute(select(dataset.c.id).where(mine, dataset.c.uuid == uuid)).first() is not None:
        raise Conflict("There is a dataset of that id already.", fields=("id",))


def _columns(settings: DatasetSettings) -> dict[str, Any]:
    """The given settings as column values. Raises InvalidInput."""
    values: dict[str, Any] = {name: value for name, value in settings._asdict().items() if value is not None}
    if len(values.get("description", "")) > DESCRIPTION_CHARS_MAX:
        raise InvalidInput(f"A description has at most {DESCRIPTION_CHARS_MAX} characters.", fields=("description",))
    if values.get("data_type", "kv") not in DATA_TYPES:
        raise InvalidInput(f"A dataset's type is one of {', '.join(sorted(DATA_TYPES))}.", fields=("data_type",))
    return values | {name: json_text(name, values[name]) for name in _JSON if name in values}


def _find(db: Connection, *which: ColumnElement[bool]) -> Dataset | None:
    row = db.execute(_DATASET.where(_LIVE, *which)).first()
    return None if row is None else _dataset(row)


def _one(db: Connection, *which: ColumnElement[bool]) -> Dataset:
    found = _find(db, *which)
    if found is None:
        raise NotFound("There is no such dataset.")
    return found


def _dataset(row: Any) -> Dataset:
    found = Dataset(*row)
    parsed = {name: orjson.loads(text) for name in _JSON if (text := getattr(found, name)) is not None}
    return found._replace(on_source_deleted=SourcePolicy(found.on_source_deleted), **parsed)
