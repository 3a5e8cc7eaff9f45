"""What of an organisation's deletions, holds and projects one key may see."""

from __future__ import annotations

from dataclasses import dataclass, field

from clearspan.api.services import Services
from clearspan.catalog import Principal, ProjectPurpose
from clearspan.deletion.job import DeletionJob
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.trace import Scope


@dataclass(frozen=True, slots=True)
class Bounds:
    """A key's bounds, read once for a request.

    A deletion lies within them when all its projects do. A deletion's environment is a name that customers choose,
    which the Catalog does not keep: so a key bound to an environment sees what keys bound to the same one asked for.

    Attributes:
        names: number of each project that the key may touch → its name.
        datasets: number of each project that holds items → its name. No request names one; deletions take copies there.
        askers: keys whose deletions are shown; None: of whomever.
    """

    principal: Principal
    names: dict[int, str]
    askers: frozenset[str] | None
    datasets: dict[int, str] = field(default_factory=dict)

    def sees(self, job: DeletionJob) -> bool:
        """Whether a deletion lies within the key's bounds."""
        return (
            job.org_id == self.principal.org_id
            and set(job.project_ids) <= set(self.principal.known_project_ids)
            and (self.askers is None or job.requested_by in self.askers)
        )

    @property
    def is_whole(self) -> bool:
        """Whether the key sees all of its organisation."""
        return self.askers is None and not self.principal.bound

    def project_names(self, project_ids: tuple[int, ...]) -> list[str]:
        """Names in order of age; of projects that are gone, nothing."""
        known = self.names | self.datasets
        return [known[each] for each in project_ids if each in known]

    def name_of(self, project_id: int) -> str:
        """Its name, or its number where it has none any more."""
        return self.names.get(project_id) or self.datasets.get(project_id) or str(project_id)

    def project_id(self, name: str) -> int:
        """The project of that name.

        Raises:
            NotFound: there is none, or the key may not touch it; which one is not told.
        """
        for number, known in self.names.items():
            if known == name:
                return number
        raise NotFound("There is no such project.", code="project_not_found", fields=("project",))

    def scope(self, project: str | None, environment: str | None) -> Scope:
        """What a request that names a project or an environment speaks of. Raises NotFound, NotPermitted."""
        scope = self.principal.scope_for_read(environment)
        return scope if project is None else scope._replace(project_ids=(self.project_id(project),))

    def one_project(self, project: str | None) -> int:
        """The project meant where exactly one is needed: the one named, else the only one.

        Raises:
            NotFound: as `project_id`.
            InvalidInput: none is named and the key may touch several.
        """
        if project is not None:
            return self.project_id(project)
        if len(self.names) != 1:
            raise InvalidInput(
                "project is required: the key may touch several.", code="missing_key", fields=("project",)
            )
        return next(iter(self.names))


def bounds_of(services: Services, principal: Principal) -> Bounds:
    """Read a key's bounds. Blocks for one or two catalog reads: call it in a thread."""
    every = services.catalog.projects(principal.org_id, purposes=tuple(ProjectPurpose))
    names = {each.id: each.name for each in every if each.id in set(principal.project_ids)}
    datasets = {each.id: each.name for each in every if each.id in set(principal.dataset_project_ids)}
    if principal.environment is None:
        return Bounds(principal, names, None, datasets)
    keys = services.catalog.list_keys(principal.org_id)
    same = frozenset(each.public_id for each in keys if each.environment == principal.environment)
    return Bounds(principal, names, same | {principal.key_id}, datasets)


def no_such(what: str) -> NotFound:
    """For what is unknown and for what is another tenant's alike."""
    return NotFound(f"There is no such {what}.")
