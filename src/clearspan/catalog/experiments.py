"""Experiments: what they run, over which dataset, and how far they are; no items, no results, no ids of either.

An experiment is a project whose traces are its results. One that a LangSmith client runs by itself is nothing but such
a project; one that the server runs has its definition here besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from clearspan.catalog import projects
from clearspan.catalog.database import Database
from clearspan.catalog.projects import ProjectPurpose, ProjectSettings, ProjectState, json_text
from clearspan.catalog.tables import dataset, experiment, project
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound

TEXT_CHARS_MAX = 255
ERROR_CHARS_MAX = 1_000
CLOSED_KEY = "closed_ns"
"""Among a project's options: when the LangSmith client that runs an experiment said that it has asked every example."""
_JSON = ("workflow", "evaluator_ids", "evaluator_workflow_ids", "tags")


class ExperimentStatus(StrEnum):
    """How far it is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ExperimentDefinition(NamedTuple):
    """What a new experiment is to be."""

    name: str
    dataset_uuid: str  # 32 hex digits
    workflow: Sequence[Mapping[str, Any]]
    version_ns: int  # the items as they were then
    evaluator_ids: Sequence[str] = ()  # UUIDs (32 hex digits) of evaluators
    evaluator_workflow_ids: Sequence[str] = ()
    public_id: str | None = None  # chosen by the client; None: ours
    description: str | None = None
    batch_size: int = 100
    concurrency: int = 15
    enable_tracing: bool = True
    span_workflow_name: str = "workflow"
    generation_method: str | None = None
    tags: Sequence[Any] = ()


class Experiment(NamedTuple):
    """An experiment as it stands."""

    project_id: int  # whose traces are its results
    public_id: str  # of one that is not managed: `uuid`
    org_id: int
    uuid: str  # of the project, 32 hex digits: LangSmith's session id
    name: str
    description: str | None
    dataset_uuid: str
    status: ExperimentStatus
    workflow: list[dict[str, Any]]
    evaluator_ids: list[str]
    evaluator_workflow_ids: list[str]
    batch_size: int
    concurrency: int
    enable_tracing: bool
    span_workflow_name: str
    generation_method: str | None
    tags: list[Any]
    error_code: str | None
    error_message: str | None  # never from a trace
    version_ns: int
    created_at_ns: int
    started_at_ns: int | None
    completed_at_ns: int | None
    managed: bool  # False: a LangSmith client runs it, there is no definition


_OF_PROJECT = ("uuid", "name", "description", "reference_dataset_id", "options", "start_ns", "end_ns", "created_at_ns")
_OWN = tuple(column.name for column in experiment.c if column.name not in ("project_id", "org_id", "created_at_ns"))
_EXPERIMENT = (
    select(
        project.c.id,
        project.c.org_id,
        *(project.c[name] for name in _OF_PROJECT),
        *(experiment.c[name] for name in _OWN),
    )
    .outerjoin(experiment, experiment.c.project_id == project.c.id)
    .where(project.c.state == ProjectState.LIVE, project.c.purpose == ProjectPurpose.EXPERIMENT)
)
CHANGEABLE = (frozenset(_OWN) | {"name", "description"}) - {
    "public_id", "status", "error_code", "error_message", "started_at_ns", "completed_at_ns"
}  # fmt: skip


class Experiments:
    """Experiments of every organisation; each method one transaction, safe from any thread."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, forget: Callable[[], None]) -> None:
        """
        Args:
            forget: called when a project came into being or got another name.
        """
        self._database = database
        self._clock = clock
        self._ids = ids
        self._forget = forget

    def create(self, org_id: int, definition: ExperimentDefinition) -> Experiment:
        """A new experiment, pending, and the project of its results.

        Raises:
            NotFound: the organisation has no such dataset.
            Conflict: it has a project of that name, or an experiment of that id.
            InvalidInput: something that cannot be stored.
        """
        said = definition._asdict()
        settings = ProjectSettings(description=said.pop("description"), reference_dataset_id=said.pop("dataset_uuid"))
        name, public_id = said.pop("name"), said.pop("public_id") or self._ids.new_id("exp")
        projects.check_name(public_id)
        values = _columns(said) | {"public_id": public_id, "org_id": org_id, "status": ExperimentStatus.PENDING}
        with self._database.write() as db:
            _check_dataset(db, org_id, definition.dataset_uuid)
            if _public_id_taken(db, org_id, public_id):
                raise Conflict("There is an experiment of that id already.", fields=("experiment_id",))
            made = projects.create_project(db, self._clock, self._ids, org_id, name, settings=settings)
            values |= {"project_id": made.id, "created_at_ns": made.created_at_ns}
            db.execute(insert(experiment).values(values))
            found = _one(db, project.c.id == made.id)
        self._forget()
        return found

    def find(self, org_id: int, experiment_id: str) -> Experiment | None:
        """The organisation's experiment of that public id, else of that project UUID (dashes do not matter)."""
        with self._database.read() as db:
            return _find(db, org_id, experiment_id)

    def of_project(self, project_id: int) -> Experiment | None:
        """The experiment whose results a project holds, of any organisation."""
        with self._database.read() as db:
            row = db.execute(_EXPERIMENT.where(project.c.id == project_id)).first()
            return None if row is None else _experiment(row)

    def listed(self, org_id: int) -> list[Experiment]:
        """The organisation's experiments, the server's and those of LangSmith clients, oldest first."""
        with self._database.read() as db:
            rows = db.execute(_EXPERIMENT.where(project.c.org_id == org_id).order_by(project.c.id))
            return [_experiment(row) for row in rows]

    def update(self, org_id: int, experiment_id: str, **changes: Any) -> Experiment:
        """Change what is given.

        Args:
            changes: any of CHANGEABLE; of an experiment that is not managed `name` and `description` only.
        Raises:
            NotFound, InvalidInput. Conflict: the name is taken, or it is not managed and has none of that.
        """
        assert set(changes) <= CHANGEABLE, f"an experiment has no {set(changes) - CHANGEABLE} to change"
        name, settings = changes.pop("name", None), ProjectSettings(description=changes.pop("description", None))
        values = _columns(changes)
        with self._database.write() as db:
            found = _find(db, org_id, experiment_id)
            if found is None:
                raise NotFound("There is no such experiment.")
            if values and not found.managed:
                raise Conflict("A LangSmith client runs this experiment: it has a name and a description only.")
            mine = found.project_id
            projects.update_project(db, self._clock, org_id, mine, name=name, settings=settings)
            if values:
                db.execute(update(experiment).where(experiment.c.project_id == mine).values(values))
            changed = _one(db, project.c.id == mine)
        self._forget()
        return changed

    def set_status(
        self,
        project_id: int,
        status: ExperimentStatus,
        *,
        started_at_ns: int | None = None,
        completed_at_ns: int | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> None:
        """Say how far a managed experiment is; nothing happens when it is none, or gone.

        Args:
            started_at_ns: None: as it was.
            completed_at_ns, error_code, error_message: None: there is none (any more).
        """
        values: dict[str, Any] = {
            "status": status,
            "completed_at_ns": completed_at_ns,
            "error_code": error_code,
            "error_message": None if error_message is None else error_message[:ERROR_CHARS_MAX],
        }
        if started_at_ns is not None:
            values["started_at_ns"] = started_at_ns
        with self._database.write() as db:
            db.execute(update(experiment).where(experiment.c.project_id == project_id).values(values))


def erase(db: Connection, project_id: int) -> None:
    """Erase the definition of an experiment whose project is gone; of another project there is none."""
    db.execute(delete(experiment).where(experiment.c.project_id == project_id))


def _check_dataset(db: Connection, org_id: int, uuid: str) -> None:
    named = select(dataset.c.id).join(project, project.c.id == dataset.c.project_id)
    mine = (dataset.c.org_id == org_id, dataset.c.uuid == uuid, project.c.state == ProjectState.LIVE)
    if db.execute(named.where(*mine)).first() is None:
        raise NotFound("There is no such dataset.")


def _public_id_taken(db: Connection, org_id: int, public_id: str) -> bool:
    mine = (experiment.c.org_id == org_id) & (experiment.c.public_id == public_id)
    return db.execute(select(experiment.c.project_id).where(mine)).first() is not None


def _columns(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an experiment as column values. Raises InvalidInput."""
    values = dict(said)
    for name in ("batch_size", "concurrency"):
        if name in values and not 1 <= values[name] < 2**31:
            raise InvalidInput(f"{name} is at least 1.", fields=(name,))
    for name, most in (("span_workflow_name", TEXT_CHARS_MAX), ("generation_method", 64)):
        if len(values.get(name) or "") > most:
            raise InvalidInput(f"{name} has at most {most} characters.", fields=(name,))
    return values | {name: json_text(name, values[name]) for name in _JSON if name in values}


def _find(db: Connection, org_id: int, experiment_id: str) -> Experiment | None:
    uuid = experiment_id.replace("-", "").lower()
    named = or_(experiment.c.public_id == experiment_id, project.c.uuid == uuid)
    found = [_experiment(row) for row in db.execute(_EXPERIMENT.where(project.c.org_id == org_id, named))]
    return min(found, key=lambda each: each.public_id != experiment_id, default=None)


def _one(db: Connection, which: ColumnElement[bool]) -> Experiment:
    return _experiment(db.execute(_EXPERIMENT.where(which)).one())


def _experiment(row: Any) -> Experiment:
    managed = row.public_id is not None
    default = ExperimentDefinition(row.name, "", [], 0)
    own: dict[str, Any] = {name: getattr(row, name) for name in _OWN}
    if managed:
        own |= {name: orjson.loads(own[name]) for name in _JSON} | {"status": ExperimentStatus(row.status)}
    else:
        own |= {name: getattr(default, name) for name in ExperimentDefinition._fields if name in own}
        ended_ns = row.end_ns
        if ended_ns is None and row.options is not None:
            ended_ns = orjson.loads(row.options).get(CLOSED_KEY)
        own |= {name: list(own[name]) for name in _JSON} | {
            "public_id": row.uuid,
            "status": ExperimentStatus.RUNNING if ended_ns is None else ExperimentStatus.COMPLETED,
            "version_ns": row.created_at_ns if row.start_ns is None else row.start_ns,
            "started_at_ns": row.created_at_ns if row.start_ns is None else row.start_ns,
            "completed_at_ns": ended_ns,
        }
    return Experiment(
        project_id=row.id,
        org_id=row.org_id,
        uuid=row.uuid,
        name=row.name,
        description=row.description,
        dataset_uuid=row.reference_dataset_id or "",
        created_at_ns=row.created_at_ns,
        managed=managed,
        **own,
    )
