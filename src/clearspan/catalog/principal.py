"""Who is asking, and what they may touch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clearspan.model.errors import NotPermitted
from clearspan.model.trace import Scope


class KeyScope(StrEnum):
    """What a key may do. None includes another."""

    INGEST = "ingest"
    READ = "read"
    ANNOTATE = "annotate"
    DELETE = "delete"
    APPROVE = "approve"
    ADMIN = "admin"


ALL_SCOPES = frozenset(KeyScope)


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """How much one deletion with a key may take, and what it must say. The default limits nothing.

    Attributes:
        max_traces: the most traces one deletion may match; None: no limit.
        max_share_ppm: the most of the visible traces in the key's reach, in millionths.
        require_reason: a deletion needs a reason.
        forbid_delete_all: a filter needs a window with two ends.
        strict_window: a default may not stand in for a start that the caller left out.
    """

    max_traces: int | None = None
    max_share_ppm: int | None = None
    require_reason: bool = False
    forbid_delete_all: bool = False
    strict_window: bool = False


@dataclass(frozen=True, slots=True)
class Principal:
    """A key that was presented and found valid: at most two seconds ago, see access.KeyCache.

    Attributes:
        key_id: public id of the key; what a span written with it carries.
        project_ids: every project the key may touch, ascending; for a key without bounds all of the organisation.
        bound: whether the key is limited to listed projects.
        environment: set: the key sees and writes this environment only.
        default_project_id: where writes go that name no project; None when the key's projects are all gone.
        policy: what bounds each of its deletions.
        removed_project_ids: projects it could touch that are being removed, or are gone: their deletions stay visible.
        dataset_project_ids: projects that hold the items of datasets, ascending: no ordinary read or list shows them,
            deletions take copies in them. A key that is bound to projects has none.
        user_id: public id of the user the key acts for, who owns what is written with it; None: a machine's key.
    """

    org_id: int
    org_public_id: str
    org_name: str
    key_id: str
    key_name: str
    scopes: frozenset[KeyScope]
    project_ids: tuple[int, ...]
    bound: bool
    environment: str | None
    default_project_id: int | None
    policy: KeyPolicy = KeyPolicy()
    removed_project_ids: tuple[int, ...] = ()
    user_id: str | None = None
    dataset_project_ids: tuple[int, ...] = ()

    @property
    def known_project_ids(self) -> tuple[int, ...]:
        """The key's projects, those of datasets and of the past too: what its deletions and holds are judged by."""
        return (*self.project_ids, *self.dataset_project_ids, *self.removed_project_ids)

    @property
    def is_whole(self) -> bool:
        """Whether the key sees all of its organisation: datasets, and experiments as wholes, may hold any of it."""
        return not self.bound and self.environment is None

    def permits(self, scope: KeyScope) -> bool:
        """Whether the key has this scope."""
        return scope in self.scopes

    def require(self, scope: KeyScope) -> None:
        """Raise NotPermitted when the key lacks this scope."""
        if scope not in self.scopes:
            raise NotPermitted(f"This API key lacks the scope `{scope.value}`.")

    def scope_for_read(self, environment: str | None = None) -> Scope:
        """What a read or a deletion may see.

        Args:
            environment: the one asked for, or None. It is a narrowing: never a way out of the key's own.
        Raises:
            NotPermitted: the key belongs to another environment. An empty answer would look like "no such traces".
        """
        if self.environment is None:
            return Scope(self.project_ids, environment)
        if environment is not None and environment != self.environment:
            raise NotPermitted(
                f"This API key is limited to the environment {self.environment!r}.", fields=("environment",)
            )
        return Scope(self.project_ids, self.environment)

    def scope_for_copies(self) -> Scope:
        """Where a deletion takes copies of what it was asked for: the items of datasets as well as every project."""
        return Scope((*self.project_ids, *self.dataset_project_ids), self.environment)

    def project_for_write(self, project_id: int | None = None) -> int:
        """The project a write goes to: the one named, else the key's default.

        Raises:
            NotPermitted: the named one is not among the key's, or the key has none left.
        """
        if project_id is None:
            project_id = self.default_project_id
        if project_id is None or project_id not in self.project_ids:
            raise NotPermitted("This API key may not write to that project.", fields=("project",))
        return project_id

    def environment_for_write(self, sent: str | None) -> str | None:
        """The environment a written span gets: the key's own before the one sent."""
        return self.environment if self.environment is not None else sent
