"""Projects: what they are called, what their operator says of them, and how one is removed.

A project is never dropped as a row: its number stands in tombstones, deletions and receipts. Removing one goes

    live ──► leaving      it is in no list and takes no writes; its name is free; a deletion takes its traces
    leaving ──► gone      no trace is left: everything that anybody wrote about the project is erased
    leaving ──► live      that deletion was cancelled
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from clearspan.catalog.principal import Principal
from clearspan.catalog.tables import project
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound, NotPermitted

DEFAULT_PROJECT = "default"
NAME_CHARS_MAX = 255
DESCRIPTION_CHARS_MAX = 10_000
JSON_BYTES_MAX = 256 * 1024
FRESH_S = 2.0
"""How long a project found by name for a write is trusted: another process may rename or remove it."""
CACHED_MAX = 10_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_UUID = re.compile(r"[0-9a-f]{32}")


class ProjectState(StrEnum):
    """See the module's drawing."""

    LIVE = "live"
    LEAVING = "leaving"
    GONE = "gone"


class ProjectPurpose(StrEnum):
    """What its traces are."""

    TRACES = "traces"
    EXPERIMENT = "experiment"  # runs over the items of the dataset `reference_dataset_id`
    DATASET = "dataset"  # the items of a dataset: see datasets.py


ORDINARY = (ProjectPurpose.TRACES, ProjectPurpose.EXPERIMENT)
"""What lists, names and reads of projects mean. The project of a dataset is reached through the dataset alone."""


class Project(NamedTuple):
    """A place for traces, inside one organisation for life."""

    id: int
    public_id: str
    org_id: int
    name: str
    created_at_ns: int
    uuid: str = ""  # 32 hex digits, unique in the organisation: LangSmith's session id
    state: ProjectState = ProjectState.LIVE
    description: str | None = None
    extra: dict[str, Any] | None = None  # `metadata` and whatever else its operator wrote
    options: dict[str, Any] | None = None  # of an experiment: num_examples, num_repetitions, evaluator_keys …
    start_ns: int | None = None  # None: when it was created
    end_ns: int | None = None
    updated_at_ns: int | None = None
    reference_dataset_id: str | None = None  # 32 hex digits, as the next
    default_dataset_id: str | None = None
    trace_tier: str | None = None
    left_name: str | None = None
    deletion_id: str | None = None
    purpose: ProjectPurpose = ProjectPurpose.TRACES


class ProjectSettings(NamedTuple):
    """What may be said of a project besides its name; None: not said."""

    description: str | None = None
    extra: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    reference_dataset_id: str | None = None
    default_dataset_id: str | None = None
    trace_tier: str | None = None


NO_SETTINGS = ProjectSettings()
_PROJECT = select(*(project.c[name] for name in Project._fields))
_IN_USE = (project.c.state == ProjectState.LIVE, project.c.purpose.in_(ORDINARY))


def uuid_of(public_id: str) -> str:
    """The UUID (32 hex digits) that a public id of ours stands for where a dialect wants one."""
    return uuid.uuid5(uuid.NAMESPACE_URL, public_id).hex


def create_project(
    db: Connection,
    clock: Clock,
    ids: IdSource,
    org_id: int,
    name: str,
    *,
    uuid: str | None = None,
    settings: ProjectSettings = NO_SETTINGS,
    purpose: ProjectPurpose = ProjectPurpose.TRACES,
) -> Project:
    """A new project.

    Args:
        uuid: chosen by the client; None: ours.
        purpose: a project that names a dataset is an experiment, whatever is said here.
    Raises:
        Conflict: the organisation has one of that name, or of that UUID.
        InvalidInput: a name, UUID or setting that is none.
    """
    public_id = ids.new_id("proj")
    now = clock.now_ns()
    check_uuid(uuid)
    values = (
        {"purpose": purpose}
        | _columns(settings)
        | {
            "public_id": public_id,
            "org_id": org_id,
            "name": check_name(name),
            "created_at_ns": now,
            "uuid": uuid_of(public_id) if uuid is None else uuid,
        }
    )
    _insert_or_conflict(db, lambda: db.execute(insert(project).values(values)), name)
    return _one(db, project.c.public_id == public_id)


def projects(
    db: Connection,
    org_id: int,
    *,
    states: Sequence[ProjectState] = (ProjectState.LIVE,),
    purposes: Sequence[ProjectPurpose] = ORDINARY,
) -> list[Project]:
    """The organisation's projects in these states and for these purposes, oldest first."""
    which = (project.c.org_id == org_id, project.c.state.in_(states), project.c.purpose.in_(purposes))
    return [_project(row) for row in db.execute(_PROJECT.where(*which).order_by(project.c.id))]


class ProjectStanding(NamedTuple):
    """What each look-up of a key asks of a project."""

    id: int
    name: str
    state: ProjectState
    purpose: ProjectPurpose


def standings_of(db: Connection, org_id: int) -> list[ProjectStanding]:
    """Every project there ever was, oldest first."""
    columns = select(project.c.id, project.c.name, project.c.state, project.c.purpose)
    rows = db.execute(columns.where(project.c.org_id == org_id).order_by(project.c.id))
    return [ProjectStanding(row.id, row.name, ProjectState(row.state), ProjectPurpose(row.purpose)) for row in rows]


def removed_projects(db: Connection, *, gone_after_ns: int) -> list[Project]:
    """Of every organisation: the ones that are leaving, and the ones that went after that time."""
    leaving = project.c.state == ProjectState.LEAVING
    lately = (project.c.state == ProjectState.GONE) & (project.c.updated_at_ns > gone_after_ns)
    return [_project(row) for row in db.execute(_PROJECT.where(leaving | lately).order_by(project.c.id))]


def find_project(db: Connection, org_id: int, name: str) -> Project | None:
    """The organisation's ordinary project of that name."""
    return _find(db, project.c.org_id == org_id, project.c.name == name, *_IN_USE)


def find_uuid(db: Connection, org_id: int, uuid: str) -> Project | None:
    """The organisation's ordinary project of that UUID (32 hex digits)."""
    return _find(db, project.c.org_id == org_id, project.c.uuid == uuid, *_IN_USE)


def find_number(db: Connection, org_id: int, project_id: int) -> Project | None:
    """The organisation's live project of that number, that of a dataset too."""
    which = (project.c.org_id == org_id, project.c.id == project_id, project.c.state == ProjectState.LIVE)
    return _find(db, *which)


def is_live(db: Connection, project_id: int) -> bool:
    """Whether there is such a project, and nobody is removing it."""
    return _find(db, project.c.id == project_id, project.c.state == ProjectState.LIVE) is not None


def update_project(
    db: Connection, clock: Clock, org_id: int, project_id: int, *, name: str | None, settings: ProjectSettings
) -> Project:
    """Change what is given; None leaves it as it is. Raises NotFound, Conflict (the name is taken), InvalidInput."""
    values = _columns(settings) | {"updated_at_ns": clock.now_ns()}
    if name is not None:
        values["name"] = check_name(name)
    mine = and_(project.c.id == project_id, project.c.org_id == org_id, *_IN_USE)
    found = _find(db, mine)
    if found is None:
        raise NotFound("There is no such project.")
    if found.name == DEFAULT_PROJECT and name not in (None, DEFAULT_PROJECT):
        raise Conflict("The project `default` keeps its name.", fields=("name",))
    _insert_or_conflict(db, lambda: db.execute(update(project).where(mine).values(values)), name or found.name)
    return _one(db, mine)


def leave(db: Connection, clock: Clock, project_id: int, deletion_id: str) -> Project:
    """Take a project out of every list; `deletion_id` takes its traces, a later call names a later deletion."""
    found = _one(db, project.c.id == project_id)
    values: dict[str, Any] = {"deletion_id": deletion_id, "updated_at_ns": clock.now_ns()}
    if found.state is ProjectState.LIVE:
        values |= {"state": ProjectState.LEAVING, "left_name": found.name, "name": found.public_id}
    db.execute(update(project).where(project.c.id == project_id).values(values))
    return _one(db, project.c.id == project_id)


def come_back(db: Connection, clock: Clock, project_id: int) -> Project:
    """Undo `leave`; under a name with its id behind it when another project has the old one by now."""
    found = _one(db, project.c.id == project_id)
    if found.state is not ProjectState.LEAVING:
        return found
    name = found.left_name or found.public_id
    if find_project(db, found.org_id, name) is not None:
        name = f"{name[:200]} ({found.public_id})"
    values = {"state": ProjectState.LIVE, "name": name, "left_name": None, "deletion_id": None}
    db.execute(update(project).where(project.c.id == project_id).values(values | {"updated_at_ns": clock.now_ns()}))
    return _one(db, project.c.id == project_id)


def erase(db: Connection, clock: Clock, project_id: int) -> bool:
    """Erase everything that was written about a project that is leaving; number, public id and deletion stay.

    Returns:
        False: it is not leaving, nothing was changed.
    """
    found = _one(db, project.c.id == project_id)
    if found.state is not ProjectState.LEAVING:
        return False
    blank = dict.fromkeys(("left_name", *ProjectSettings._fields))
    values = {"state": ProjectState.GONE, "uuid": uuid_of(found.public_id + ":gone"), "updated_at_ns": clock.now_ns()}
    db.execute(update(project).where(project.c.id == project_id).values(blank | values))
    return True


def check_name(name: str) -> str:
    """`name` itself. Raises InvalidInput when it is empty, too long or holds control characters."""
    if not name.strip() or len(name) > NAME_CHARS_MAX or _CONTROL.search(name):
        raise InvalidInput(
            f"A name has 1 to {NAME_CHARS_MAX} characters, none of them a control character.", fields=("name",)
        )
    return name


class WriteCache:
    """Which project a written name means, from memory for FRESH_S seconds. Safe for threads."""

    def __init__(self, clock: Clock, look_up: Callable[[int, str], Project | None]) -> None:
        self._clock = clock
        self._look_up = look_up
        self._cached: dict[tuple[int, str], tuple[float, Project]] = {}
        self._generation = 0

    def find(self, org_id: int, name: str) -> Project | None:
        """The live project of that name; one that does not exist is looked for each time."""
        cached = self._cached.get((org_id, name))
        if cached is not None and self._clock.monotonic_s() < cached[0]:
            return cached[1]
        generation = self._generation
        found = self._look_up(org_id, name)
        if found is not None and generation == self._generation:
            if len(self._cached) >= CACHED_MAX:
                self._cached.clear()
            self._cached[org_id, name] = (self._clock.monotonic_s() + FRESH_S, found)
        return found

    def clear(self) -> None:
        """Forget everything: a project of this process changed."""
        self._generation += 1
        self._cached.clear()


def check_writable(principal: Principal, found: Project | None) -> None:
    """Whether a key may write to a project, or make one where there is none.

    Raises:
        NotPermitted: it is bound to others; whether that project exists is not told.
    """
    if principal.bound and (found is None or found.id not in principal.project_ids):
        raise NotPermitted("This API key is bound to other projects.", fields=("project",))


def _find(db: Connection, *which: ColumnElement[bool]) -> Project | None:
    row = db.execute(_PROJECT.where(*which)).first()
    return None if row is None else _project(row)


def _one(db: Connection, which: ColumnElement[bool]) -> Project:
    found = _find(db, which)
    if found is None:
        raise NotFound("There is no such project.")
    return found


def _project(row: Any) -> Project:
    found = Project(*row)
    return found._replace(
        state=ProjectState(found.state),
        purpose=ProjectPurpose(found.purpose),
        extra=None if row.extra is None else orjson.loads(row.extra),
        options=None if row.options is None else orjson.loads(row.options),
    )


def _columns(settings: ProjectSettings) -> dict[str, Any]:
    """The given settings as column values. Raises InvalidInput."""
    values: dict[str, Any] = {name: value for name, value in settings._asdict().items() if value is not None}
    if len(values.get("description", "")) > DESCRIPTION_CHARS_MAX:
        raise InvalidInput(f"A description has at most {DESCRIPTION_CHARS_MAX} characters.", fields=("description",))
    for name in ("extra", "options"):
        if name in values:
            values[name] = json_text(name, values[name])
    for name in ("reference_dataset_id", "default_dataset_id"):
        check_uuid(values.get(name), name)
    if settings.reference_dataset_id is not None:
        values["purpose"] = ProjectPurpose.EXPERIMENT
    return values


def json_text(name: str, value: object) -> str:
    """`value` as a column of JSON holds it. Raises InvalidInput when it is too large or no JSON; `name` tells which."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a number beyond 64 bits, a lone surrogate
        raise InvalidInput(f"{name} holds a value that cannot be stored.", fields=(name,)) from None
    if len(text) > JSON_BYTES_MAX:
        raise InvalidInput(f"{name} is larger than {JSON_BYTES_MAX} bytes.", fields=(name,))
    return text.decode()


def check_uuid(text: str | None, name: str = "id") -> None:
    """Raise InvalidInput when `text` is neither None nor a UUID of 32 hex digits."""
    if text is not None and not _UUID.fullmatch(text):
        raise InvalidInput(f"{name} must be a UUID.", fields=(name,))


def _insert_or_conflict(db: Connection, write: Callable[[], object], name: str) -> None:
    try:
        with db.begin_nested():
            write()
    except IntegrityError as error:
        raise Conflict(f"There is a project {name!r} already, or one of that id.", fields=("name",)) from error
