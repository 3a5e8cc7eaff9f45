"""Following a deletion to its end, and keeping its receipt."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from clearspan.cli.output import fail, printable
from clearspan.cli.remote import Remote, RemoteFailure
from clearspan.drill.papers import fetch_papers

Json = dict[str, Any]

FINAL = frozenset({"verified", "failed", "cancelled"})
POLL_S = 0.25
INTERRUPTED = 130
_MEANS = {
    "planned": "nothing has changed yet",
    "hidden": "no read returns the traces; they are not erased yet",
    "purged": "their rows are removed; the recount is still to come",
    "verified": "the recount found nothing left",
    "blocked": "it waits, and goes on by itself",
    "failed": "something was left over; the traces stay hidden",
    "cancelled": "nothing was deleted; the traces are as before",
}


def address(deletion_id: str) -> str:
    """The path of a deletion."""
    return f"/v1/deletions/{quote(deletion_id, safe='')}"


def follow(remote: Remote, deletion: Json, *, show: bool) -> Json:
    """Wait until a deletion needs nobody to wait any more: it has ended, or it waits for a hold or for its time.

    Args:
        show: draw a progress bar for each target on standard error.
    Raises:
        typer.Exit: Ctrl-C; what state it is in and what may be done was printed. The deletion itself goes on.
        RemoteFailure: the server does not answer.
    """
    try:
        with Bars(show) as bars:
            bars.update(deletion)
            while not is_settled(deletion):
                time.sleep(POLL_S)
                deletion = remote.get(address(deletion["id"]))
                bars.update(deletion)
    except KeyboardInterrupt:
        typer.echo("\n".join(interrupted_lines(deletion)), err=True)
        raise typer.Exit(INTERRUPTED) from None
    return deletion


def is_settled(deletion: Json) -> bool:
    """Whether waiting longer is of no use."""
    return deletion["state"] in FINAL or deletion.get("waits_for") in ("held", "not_before")


def state_line(deletion: Json) -> str:
    """The state, and what it means."""
    state = deletion["state"]
    line = f"{deletion['id']} is {state}: {_MEANS.get(state, 'see docs/deletion.md')}"
    if problem := deletion.get("problem"):
        line += f" ({printable(problem)})"
    return line + "."


def interrupted_lines(deletion: Json) -> list[str]:
    """What to know after Ctrl-C: the server goes on, and how to follow or cancel."""
    name = deletion["id"]
    lines = ["", state_line(deletion), "Ctrl-C stopped only the watching; the deletion goes on at the server."]
    lines.append(f"  follow it:  clearspan deletions watch {name}")
    if "cancel" in deletion.get("links", {}):
        lines.append(f"  cancel it:  clearspan deletions cancel {name}    (only before anything is purged)")
    return lines


class Bars:
    """A progress bar for each target that has rows; none when they are not wanted or nobody would see them."""

    def __init__(self, show: bool) -> None:
        columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=False, disable=not show)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, deletion: Json) -> None:
        """Show a deletion as it is now."""
        for target, done, total in target_progress(deletion):
            if target not in self._tasks:
                self._tasks[target] = self._progress.add_task(target, total=total)
            self._progress.update(self._tasks[target], completed=done, total=total)
        self._progress.start()  # after the first bars are there, so that they come in one piece


def target_progress(deletion: Json) -> Iterator[tuple[str, int, int]]:
    """(target, rows purged, rows to purge); the whole once the deletion is verified."""
    for target, rows in deletion.get("counts", {}).items():
        total = rows["planned"] if rows.get("hidden") is None else rows["hidden"]
        if total:
            yield target, (total if deletion["state"] == "verified" else min(rows.get("purged") or 0, total)), total


def fetch_receipt(remote: Remote, deletion_id: str) -> Json:
    """A receipt with all that checking it needs: the public keys and the tree head of this moment."""
    return fetch_papers(remote.get, deletion_id)


def verify_line(path: Path) -> str:
    """How to check a saved receipt."""
    name = shlex.quote(str(path))
    return f"  check it, also without the server:  clearspan verify {name} --key {name} --head {name}"


def save_new(path: Path, document: Json) -> None:
    """Write a file that is not there yet, whole or not at all. Raises RemoteFailure when it is, or cannot be."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise RemoteFailure(f"{path} exists already and was not overwritten.") from None
    except OSError as error:
        raise RemoteFailure(f"{path} cannot be written: {error.strerror}") from None


def ended_badly(deletion: Json) -> typer.Exit | None:
    """The exit for a deletion that did not end in `verified`; None if it did or still may."""
    if deletion["state"] in ("failed", "cancelled"):
        return fail(state_line(deletion))
    return None
