"""The durable job of each experiment that is being run: who runs it, how far it is, which attempt its failures have.

The job says no more than that there is something to do. What was done is in the store, where every result is a trace
whose id says which result it is: a job whose figures are late costs a look at finished items, and runs none again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import func, select

from clearspan.catalog import Catalog, jobs
from clearspan.catalog.experiments import Experiment
from clearspan.catalog.jobs import LEASE_S, Job
from clearspan.catalog.tables import job
from clearspan.experiments.result_runs import FIRST_ATTEMPT
from clearspan.model.clock import Clock, IdSource

KIND: Final = "experiment"
_OPEN: Final = ("ready", "running")
_ENDED: Final = ("done", "failed", "cancelled")
_ALL: Final = 2**31 - 1


class Cursor(NamedTuple):
    """How far a job is."""

    attempt: int = FIRST_ATTEMPT  # the highest that failed items may have
    reached: int = 0  # items before were looked at; where the next start looks first, before it looks at all of them

    def render(self) -> str:
        return f"{self.attempt}:{self.reached}"


def read_cursor(text: str | None) -> Cursor:
    """A cursor as it stands in the job's row."""
    attempt, _, reached = (text or Cursor().render()).partition(":")
    return Cursor(int(attempt), int(reached))


class ExperimentJobs:
    """The jobs of experiments in the Catalog. Every method is one transaction and blocks."""

    def __init__(self, catalog: Catalog, clock: Clock, ids: IdSource) -> None:
        self._database = catalog.database
        self._clock = clock
        self._owner = ids.new_id("run")

    def open(self, experiment: Experiment) -> Job:
        """Make the experiment's job claimable: a new one, or the one that has ended. An open one stays as it is."""
        now_ns = self._clock.now_ns()
        with self._database.write() as db:
            body = {"project_id": experiment.project_id}
            found = jobs.create(db, now_ns, job_id_of(experiment), KIND, body, org_id=experiment.org_id)
            if found.state in _ENDED:
                jobs.reopen(db, now_ns, found.id, from_state=found.state)
            return jobs.get(db, found.id)

    def find(self, experiment: Experiment) -> Job | None:
        """The experiment's job; None: it never had one."""
        with self._database.read() as db:
            row = db.execute(select(job.c.id).where(job.c.id == job_id_of(experiment))).first()
            return None if row is None else jobs.get(db, row.id)

    def open_projects(self) -> list[int]:
        """The projects of the experiments whose jobs have not ended, oldest first."""
        with self._database.read() as db:
            return [each.body["project_id"] for each in jobs.list_(db, states=_OPEN, kind=KIND, limit=_ALL)]

    def claim(self, experiment: Experiment, *, retries: bool = False) -> Job | None:
        """Take the experiment's open job; None when another owner has it, or it has ended.

        Args:
            retries: from now on failed items may have one attempt more.
        """
        now_ns = self._clock.now_ns()
        with self._database.write() as db:
            job_id = job_id_of(experiment)
            claimed = jobs.claim(db, now_ns, self._owner, kind=KIND, job_id=job_id, lease_s=LEASE_S)
            if claimed is None or not retries:
                return claimed
            cursor = Cursor(read_cursor(claimed.cursor).attempt + 1)
            return jobs.advance(db, now_ns, claimed, lease_s=LEASE_S, cursor=cursor.render())

    def advance(self, claimed: Job, cursor: Cursor, counts: dict[str, int]) -> Job:
        """Heartbeat, and how far it is. Raises Conflict when the lease was lost."""
        with self._database.write() as db:
            now_ns = self._clock.now_ns()
            return jobs.advance(db, now_ns, claimed, lease_s=LEASE_S, cursor=cursor.render(), counts=counts)

    def finish(self, claimed: Job, state: str, counts: dict[str, int], error: str | None = None) -> None:
        """End the job. Raises Conflict when the lease was lost."""
        with self._database.write() as db:
            jobs.finish(db, self._clock.now_ns(), claimed, state, error=error, counts=counts)

    def cancel(self, project_id: int) -> None:
        """End the job of a project's experiment, whoever has it; nothing happens when it has ended, or never was."""
        with self._database.write() as db:
            for each in jobs.list_(db, states=_OPEN, kind=KIND, limit=_ALL):
                if each.body["project_id"] != project_id:
                    continue
                # As its owner: `finish` wants the lease that the row names.
                if each.state == "ready":
                    owned = jobs.claim(db, self._clock.now_ns(), self._owner, job_id=each.id, lease_s=LEASE_S)
                else:
                    owned = each
                if owned is not None:
                    jobs.finish(db, self._clock.now_ns(), owned, "cancelled")

    def count_silent(self) -> int:
        """Open jobs that nobody has said anything of for two leases: nobody works on them."""
        before_ns = self._clock.now_ns() - round(2 * LEASE_S * 1e9)
        query = select(func.count()).where(job.c.kind == KIND, job.c.state.in_(_OPEN), job.c.updated_at_ns < before_ns)
        with self._database.read() as db:
            return int(db.execute(query).scalar_one())


def job_id_of(experiment: Experiment) -> str:
    """The id of an experiment's one job."""
    return f"experiment:{experiment.project_id}"
