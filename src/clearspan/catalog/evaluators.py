"""Evaluators: what gives the results of experiments their scores, and under which name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from clearspan.catalog.database import Database
from clearspan.catalog.projects import DESCRIPTION_CHARS_MAX, check_name, json_text, uuid_of
from clearspan.catalog.tables import evaluator
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound

KIND_CHARS_MAX = 64
CHANGEABLE = frozenset({"slug", "name", "kind", "config", "score_type", "description"})


class Evaluator(NamedTuple):
    """An evaluator of an organisation; its slug is unique there."""

    id: int
    uuid: str  # 32 hex digits
    org_id: int
    slug: str  # the name of its annotations
    name: str
    kind: str
    config: dict[str, Any]
    score_type: str
    description: str | None
    created_at_ns: int
    updated_at_ns: int


_EVALUATOR = select(*(evaluator.c[name] for name in Evaluator._fields))


class Evaluators:
    """Evaluators of every organisation; each method one transaction, safe from any thread."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids

    def create(
        self,
        org_id: int,
        *,
        slug: str,
        name: str,
        kind: str,
        config: Mapping[str, Any],
        score_type: str,
        description: str | None = None,
    ) -> Evaluator:
        """A new evaluator. Raises Conflict when the slug is taken, InvalidInput for what cannot be stored."""
        now = self._clock.now_ns()
        said = {"slug": slug, "name": name, "kind": kind, "config": config, "score_type": score_type}
        values = _columns(said | {"description": description})
        values |= {"uuid": uuid_of(self._ids.new_id("eval")), "org_id": org_id}
        values |= {"created_at_ns": now, "updated_at_ns": now}
        with self._database.write() as db:
            try:
                with db.begin_nested():
                    db.execute(insert(evaluator).values(values))
            except IntegrityError as error:
                raise _taken(slug) from error
            return _one(db, evaluator.c.uuid == values["uuid"])

    def find(self, org_id: int, id_or_slug: str) -> Evaluator | None:
        """The organisation's evaluator of that UUID, with or without dashes, or of that slug; a UUID comes first."""
        with self._database.read() as db:
            return _find(db, org_id, id_or_slug)

    def listed(self, org_id: int) -> list[Evaluator]:
        """The organisation's evaluators, oldest first."""
        query = _EVALUATOR.where(evaluator.c.org_id == org_id).order_by(evaluator.c.id)
        with self._database.read() as db:
            return [_evaluator(row) for row in db.execute(query)]

    def update(self, org_id: int, id_or_slug: str, **changes: Any) -> Evaluator:
        """Change what is given. Scores stay under the slug that they were given.

        Args:
            changes: any of CHANGEABLE.
        Raises:
            NotFound, Conflict (the slug is taken), InvalidInput.
        """
        assert set(changes) <= CHANGEABLE, f"an evaluator has no {set(changes) - CHANGEABLE}"
        values = _columns(changes) | {"updated_at_ns": self._clock.now_ns()}
        with self._database.write() as db:
            mine = evaluator.c.id == _expect(db, org_id, id_or_slug).id
            try:
                with db.begin_nested():
                    db.execute(update(evaluator).where(mine).values(values))
            except IntegrityError as error:
                raise _taken(changes["slug"]) from error
            return _one(db, mine)

    def remove(self, org_id: int, id_or_slug: str) -> None:
        """Remove an evaluator; the scores that it gave stay. Raises NotFound."""
        with self._database.write() as db:
            db.execute(delete(evaluator).where(evaluator.c.id == _expect(db, org_id, id_or_slug).id))


def _columns(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an evaluator as column values. Raises InvalidInput."""
    values = dict(said)
    for name in ("slug", "name"):
        if name in values:
            check_name(values[name])
    for name in ("kind", "score_type"):
        if name in values and not 1 <= len(values[name]) <= KIND_CHARS_MAX:
            raise InvalidInput(f"{name} has 1 to {KIND_CHARS_MAX} characters.", fields=(name,))
    if len(values.get("description") or "") > DESCRIPTION_CHARS_MAX:
        raise InvalidInput(f"A description has at most {DESCRIPTION_CHARS_MAX} characters.", fields=("description",))
    if "config" in values:
        values["config"] = json_text("config", values["config"])
    return values


def _taken(slug: str) -> Conflict:
    return Conflict(f"There is an evaluator {slug!r} already.", fields=("slug",))


def _find(db: Connection, org_id: int, id_or_slug: str) -> Evaluator | None:
    uuid = id_or_slug.replace("-", "").lower()
    named = or_(evaluator.c.uuid == uuid, evaluator.c.slug == id_or_slug)
    found = [_evaluator(row) for row in db.execute(_EVALUATOR.where(evaluator.c.org_id == org_id, named))]
    return min(found, key=lambda each: each.uuid != uuid, default=None)


def _expect(db: Connection, org_id: int, id_or_slug: str) -> Evaluator:
    found = _find(db, org_id, id_or_slug)
    if found is None:
        raise NotFound("There is no such evaluator.")
    return found


def _one(db: Connection, which: ColumnElement[bool]) -> Evaluator:
    return _evaluator(db.execute(_EVALUATOR.where(which)).one())


def _evaluator(row: Any) -> Evaluator:
    return Evaluator(*row)._replace(config=orjson.loads(row.config))
