"""The installation, its organisations and their users."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, insert, select

from clearspan.catalog.annotation_configs import add_initial
from clearspan.catalog.projects import DEFAULT_PROJECT, check_name, create_project
from clearspan.catalog.tables import app_user, instance, organisation
from clearspan.model.clock import Clock, IdSource

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
    created_at_ns: int = 0


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
    """A new tenant with a project `default` and its first annotation config."""
    public_id = ids.new_id("org")
    assert _PUBLIC_ORG_ID.fullmatch(public_id), "an organisation id must not look like a path segment"
    inserted = db.execute(
        insert(organisation).values(public_id=public_id, name=check_name(name), created_at_ns=clock.now_ns())
    )
    org = Organisation(_new_id(inserted), public_id, name, clock.now_ns())
    create_project(db, clock, ids, org.id, DEFAULT_PROJECT)
    add_initial(db, clock.now_ns(), ids, org.id)
    return org


def organisations(db: Connection) -> list[Organisation]:
    """Every tenant, oldest first."""
    columns = (organisation.c[name] for name in Organisation._fields)
    return [Organisation(*row) for row in db.execute(select(*columns).order_by(organisation.c.id))]


def _new_id(inserted: CursorResult[Any]) -> int:
    key = inserted.inserted_primary_key
    assert key is not None, "an insert of one row tells its number"
    return int(key[0])
