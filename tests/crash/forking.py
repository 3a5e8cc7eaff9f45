"""Server processes that are forked from one that has read the program already.

Each is a process of its own, started with arguments and an environment and ended by signals like any other; only the
second of imports, which every start would repeat, is paid once. tests/wire has the tests of a start from nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

from clearspan import faults

TESTS = Path(__file__).resolve().parent.parent
PRELOADED = "crash.preloaded"
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([PRELOADED])


class Forked:
    """A running `clearspan`, with as much of `subprocess.Popen` as the tests need."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], out: Path, log: Path) -> None:
        """Start it, as the leader of a process group.

        Args:
            environment: the whole of it.
            out: file for its standard output, made anew.
            log: file that its standard error is added to.
        """
        _ensure_running()
        whole = (tuple(arguments), dict(environment), out, log)
        self._process = _PROCESSES.Process(target=_run, args=whole, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, minus the signal that ended it; None: it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        """The exit code, once it has ended; AssertionError if it has not by then."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still running after {seconds:g} s"
        return self._process.exitcode

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()


def _ensure_running() -> None:
    """Start the process that forks. It looks for what it preloads on its own path, and passes over what it misses."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS), before)))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(arguments: tuple[str, ...], environment: dict[str, str], out: Path, log: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for path, flags, number in ((out, os.O_TRUNC, 1), (log, os.O_APPEND, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    assert PRELOADED in sys.modules, "nothing was preloaded"
    faults._armed = faults._from_environment(environment.get(faults.VARIABLE))  # as its import would have
    sys.argv = ["clearspan", *arguments]
    from clearspan.cli.main import main

    main()
