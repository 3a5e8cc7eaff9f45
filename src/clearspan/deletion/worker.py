"""The queue of deletions in this process's hands, the threads that work it off, and waiting for one of them.

What a step is lies in steps.py; here it is only whose turn it is. One step of each task in turn, so that a large
deletion does not hold up the small ones; and a few threads, because some steps of a large one (a recount, erasing its
manifest) take seconds.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from clearspan.deletion.job import DeletionJob
from clearspan.deletion.state import FINAL
from clearspan.model.clock import Clock
from clearspan.store.port import DeletionProgress

REREAD_S = 0.05
"""How often a caller who waits for a deletion that nobody here has in hand looks at its row in the Catalog."""
HOUSEKEEPING_S = 60.0
"""Between two rounds of housekeeping: expired previews, alarms."""

SMALL = 5_000
"""Traces. The first thread takes no deletion of more, so that large ones, whose recount and settling are one step each,
never hold up the small ones, however many there are."""
THREADS = 3
"""At work at once. Whatever they do to rows queues up at the one writer, in short transactions."""

_log = logging.getLogger("clearspan.deletion")


@dataclass(slots=True, eq=False)
class Task:
    """A deletion in this process's hands. Times are monotonic seconds."""

    job: DeletionJob
    due_s: float = 0.0  # not before then
    lease_s: float = float("-inf")  # when our lease should be renewed
    progress: DeletionProgress | None = None  # read once, then kept in step with what the batches answer
    attempts: int = 0  # failures in a row
    rows_max: int | None = None  # of the next batch; None: the usual number
    is_waiting: bool = False  # for a time or for a hold: nothing is wrong with it
    survivors_to: int | None = -1  # after a failure: the last trace of which nothing is left; None: all are looked at
    settling_s: float | None = None  # since when a reader keeps the write-ahead log from being emptied
    moved_s: float | None = None  # when a step last got it further
    before: Callable[[Task], None] | None = field(default=None, repr=False)  # to do before its next step; see accept.py
    kept_traces: int = 0  # of the plan that `before` needs
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # held while it is being changed

    @property
    def is_over(self) -> bool:
        return self.job.state in FINAL


def _takes_all(_: Task) -> bool:
    return True


def _takes_small(task: Task) -> bool:
    return task.job.matched <= SMALL


class Worker:
    """Runs steps of tasks. Safe to call from many threads.

    Until `start` is called everything happens in the calling thread; after it THREADS of our own carry deletions out.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        advance: Callable[[Task], None],
        reread: Callable[[str], DeletionJob | None],
        housekeeping: Callable[[], None],
    ) -> None:
        """
        Args:
            advance: one step of a task; never raises but for a crash.
            reread: a deletion's row in the Catalog.
            housekeeping: called now and then, between steps.
        """
        self._clock = clock
        self._advance = advance
        self._reread_job = reread
        self._housekeeping = housekeeping
        self._housekeeping_s = clock.monotonic_s()
        self._tasks: dict[str, Task] = {}
        self._queue: deque[Task] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closing = False

    def start(self) -> None:
        """Carry deletions out in threads of our own from now on."""
        assert not self._threads
        takes = [_takes_small, *[_takes_all] * (THREADS - 1)]
        self._threads = [
            threading.Thread(target=self._run, args=(each,), name=f"deleter-{n}", daemon=True)
            for n, each in enumerate(takes)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop after the steps at hand. Unfinished deletions go on at the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def tasks(self) -> list[Task]:
        """Every deletion in hand, in no order."""
        with self._changed:
            return list(self._tasks.values())

    def find(self, deletion_id: str) -> Task | None:
        """The task of a deletion in hand."""
        with self._changed:
            return self._tasks.get(deletion_id)

    def enqueue(self, task: Task) -> None:
        """Put a task (back) where it belongs: at the end of the queue, or away when it is over."""
        with self._changed:
            if task.is_over:
                self._tasks.pop(task.job.deletion_id, None)
            else:
                self._tasks[task.job.deletion_id] = task
                self._queue.append(task)
            self._changed.notify_all()

    def adopt(self, task: Task) -> None:
        """Enqueue a deletion unless it is in hand already."""
        with self._changed:
            if task.job.deletion_id not in self._tasks:
                self.enqueue(task)

    def wake(self, is_meant: Callable[[Task], bool]) -> None:
        """Make waiting tasks due at once."""
        with self._changed:
            for task in self._queue:
                if is_meant(task):
                    task.due_s = self._clock.monotonic_s()
            self._changed.notify_all()

    def forget_if_over(self, task: Task) -> None:
        """Take a task that somebody ended outside of a step off the queue, and tell who waits for it."""
        with self._changed:
            if task.is_over:
                self._tasks.pop(task.job.deletion_id, None)
                if task in self._queue:
                    self._queue.remove(task)
            self._changed.notify_all()

    # -- running ----------------------------------------------------------------------------------------------

    def run_due(self, deadline: float = float("inf")) -> None:
        """Carry out, in this thread, whatever is due before the monotonic `deadline`."""
        while self._clock.monotonic_s() < deadline:
            self._keep_house()
            task = self._next_due()
            if task is None:
                return
            self._step(task)

    def _run(self, takes: Callable[[Task], bool]) -> None:
        while True:
            self._keep_house()
            with self._changed:
                if self._closing:
                    return
                now = self._clock.monotonic_s()
                mine = [task for task in self._queue if takes(task)]
                if not any(task.due_s <= now for task in mine):
                    waits = [task.due_s - now for task in mine]
                    self._changed.wait(min([*waits, max(0.0, self._housekeeping_s - now)]))
                    continue
            task = self._next_due(takes)
            if task is not None:
                self._step(task)

    def _step(self, task: Task) -> None:
        self._advance(task)
        self.enqueue(task)

    def _keep_house(self) -> None:
        with self._changed:
            now = self._clock.monotonic_s()
            if now < self._housekeeping_s:
                return
            self._housekeeping_s = now + HOUSEKEEPING_S
        try:
            self._housekeeping()
        except Exception as error:  # it is tried again; no deletion depends on it
            _log.warning("housekeeping of deletions failed: %s", type(error).__name__)

    def _next_due(self, takes: Callable[[Task], bool] = _takes_all) -> Task | None:
        """Take the first task whose time has come off the queue."""
        with self._changed:
            now = self._clock.monotonic_s()
            for task in self._queue:
                if task.due_s <= now and takes(task):
                    self._queue.remove(task)
                    return task
        return None

    # -- waiting ----------------------------------------------------------------------------------------------

    def wait(self, task: Task, deadline: float) -> None:
        """Until the task is over or the deadline has passed; does the work itself while no thread does."""
        if not self._threads:
            self._work_until_over(task, deadline)
            return
        while True:
            in_hand = self._reread(task)
            with self._changed:
                left = deadline - self._clock.monotonic_s()
                if left <= 0 or task.is_over or self._closing:
                    return
                self._changed.wait(left if in_hand else min(left, REREAD_S))

    def wait_changed(self, timeout_s: float) -> None:
        """Until some step was taken, or the time is up."""
        with self._changed:
            if not self._closing:
                self._changed.wait(timeout_s)

    def _reread(self, task: Task) -> bool:
        """Bring up to date a task that is not the one being worked on; whether it is the one."""
        with self._changed:
            if task.is_over or self._tasks.get(task.job.deletion_id) is task:
                return True
        task.job = self._reread_job(task.job.deletion_id) or task.job
        return False

    def _work_until_over(self, task: Task, deadline: float) -> None:
        while not task.is_over and self._clock.monotonic_s() < deadline:
            due = self._next_due()
            if due is not None:
                self._step(due)
                continue
            self._reread(task)
            with self._changed:
                if task in self._queue or task.job.deletion_id not in self._tasks:
                    return  # it waits for its time, or is not ours
                self._changed.wait(REREAD_S)  # another caller has it in hand
