"""Public links to a trace by a token that the client chose (LangSmith).

The Catalog keeps neither token nor trace id in readable form. A row holds a keyed hash of each, the trace id sealed
under a key that only the token gives, and the token sealed under a key that only the trace id gives. So a link opens
for whoever has the token, its owner can ask for the token of a trace he may read, and the file alone tells neither.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from clearspan.catalog.database import Database
from clearspan.catalog.projects import ProjectState
from clearspan.catalog.shares import share_key
from clearspan.catalog.tables import organisation, project, run_share
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import Conflict, InvalidInput, NotFound

_CHUNK = 1_000  # bound values in one statement, of which SQLite takes 32,766
_NONCE_BYTES = 12
_TOKEN = re.compile(r"[0-9a-f]{32}")


class RunShare(NamedTuple):
    """One trace that everybody with the token may read."""

    token: str  # 32 hex digits
    org_id: int
    org_public_id: str
    project_id: int
    trace_id: str
    created_at_ns: int


class RunShares:
    """Links to traces; each method one transaction, safe from any thread."""

    def __init__(self, database: Database, secret: bytes, clock: Clock, ids: IdSource) -> None:
        """
        Args:
            secret: the instance's 32 bytes.
        """
        self._database = database
        self._secret = secret
        self._clock = clock
        self._ids = ids

    def create(self, org_id: int, project_id: int, trace_id: str, token: str) -> str:
        """Link a trace, and tell the token that opens it: the one of the link it has already, else `token`.

        The caller sees to it that the trace exists.
        Raises:
            InvalidInput: a token is a UUID (32 hex digits); anything shorter could be guessed.
            Conflict: the token is another trace's.
            NotFound: the project is not one of this organisation.
        """
        if not _TOKEN.fullmatch(token):
            raise InvalidInput("A share token is a UUID.", fields=("share_token",))
        with self._database.write() as db:
            owner = db.execute(select(project.c.org_id).where(project.c.id == project_id)).scalar()
            if owner != org_id:
                raise NotFound
            known = self._token_of(db, project_id, trace_id)
            if known is not None:
                return known
            values = {
                "trace_key": share_key(self._secret, trace_id),
                "project_id": project_id,
                "token_key": self._hash(b"token", token),
                "sealed_trace": self._seal(self._hash(b"open", token), trace_id),
                "sealed_token": self._seal(self._hash(b"trace", f"{project_id}/{trace_id}"), token),
                "created_at_ns": self._clock.now_ns(),
            }
            try:
                with db.begin_nested():
                    db.execute(insert(run_share).values(values))
            except IntegrityError as error:
                raise Conflict("This share token belongs to another run.", fields=("share_token",)) from error
        return token

    def token_of(self, project_id: int, trace_id: str) -> str | None:
        """The token of a trace's link; None: it has none."""
        with self._database.read() as db:
            return self._token_of(db, project_id, trace_id)

    def find(self, token: str) -> RunShare | None:
        """What a token opens. Whether the trace can still be read is for the store to say, with each answer."""
        with self._database.read() as db:
            row = db.execute(
                select(
                    run_share.c.sealed_trace,
                    run_share.c.created_at_ns,
                    run_share.c.project_id,
                    project.c.org_id,
                    organisation.c.public_id,
                )
                .join(project, project.c.id == run_share.c.project_id)
                .join(organisation, organisation.c.id == project.c.org_id)
                .where(run_share.c.token_key == self._hash(b"token", token), project.c.state == ProjectState.LIVE)
            ).first()
        if row is None:
            return None
        trace_id = self._open(self._hash(b"open", token), row.sealed_trace)
        return RunShare(token, row.org_id, row.public_id, row.project_id, trace_id, row.created_at_ns)

    def remove(self, project_id: int, trace_id: str) -> bool:
        """End a trace's link; False when there was none."""
        with self._database.write() as db:
            return drop(db, self._secret, [(project_id, trace_id)]) > 0

    def projects_that_share(self, project_ids: Sequence[int]) -> dict[int, int]:
        """project → how many of its traces are linked; projects without links are left out."""
        query = (
            select(run_share.c.project_id, func.count())
            .where(run_share.c.project_id.in_(project_ids))
            .group_by(run_share.c.project_id)
        )
        with self._database.read() as db:
            return {number: count for number, count in db.execute(query)}

    def links_of(self, project_id: int, trace_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        """(trace id, token, when it was made) of those of the traces that are linked."""
        keys = {share_key(self._secret, trace_id): trace_id for trace_id in trace_ids}
        found = []
        with self._database.read() as db:
            for chunk in _chunks(list(keys)):
                mine = (run_share.c.project_id == project_id) & run_share.c.trace_key.in_(chunk)
                for row in db.execute(select(run_share).where(mine)):
                    trace_id = keys[row.trace_key]
                    token = self._open(self._hash(b"trace", f"{project_id}/{trace_id}"), row.sealed_token)
                    found.append((trace_id, token, row.created_at_ns))
        return found

    def move(self, db: Connection, from_project_id: int, trace_ids: Sequence[str], to_project_id: int) -> int:
        """Let the links of traces that moved name their new project, in the caller's transaction; how many there were.
        Safe to repeat."""
        keys = {share_key(self._secret, trace_id): trace_id for trace_id in trace_ids}
        moved = 0
        for chunk in _chunks(list(keys)):
            here = (run_share.c.project_id == from_project_id) & run_share.c.trace_key.in_(chunk)
            for row in db.execute(select(run_share.c.trace_key, run_share.c.sealed_token).where(here)).all():
                trace_id = keys[row.trace_key]
                token = self._open(self._hash(b"trace", f"{from_project_id}/{trace_id}"), row.sealed_token)
                drop(db, self._secret, [(to_project_id, trace_id)])  # of a trace that is there no more
                sealed = self._seal(self._hash(b"trace", f"{to_project_id}/{trace_id}"), token)
                one = (run_share.c.project_id == from_project_id) & (run_share.c.trace_key == row.trace_key)
                db.execute(update(run_share).where(one).values(project_id=to_project_id, sealed_token=sealed))
                moved += 1
        return moved

    def _token_of(self, db: Connection, project_id: int, trace_id: str) -> str | None:
        sealed = db.execute(
            select(run_share.c.sealed_token).where(
                run_share.c.project_id == project_id, run_share.c.trace_key == share_key(self._secret, trace_id)
            )
        ).scalar()
        return None if sealed is None else self._open(self._hash(b"trace", f"{project_id}/{trace_id}"), sealed)

    def _hash(self, purpose: bytes, text: str) -> bytes:
        message = b"run share\0" + purpose + b"\0" + text.encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, message, "sha256")

    def _seal(self, key: bytes, text: str) -> bytes:
        nonce = self._ids.token_bytes(_NONCE_BYTES)
        return nonce + ChaCha20Poly1305(key).encrypt(nonce, text.encode("utf-8", "surrogatepass"), None)

    def _open(self, key: bytes, sealed: bytes) -> str:
        plain = ChaCha20Poly1305(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        return plain.decode("utf-8", "surrogatepass")


def drop(db: Connection, secret: bytes, traces: Sequence[tuple[int, str]]) -> int:
    """Remove the links of (project_id, trace_id) pairs; how many there were. Safe to repeat."""
    return sum(
        db.execute(delete(run_share).where(run_share.c.project_id == number, run_share.c.trace_key.in_(keys))).rowcount
        for number, keys in _keys(secret, traces)
    )


def count(db: Connection, secret: bytes, traces: Sequence[tuple[int, str]]) -> int:
    """How many of (project_id, trace_id) pairs are linked: what a verifier asks after `drop`."""
    query = select(func.count()).select_from(run_share)
    return sum(
        db.execute(query.where(run_share.c.project_id == number, run_share.c.trace_key.in_(keys))).scalar_one()
        for number, keys in _keys(secret, traces)
    )


def _keys(secret: bytes, traces: Sequence[tuple[int, str]]) -> Iterator[tuple[int, Sequence[bytes]]]:
    by_project: dict[int, list[bytes]] = {}
    for number, trace_id in traces:
        by_project.setdefault(number, []).append(share_key(secret, trace_id))
    for number, keys in by_project.items():
        for chunk in _chunks(keys):
            yield number, chunk


def _chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]
