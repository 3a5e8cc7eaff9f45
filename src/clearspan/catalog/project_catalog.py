"""The Catalog's methods about projects: each one transaction, safe from any thread."""

from __future__ import annotations

from collections.abc import Sequence

from clearspan.catalog import datasets, experiments, projects
from clearspan.catalog.access import KeyCache
from clearspan.catalog.database import Database
from clearspan.catalog.principal import Principal
from clearspan.catalog.projects import (
    NO_SETTINGS,
    Project,
    ProjectPurpose,
    ProjectSettings,
    ProjectState,
    WriteCache,
)
from clearspan.model.clock import Clock, IdSource


class ProjectCatalog:
    """The part of Catalog that deals with projects; the Catalog sets these."""

    _database: Database
    _clock: Clock
    _ids: IdSource
    _keys: KeyCache
    _written: WriteCache

    def projects(
        self,
        org_id: int,
        *,
        states: Sequence[ProjectState] = (ProjectState.LIVE,),
        purposes: Sequence[ProjectPurpose] = projects.ORDINARY,
    ) -> list[Project]:
        """The organisation's projects, oldest first; only if asked for those being removed, and those of datasets."""
        with self._database.read() as db:
            return projects.projects(db, org_id, states=states, purposes=purposes)

    def find_project(self, org_id: int, name: str) -> Project | None:
        """The organisation's project of that name."""
        with self._database.read() as db:
            return projects.find_project(db, org_id, name)

    def find_project_uuid(self, org_id: int, uuid: str) -> Project | None:
        """The organisation's project of that UUID (32 hex digits)."""
        with self._database.read() as db:
            return projects.find_uuid(db, org_id, uuid)

    def find_project_number(self, org_id: int, project_id: int) -> Project | None:
        """The organisation's live project of that number, that of a dataset too."""
        with self._database.read() as db:
            return projects.find_number(db, org_id, project_id)

    def is_live(self, project_id: int) -> bool:
        """Whether there is such a project, in any organisation, and nobody is removing it."""
        with self._database.read() as db:
            return projects.is_live(db, project_id)

    def create_project(
        self, org_id: int, name: str, *, uuid: str | None = None, settings: ProjectSettings = NO_SETTINGS
    ) -> Project:
        """A new project, at once open to every key that is not bound to others. Raises Conflict, InvalidInput."""
        with self._database.write() as db:
            made = projects.create_project(db, self._clock, self._ids, org_id, name, uuid=uuid, settings=settings)
        self._forget()
        return made

    def update_project(
        self, org_id: int, project_id: int, *, name: str | None = None, settings: ProjectSettings = NO_SETTINGS
    ) -> Project:
        """Change what is given; None leaves it as it is. Raises NotFound, Conflict, InvalidInput."""
        with self._database.write() as db:
            changed = projects.update_project(db, self._clock, org_id, project_id, name=name, settings=settings)
        self._forget()
        return changed

    def project_for_ingest(self, principal: Principal, name: str | None) -> Project:
        """The project that a write means by a name, made if there is none; no name means the key's default.

        Safe from any number of threads: a name is made once.
        Raises:
            NotPermitted: the key is bound to other projects.
            InvalidInput: no project can have that name.
        Cost: about 1 µs from memory, about 0.3 ms otherwise.
        """
        if name is None:
            return self._default_of(principal)
        found = self._written.find(principal.org_id, name)
        projects.check_writable(principal, found)
        if found is not None:
            return found
        with self._database.write() as db:
            found = projects.find_project(db, principal.org_id, name)
            made = found or projects.create_project(db, self._clock, self._ids, principal.org_id, name)
        if found is None:
            self._forget()
        return made

    def _default_of(self, principal: Principal) -> Project:
        default = principal.default_project_id
        if default is None and not principal.bound:
            return self.project_for_ingest(principal, projects.DEFAULT_PROJECT)
        number = principal.project_for_write()
        return next(each for each in self.projects(principal.org_id) if each.id == number)

    # Removal: deletion/projects.py decides

    def removed_projects(self, *, gone_after_ns: int) -> list[Project]:
        """Of every organisation: the projects that are leaving, and those that went after that time."""
        with self._database.read() as db:
            return projects.removed_projects(db, gone_after_ns=gone_after_ns)

    def project_leaves(self, project_id: int, deletion_id: str) -> Project:
        """See projects.leave."""
        with self._database.write() as db:
            found = projects.leave(db, self._clock, project_id, deletion_id)
            datasets.leave(db, found)
        self._forget()
        return found

    def project_comes_back(self, project_id: int) -> Project:
        """See projects.come_back."""
        with self._database.write() as db:
            found = projects.come_back(db, self._clock, project_id)
            datasets.come_back(db, found)
        self._forget()
        return found

    def erase_project(self, project_id: int) -> None:
        """See projects.erase. What makes it a dataset or an experiment goes as well."""
        with self._database.write() as db:
            if projects.erase(db, self._clock, project_id):
                datasets.erase(db, project_id)
                experiments.erase(db, project_id)
        self._forget()

    def _forget(self) -> None:
        self._keys.clear()
        self._written.clear()
