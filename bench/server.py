"""The server under test as a subprocess, and what it costs: memory, processor time, disk."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import apsw

from bench.client import Address, Connection

START_TIMEOUT_S = 120.0


class ServerFailed(Exception):
    """The server did not start or did not stop; its log tells why."""


class Server:
    """`clearspan serve` on a free loopback port with its data in `data`."""

    def __init__(self, data: Path, log: Path, key: str | None = None) -> None:
        self.data, self.log = data, log
        self.address = Address("127.0.0.1", free_port(), key or "cs_bench_" + secrets.token_hex(20))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; seconds from the call until /readyz answers 200."""
        command = [
            sys.executable, "-c", "from clearspan.cli.main import main; main()", "serve", "--host", self.address.host,
            "--port", str(self.address.port), "--data", str(self.data),
        ]  # fmt: skip
        assert self.address.key is not None
        began = time.perf_counter()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | {"CLEARSPAN_API_KEY": self.address.key}, stdout=log, stderr=log
            )
        wait_ready(self.address, "/readyz", self._process, self.log)
        return time.perf_counter() - began

    def stop(self) -> float:
        """End it as an operator would; seconds until it has ended."""
        if self._process is None:
            return 0.0
        began = time.perf_counter()
        stop_process(self._process)
        self._process = None
        return time.perf_counter() - began

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def wait_ready(address: Address, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until `path` answers 200. Raises ServerFailed when the process ends or time runs out."""
    deadline = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            break
        connection = Connection(address, timeout_s=5.0)
        try:
            if connection.call("GET", path).status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    tail = log.read_text(encoding="utf-8", errors="replace")[-1_500:] if log.exists() else ""
    raise ServerFailed(f"not ready after {START_TIMEOUT_S:.0f} s or ended; the end of {log}:\n{tail}")


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to this one process after a minute."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise ServerFailed("the server did not end within 60 s of SIGTERM") from None


# ---- memory and processor time ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over a process and all its descendants. RSS counts shared pages once for each process, PSS once in all."""

    rss_mib: float
    pss_mib: float
    cpu_s: float
    processes: int


def usage(pid: int) -> Usage:
    """What a process tree uses now (Linux only)."""
    rss = pss = cpu = 0.0
    tree = descendants(pid)
    for member in tree:
        try:
            fields = (
                Path(f"/proc/{member}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            )
            cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            rss += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            for line in Path(f"/proc/{member}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    pss += int(line.split()[1]) / 1024
        except (OSError, IndexError):
            continue  # it ended between the two looks
    return Usage(rss, pss, cpu, len(tree))


def descendants(pid: int) -> list[int]:
    """A process and its children, their children and so on."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children[int(_stat(int(entry.name))[1])].append(int(entry.name))
            except OSError:
                continue
    found = [pid]
    for member in found:
        found += children[member]
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before them may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


class Watch:
    """Samples a process tree each half second while a block runs; keeps the peaks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_rss_mib = self.peak_pss_mib = 0.0
        self.cpu_s = 0.0

    def __enter__(self) -> Watch:
        self._before = usage(self._pid).cpu_s
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._look()

    def _look(self) -> None:
        now = usage(self._pid)
        self.peak_rss_mib = max(self.peak_rss_mib, now.rss_mib)
        self.peak_pss_mib = max(self.peak_pss_mib, now.pss_mib)
        self.cpu_s = max(self.cpu_s, now.cpu_s - self._before)


# ---- disk -----------------------------------------------------------------------------------------------------------


def directory_bytes(directory: Path) -> dict[str, int]:
    """Size of each file below `directory`, by relative name."""
    return {str(path.relative_to(directory)): path.stat().st_size for path in directory.rglob("*") if path.is_file()}


class TableSize(NamedTuple):
    """Bytes of one table or index."""

    pages: int
    payload: int
    unused: int  # in its pages, neither content nor structure


def table_sizes(database: Path) -> dict[str, TableSize]:
    """Size of each table and index, by SQLite's dbstat; free pages as `(free)`. Largest first.

    Only for a database that nobody has open: it reads every page, about 1 s for each GB.
    """
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    query = "SELECT name, pgsize, payload, unused FROM dbstat WHERE aggregate = TRUE ORDER BY pgsize DESC"
    try:
        sizes = {str(name): TableSize(*figures) for name, *figures in connection.execute(query)}
        free = int(connection.pragma("freelist_count")) * int(connection.pragma("page_size"))
    finally:
        connection.close()
    return sizes | {"(free)": TableSize(free, 0, free)}


def is_text_index(name: str, text_names: Sequence[str] = ("text_",)) -> bool:
    """Whether a table or index belongs to the text index."""
    return name.removeprefix("sqlite_autoindex_").startswith(tuple(text_names))
