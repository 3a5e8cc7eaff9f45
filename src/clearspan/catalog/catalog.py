"""The catalog as the rest of the server uses it: each method one transaction, safe from any thread."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from clearspan.catalog import access, heads, jobs, ledger, receipts, rotation, shares, signers, tenants, tree
from clearspan.catalog.access import ApiKey, KeyCache, NewKey
from clearspan.catalog.annotation_configs import AnnotationConfigs
from clearspan.catalog.database import FILE_NAME, Database
from clearspan.catalog.datasets import Datasets
from clearspan.catalog.evaluators import Evaluators
from clearspan.catalog.experiments import Experiments
from clearspan.catalog.jobs import Job
from clearspan.catalog.ledger import TRANSFER_KIND, LedgerEntry
from clearspan.catalog.principal import ALL_SCOPES, KeyPolicy, KeyScope, Principal
from clearspan.catalog.project_catalog import ProjectCatalog
from clearspan.catalog.projects import WriteCache
from clearspan.catalog.run_shares import RunShares
from clearspan.catalog.shares import Share
from clearspan.catalog.signers import Signer, StoredKey
from clearspan.catalog.tenants import Instance, Organisation
from clearspan.catalog.users import Users
from clearspan.model.clock import Clock, IdSource, SystemClock, SystemIds
from clearspan.model.errors import Conflict
from clearspan.store.transfer import OpenTransfer

OWNER_KEY_FILE = "owner-key"


class OwnerKey(NamedTuple):
    """The owner's key after a start. `secret` is set only when this start made it: show it once."""

    secret: str | None
    path: Path | None  # where it was written, readable by its owner only

    def __repr__(self) -> str:
        return f"OwnerKey(path={self.path!r})"


class Catalog(ProjectCatalog):
    """Organisations, projects, keys, shares, ledger and jobs. No trace content, no personal data of traces."""

    def __init__(self, database: Database, data: Path, instance: Instance, clock: Clock, ids: IdSource) -> None:
        """Use `Catalog.open`."""
        self._database = database
        self._data = data
        self._instance = instance
        self._clock = clock
        self._ids = ids
        self._keys = KeyCache(self._look_up, clock)
        self._written = WriteCache(clock, self.find_project)
        self._run_shares = RunShares(database, instance.secret, clock, ids)
        self._annotation_configs = AnnotationConfigs(database, clock, ids)
        self._datasets = Datasets(database, clock, ids, self._forget)
        self._evaluators = Evaluators(database, clock, ids)
        self._experiments = Experiments(database, clock, ids, self._forget)
        self._users = Users(database, clock, ids, self._keys.clear)

    @classmethod
    def open(cls, data: Path, *, clock: Clock | None = None, ids: IdSource | None = None) -> Self:
        """Open or make catalog.db in a data directory, and bring it to the present schema.

        Several processes may have it open at once.
        Raises:
            StoreDamaged: a newer version of Clearspan wrote it.
        Cost: some 15 ms when up to date, after SQLAlchemy's import of 140 ms.
        """
        clock, ids = clock or SystemClock(), ids or SystemIds()
        database = Database(data / FILE_NAME)
        try:
            database.migrate()
            with database.read() as db:
                instance, can_sign = tenants.find_instance(db), signers.has_key(db)
            if instance is None or not can_sign:
                with database.write() as db:
                    instance = tenants.seed(db, clock, ids)
                    if not signers.has_key(db):
                        signers.make_key(db, clock, ids)
        except BaseException:
            database.close()
            raise
        return cls(database, data, instance, clock, ids)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """For the verifier and for tests."""
        return self._database

    @property
    def instance_id(self) -> str:
        """Public id of this installation."""
        return self._instance.public_id

    @property
    def tombstone_secret(self) -> bytes:
        """32 bytes that key the hashes standing for deleted traces. Never leaves the server."""
        return self._instance.secret

    def checkpoint(self) -> bool:
        """Empty catalog.db's write-ahead log; False when a reader prevents it just now."""
        return self._database.checkpoint()

    @property
    def run_shares(self) -> RunShares:
        """Public links to traces by a token of the client's."""
        return self._run_shares

    @property
    def annotation_configs(self) -> AnnotationConfigs:
        """How annotations of one name are to be read."""
        return self._annotation_configs

    @property
    def datasets(self) -> Datasets:
        """What experiments run over."""
        return self._datasets

    @property
    def evaluators(self) -> Evaluators:
        """What gives results their scores."""
        return self._evaluators

    @property
    def experiments(self) -> Experiments:
        """What the server runs over datasets, and what LangSmith clients ran."""
        return self._experiments

    @property
    def users(self) -> Users:
        """People whom keys act for, and the keys that other keys make."""
        return self._users

    # Tenants

    def organisations(self) -> list[Organisation]:
        """Every organisation, oldest first."""
        with self._database.read() as db:
            return tenants.organisations(db)

    @property
    def first_org(self) -> Organisation:
        """The organisation that the first start made."""
        return self.organisations()[0]

    def create_organisation(self, name: str) -> Organisation:
        """A new organisation with a project `default`."""
        with self._database.write() as db:
            return tenants.create_organisation(db, self._clock, self._ids, name)

    # Keys

    def authenticate(self, key: str) -> Principal:
        """Who presents this key. A key revoked by another process is refused within `access.FRESH_S` seconds.

        Raises:
            NotAuthenticated: unknown, revoked or expired; which one is not told.
        """
        return self._keys.authenticate(key)

    def was_seen(self, key: str) -> bool:
        """Whether this key was valid a moment ago: such a caller is not guessing."""
        return self._keys.was_seen(key)

    def create_key(
        self,
        org_id: int,
        *,
        name: str,
        scopes: Iterable[KeyScope] = ALL_SCOPES,
        project_ids: Sequence[int] | None = None,
        environment: str | None = None,
        expires_at_ns: int | None = None,
        policy: KeyPolicy = KeyPolicy(),  # noqa: B008 - frozen
    ) -> NewKey:
        """A new key; its text is in the answer and nowhere else. See access.create_key."""
        with self._database.write() as db:
            return access.create_key(
                db,
                self._clock,
                self._ids,
                org_id,
                name=name,
                scopes=scopes,
                project_ids=project_ids,
                environment=environment,
                expires_at_ns=expires_at_ns,
                policy=policy,
            )

    def list_keys(self, org_id: int) -> list[ApiKey]:
        """The organisation's keys, also revoked and expired ones."""
        with self._database.read() as db:
            return access.list_keys(db, org_id)

    def revoke_key(self, org_id: int, name: str) -> ApiKey:
        """Revoke a key by public id or visible prefix. Raises NotFound, or Conflict for an ambiguous prefix."""
        with self._database.write() as db:
            revoked = access.revoke_key(db, self._clock, org_id, name)
        self._keys.clear()
        return revoked

    def has_valid_key(self) -> bool:
        """Whether any key would be accepted now."""
        with self._database.read() as db:
            return access.count_keys(db, valid_at_ns=self._clock.now_ns()) > 0

    def ensure_owner_key(self, configured: str | None) -> OwnerKey:
        """At a start of the server: see that the owner can get in.

        A configured key is added when it is new. It is not brought back once revoked: that would undo a deliberate
        act at every restart. Without one, and if no key was ever made, a key is made and written to
        `owner-key` in the data directory.
        Raises:
            Conflict: the configured key was revoked.
        """
        with self._database.write() as db:
            org = tenants.organisations(db)[0]
            if configured is not None:
                known = access.find_digest(db, configured)
                if known is not None and not known.is_valid(self._clock.now_ns()):
                    raise Conflict("The configured API key was revoked; choose another.", fields=("api_key",))
                if known is None:
                    access.create_key(db, self._clock, self._ids, org.id, name="owner (configured)", secret=configured)
                return OwnerKey(None, None)
            if access.count_keys(db) > 0:
                path = self._data / OWNER_KEY_FILE
                return OwnerKey(None, path if path.exists() else None)
            made = access.create_key(db, self._clock, self._ids, org.id, name="owner")
            # Written before the commit: a crash between the two leaves a file with a dead key, which the next start
            # replaces, rather than a live key that nobody knows.
            path = _write_private(self._data / OWNER_KEY_FILE, made.secret + "\n")
        return OwnerKey(made.secret, path)

    def _look_up(self, key: str) -> Principal | None:
        with self._database.read() as db:
            return access.principal_of(db, key, self._clock.now_ns())

    # Shares

    def set_share(
        self, org_id: int, project_id: int, trace_id: str, *, public: bool, fields: Sequence[str] = ()
    ) -> None:
        """Make a trace public or private. The caller sees to it that the trace exists. Raises NotFound."""
        with self._database.write() as db:
            shares.set_share(
                db,
                self._instance.secret,
                self._clock.now_ns(),
                org_id,
                project_id,
                trace_id,
                public=public,
                fields=fields,
            )

    def find_share(self, org_public_id: str, trace_id: str) -> list[Share]:
        """Which projects of an organisation have made that trace public; empty: none."""
        with self._database.read() as db:
            return shares.find_share(db, self._instance.secret, org_public_id, trace_id)

    def drop_shares(self, traces: Sequence[tuple[int, str]]) -> int:
        """Remove the shares of (project_id, trace_id) pairs; how many there were. Safe to repeat."""
        with self._database.write() as db:
            return shares.drop_shares(db, self._instance.secret, traces)

    def record_transfer(self, transfer: OpenTransfer, manifest_root: str) -> None:
        """Move the public links of traces that were moved to another project, and write down in the ledger that they
        were: one transaction, safe to repeat.

        Args:
            manifest_root: commits to which traces they are, hex.
        """
        moved = (transfer.from_project_id, transfer.trace_ids, transfer.to_project_id)
        with self._database.write() as db:
            links = shares.move_shares(db, self._instance.secret, *moved) + self._run_shares.move(db, *moved)
            body = {
                "by": transfer.by,
                "from_project_id": transfer.from_project_id,
                "to_project_id": transfer.to_project_id,
                "traces": len(transfer.trace_ids),
                "links": links,
                "manifest_root": manifest_root,
            }
            now_ns = self._clock.now_ns()
            ledger.append(db, now_ns, TRANSFER_KIND, transfer.transfer_id, body, org_id=transfer.org_id)

    def count_shares(self, traces: Sequence[tuple[int, str]]) -> int:
        """How many of (project_id, trace_id) pairs are shared."""
        with self._database.read() as db:
            return shares.count_shares(db, self._instance.secret, traces)

    # Ledger

    def append_ledger(
        self,
        kind: str,
        deletion_id: str | None,
        body: Mapping[str, Any],
        *,
        org_id: int | None = None,
        step: str = "",
    ) -> LedgerEntry:
        """Add an entry, once for each (deletion, kind, step). Raises ValueError for free text; see ledger.append."""
        with self._database.write() as db:
            return ledger.append(db, self._clock.now_ns(), kind, deletion_id, body, org_id=org_id, step=step)

    def ledger(
        self,
        *,
        after_seq: int = -1,
        limit: int = 1000,
        org_id: int | None = None,
        deletion_id: str | None = None,
    ) -> list[LedgerEntry]:
        """Entries in order."""
        with self._database.read() as db:
            return ledger.entries(db, after_seq=after_seq, limit=limit, org_id=org_id, deletion_id=deletion_id)

    def ledger_newest(
        self, org_id: int, *, start_ns: int, end_ns: int, before_seq: int | None, limit: int
    ) -> list[LedgerEntry]:
        """See ledger.newest_first."""
        with self._database.read() as db:
            return ledger.newest_first(db, org_id, start_ns=start_ns, end_ns=end_ns, before_seq=before_seq, limit=limit)

    def ledger_size(self) -> int:
        """How many entries the ledger has."""
        with self._database.read() as db:
            return tree.size(db)

    def ledger_root(self, size: int) -> bytes:
        """Merkle root over the first `size` entries. Raises InvalidInput when there are not so many."""
        with self._database.read() as db:
            return tree.root(db, size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that entry `index` is among the first `size`. Raises InvalidInput."""
        with self._database.read() as db:
            return tree.inclusion(db, index, size)

    def consistency(self, old_size: int, size: int) -> list[bytes]:
        """The proof that the ledger of `size` entries begins with that of `old_size`. Raises InvalidInput."""
        with self._database.read() as db:
            return tree.consistency(db, old_size, size)

    # Signatures and receipts

    @property
    def signer(self) -> Signer:
        """Who signs for this installation; for receipts.issue, inside a write transaction."""
        return Signer(self._instance.public_id)

    def signed_head(self) -> str:
        """The ledger as it is, signed (compact JWS) and published: kept for good. Repeating it adds nothing."""
        with self._database.write() as db:
            return heads.publish(db, self._clock.now_ns())

    def published_heads(self, *, from_size: int = 0, limit: int = 1000) -> list[str]:
        """Every head that was published, from a size on."""
        with self._database.read() as db:
            return heads.published(db, from_size=from_size, limit=limit)

    def signing_keys(self) -> list[StoredKey]:
        """The public keys of every receipt and head ever signed, oldest first."""
        with self._database.read() as db:
            return signers.stored_keys(db)

    def rotate_signing_key(self) -> StoredKey:
        """Sign with a new key from now on; what the old ones signed can still be checked. See rotation.rotate."""
        with self._database.write() as db:
            return rotation.rotate(db, self._clock, self._ids)

    def receipt(self, deletion_id: str) -> str | None:
        """The receipt of a deletion, a compact JWS; None when none was issued."""
        with self._database.read() as db:
            return receipts.find(db, deletion_id)

    # Jobs

    def get_job(self, job_id: str) -> Job:
        """The job. Raises NotFound."""
        with self._database.read() as db:
            return jobs.get(db, job_id)

    def release_jobs_of_others(self, owner: str) -> int:
        """At a start: give back what owners before this process held; how many jobs."""
        with self._database.write() as db:
            return jobs.release_others(db, self._clock.now_ns(), owner)


def _write_private(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path
