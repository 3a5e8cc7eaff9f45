"""The demo as a person at a terminal sees it: a progress bar, then where to go and what to try."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clearspan.catalog.catalog import Catalog
from clearspan.demo.commands import demo_commands
from clearspan.demo.load import DemoState, Loaded, load, prepare
from clearspan.model.clock import SystemClock
from clearspan.model.errors import ClearspanError, Overloaded

READY_WAIT_S = 60.0
POLL_S = 0.05


def start_demo(base_url: str, data: Path) -> Thread:
    """Load the demo as soon as the server at `base_url` is ready, without holding up the caller.

    A failure is printed and leaves the server running. Returns the thread, for tests to join.
    """
    thread = Thread(target=_load_and_report, args=(base_url, data), name="demo", daemon=True)
    thread.start()
    return thread


def load_and_show(base_url: str, data: Path) -> None:
    """Load the demo with a progress bar, and print what to do next. Raises as `load_quietly` does."""
    console = Console(stderr=True)
    columns = (TextColumn("Loading the demo"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("demo", total=None, visible=False)
        loaded = load_quietly(
            base_url,
            data,
            lambda done, total: progress.update(task, completed=done, total=total, visible=True),
        )
    for refusal in loaded.refusals:
        console.print(refusal, markup=False)
    print(render_welcome(base_url, loaded.state), flush=True)


def load_quietly(base_url: str, data: Path, on_progress: Callable[[int, int], None] | None = None) -> Loaded:
    """Wait for the server and load the demo.

    Raises:
        Overloaded: the server was not ready within `READY_WAIT_S`.
        DemoNotLoaded: it refused something.
        OSError: it went away.
    """
    wait_until_ready(base_url)
    with Catalog.open(data) as catalog:
        state = prepare(catalog, data, SystemClock())
    return load(base_url, data, state, on_progress or (lambda done, total: None))


def render_welcome(base_url: str, state: DemoState) -> str:
    """URL, key and the three commands."""
    lines = [
        "",
        f"Clearspan runs on {base_url} with a demo project.",
        "",
        f"  URL  {base_url}",
        f"  Key  {state.key}",
        "",
    ]
    for what, command in demo_commands(base_url, state):
        lines += [f"# {what}", command, ""]
    return "\n".join(lines)


def wait_until_ready(base_url: str) -> None:
    """Return when `/readyz` answers 200. Raises Overloaded after `READY_WAIT_S`."""
    deadline = monotonic() + READY_WAIT_S
    while not _is_ready(base_url):
        if monotonic() > deadline:
            raise Overloaded(f"{base_url}/readyz did not answer within {READY_WAIT_S:.0f} s.")
        sleep(POLL_S)


def _is_ready(base_url: str) -> bool:
    address = urlsplit(base_url)
    connection = HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _load_and_report(base_url: str, data: Path) -> None:
    try:
        load_and_show(base_url, data)
    except (ClearspanError, OSError) as error:
        print(f"The demo was not loaded: {error}", file=sys.stderr, flush=True)
