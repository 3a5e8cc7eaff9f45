"""Users: people whom keys act for. There are no passwords: whoever has a key of theirs acts for them.

Removing a user revokes their keys and erases name and address; what they wrote stays, with an id that names nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from clearspan.catalog import access
from clearspan.catalog.access import NewKey
from clearspan.catalog.database import Database
from clearspan.catalog.principal import ALL_SCOPES, KeyScope, Principal
from clearspan.catalog.projects import check_name
from clearspan.catalog.tables import api_key, app_user
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound, NotPermitted

EMAIL_CHARS_MAX: Final = 320
DESCRIPTION_CHARS_MAX: Final = 1000


class Role(StrEnum):
    """What a user's keys may do at most."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"

    @property
    def scopes(self) -> frozenset[KeyScope]:
        """Of a key that acts for such a user."""
        if self is Role.VIEWER:
            return frozenset({KeyScope.READ})
        if self is Role.MEMBER:
            return frozenset({KeyScope.INGEST, KeyScope.READ, KeyScope.ANNOTATE, KeyScope.DELETE})
        return ALL_SCOPES


class User(NamedTuple):
    """A person of an organisation."""

    id: int  # grows with time; the public id is what others see
    public_id: str
    name: str
    email: str | None
    role: Role
    created_at_ns: int


class HeldKey(NamedTuple):
    """A key that is not revoked, and whom it acts for."""

    id: int
    public_id: str
    name: str
    description: str | None
    created_at_ns: int
    expires_at_ns: int | None
    user_id: str | None  # public id; None: a machine's, which acts for the organisation itself
    user_name: str | None
    user_email: str | None


class Users:
    """The Catalog's methods about users and their keys: each one transaction, safe from any thread."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, forget_keys: Callable[[], None]) -> None:
        """
        Args:
            forget_keys: called when a key changed: nobody may be let in from memory.
        """
        self._database = database
        self._clock = clock
        self._ids = ids
        self._forget_keys = forget_keys

    def create(self, org_id: int, name: str, email: str, role: Role) -> User:
        """A new user. Raises Conflict (name or address are taken; `fields` says which), InvalidInput."""
        if role is Role.OWNER:
            raise InvalidInput("An organisation has one owner.", fields=("role",))
        values = {
            "public_id": self._ids.new_id("user"),
            "org_id": org_id,
            "name": check_name(name),
            "email": _check_email(email),
            "role": role.value,
            "created_at_ns": self._clock.now_ns(),
        }
        with self._database.write() as db:
            for column in ("name", "email"):
                taken = (app_user.c.org_id == org_id) & (app_user.c[column] == values[column])
                if db.execute(select(app_user.c.id).where(taken)).first() is not None:
                    raise Conflict(f"There is a user of that {column} already.", fields=(column,))
            try:
                db.execute(insert(app_user).values(values))
            except IntegrityError as error:
                raise Conflict("There is such a user already.", fields=("name",)) from error
            return _find(db, org_id, str(values["public_id"]))

    def every(self, org_id: int) -> list[User]:
        """The organisation's users, newest first."""
        with self._database.read() as db:
            rows = db.execute(_USERS.where(app_user.c.org_id == org_id).order_by(app_user.c.id.desc()))
            return [_user(row) for row in rows]

    def get(self, org_id: int, public_id: str) -> User:
        """One user. Raises NotFound."""
        with self._database.read() as db:
            return _find(db, org_id, public_id)

    def remove(self, org_id: int, public_id: str) -> int:
        """Remove a user and revoke their keys, at once; how many keys. Raises NotFound; NotPermitted: the owner."""
        with self._database.write() as db:
            found = _find(db, org_id, public_id)
            if found.role is Role.OWNER:
                raise NotPermitted("The owner cannot be removed.")
            mine = api_key.c.user_id == found.id
            live = mine & api_key.c.revoked_at_ns.is_(None)
            revoked = db.execute(update(api_key).where(live).values(revoked_at_ns=self._clock.now_ns())).rowcount
            db.execute(update(api_key).where(mine).values(user_id=None))
            db.execute(delete(app_user).where(app_user.c.id == found.id))
        self._forget_keys()
        return int(revoked)

    def create_key(
        self,
        maker: Principal,
        *,
        name: str,
        description: str | None = None,
        expires_at_ns: int | None = None,
        user_id: str | None = None,
    ) -> NewKey:
        """A key that another key makes: it can do nothing which that one cannot.

        Args:
            maker: whose scopes and policy bound the new key's.
            user_id: whom it acts for, whose role bounds its scopes too; None: a machine.
        Raises:
            NotFound: no such user. NotPermitted: nothing would be left for it to do. InvalidInput: a name or expiry.
        """
        if description is not None and len(description) > DESCRIPTION_CHARS_MAX:
            raise InvalidInput(
                f"A description has at most {DESCRIPTION_CHARS_MAX} characters.", fields=("description",)
            )
        with self._database.write() as db:
            user = None if user_id is None else _find(db, maker.org_id, user_id)
            scopes = maker.scopes & (ALL_SCOPES if user is None else user.role.scopes)
            if not scopes:
                raise NotPermitted("This API key can give none of the scopes of that user's role.")
            made = access.create_key(
                db,
                self._clock,
                self._ids,
                maker.org_id,
                name=name,
                scopes=scopes,
                project_ids=maker.project_ids if maker.bound else None,
                environment=maker.environment,
                expires_at_ns=expires_at_ns,
                policy=maker.policy,
            )
            acts_for = {"user_id": None if user is None else user.id, "description": description}
            db.execute(update(api_key).where(api_key.c.public_id == made.key.public_id).values(acts_for))
        return made

    def keys(self, org_id: int) -> list[HeldKey]:
        """The organisation's keys that are not revoked, newest first."""
        query = _KEYS.where(api_key.c.org_id == org_id, api_key.c.revoked_at_ns.is_(None))
        with self._database.read() as db:
            return [HeldKey(*row) for row in db.execute(query.order_by(api_key.c.id.desc()))]

    def revoke_key(self, org_id: int, public_id: str, *, is_machine: bool) -> None:
        """Revoke one of `keys`. Raises NotFound: there is none of that id and kind."""
        found = next((each for each in self.keys(org_id) if each.public_id == public_id), None)
        if found is None or (found.user_id is None) is not is_machine:
            raise NotFound("There is no such API key.")
        with self._database.write() as db:
            access.revoke_key(db, self._clock, org_id, public_id)
        self._forget_keys()


_USERS: Final = select(*(app_user.c[name] for name in User._fields))
_KEYS: Final[Select[Any]] = select(
    api_key.c.id,
    api_key.c.public_id,
    api_key.c.name,
    api_key.c.description,
    api_key.c.created_at_ns,
    api_key.c.expires_at_ns,
    app_user.c.public_id,
    app_user.c.name,
    app_user.c.email,
).select_from(api_key.outerjoin(app_user, api_key.c.user_id == app_user.c.id))


def _find(db: Connection, org_id: int, public_id: str) -> User:
    row = db.execute(_USERS.where(app_user.c.org_id == org_id, app_user.c.public_id == public_id)).first()
    if row is None:
        raise NotFound("There is no such user.")
    return _user(row)


def _user(row: Any) -> User:
    found = User(*row)
    return found._replace(role=Role(found.role))


def _check_email(email: str) -> str:
    if len(email) > EMAIL_CHARS_MAX or not email.isprintable() or "@" not in email.strip("@") or " " in email:
        raise InvalidInput("That is no e-mail address.", fields=("email",))
    return email.lower()
