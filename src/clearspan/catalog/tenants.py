"""Organisations, users and projects."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, insert, select
from sqlalchemy.exc import IntegrityError

from clearspan.catalog.tables import app_user, instance, organisation, project
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput

DEFAULT_PROJECT = "default"
NAME_CHARS_MAX = 255

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Respan reads a shared trace at /api/{organisation}/traces/{id}/: an organisation must never be spelled like the
# literal segment of another path. Ours all begin with "org_".
_PUBLIC_ORG_ID = re.compile(r"org_[0-9a-f]{32}")


class Instance(NamedTuple):
    """What this installation is, for life."""

    public_id: str
    secret: bytes  # 32 bytes


class Organisation(NamedTuple):
    """A tenant."""

    id: int
    public_id: str
    name: str


class Project(NamedTuple):
    """A place for traces, inside one organisation for life."""

    id: int
    public_id: str
    org_id: int
    name: str
    created_at_ns: int


_PROJECT = select(project.c.id, project.c.public_id, project.c.org_id, project.c.name, project.c.created_at_ns)


def seed(db: Connection, clock: Clock, ids: IdSource) -> Instance:
    """On a new file: make the instance, one organisation, its owner and the project `default`. Else only read."""
    found = find_instance(db)
    if found is not None:
        return found
    made = Instance(ids.new_id("inst"), ids.token_bytes(32))
    now = clock.now_ns()
    db.execute(insert(instance).values(id=1, public_id=made.public_id, secret=made.secret, created_at_ns=now))
    org = create_organisation(db, clock, ids, "Clearspan")
    db.execute(
        insert(app_user).values(
            public_id=ids.new_id("user"), org_id=org.id, name="owner", role="owner", created_at_ns=now
        )
    )
    return made


def find_instance(db: Connection) -> Instance | None:
    """The instance; None in a file that was only just made."""
    row = db.execute(select(instance.c.public_id, instance.c.secret)).first()
    return None if row is None else Instance(*row)


def create_organisation(db: Connection, clock: Clock, ids: IdSource, name: str) -> Organisation:
    """A new tenant with a project `default`."""
    public_id = ids.new_id("org")
    assert _PUBLIC_ORG_ID.fullmatch(public_id), "an organisation id must not look like a path segment"
    inserted = db.execute(
        insert(organisation).values(public_id=public_id, name=check_name(name), created_at_ns=clock.now_ns())
    )
    org = Organisation(_new_id(inserted), public_id, name)
    create_project(db, clock, ids, org.id, DEFAULT_PROJECT)
    return org


def organisations(db: Connection) -> list[Organisation]:
    """Every tenant, oldest first."""
    rows = db.execute(
        select(organisation.c.id, organisation.c.public_id, organisation.c.name).order_by(organisation.c.id)
    )
    return [Organisation(*row) for row in rows]


def create_project(db: Connection, clock: Clock, ids: IdSource, org_id: int, name: str) -> Project:
    """A new project. Raises Conflict when the organisation has one of that name."""
    made = Project(0, ids.new_id("proj"), org_id, check_name(name), clock.now_ns())
    try:
        with db.begin_nested():
            inserted = db.execute(
                insert(project).values(
                    public_id=made.public_id, org_id=org_id, name=name, created_at_ns=made.created_at_ns
                )
            )
    except IntegrityError as error:
        raise Conflict(f"There is a project {name!r} already.", fields=("name",)) from error
    return made._replace(id=_new_id(inserted))


def projects(db: Connection, org_id: int) -> list[Project]:
    """The organisation's projects, oldest first."""
    return [Project(*row) for row in db.execute(_PROJECT.where(project.c.org_id == org_id).order_by(project.c.id))]


def find_project(db: Connection, org_id: int, name: str) -> Project | None:
    """The organisation's project of that name."""
    row = db.execute(_PROJECT.where(project.c.org_id == org_id, project.c.name == name)).first()
    return None if row is None else Project(*row)


def check_name(name: str) -> str:
    """`name` itself. Raises InvalidInput when it is empty, too long or holds control characters."""
    if not name.strip() or len(name) > NAME_CHARS_MAX or _CONTROL.search(name):
        raise InvalidInput(
            f"A name has 1 to {NAME_CHARS_MAX} characters, none of them a control character.", fields=("name",)
        )
    return name


def _new_id(inserted: CursorResult[Any]) -> int:
    key = inserted.inserted_primary_key
    assert key is not None, "an insert of one row tells its number"
    return int(key[0])
