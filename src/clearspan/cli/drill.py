"""`clearspan drill`: plant needles, delete them, look for them, and write a report that can be handed on."""

from __future__ import annotations

import json
import signal
import tempfile
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from clearspan.cli.output import JsonOption, fail, print_json
from clearspan.cli.remote import KeyFileOption, KeyOption, RemoteFailure, find_key
from clearspan.drill.report import DrillReport, render_markdown
from clearspan.drill.run import TRACES_MIN, run_drill
from clearspan.drill.server import DrillFailed, Target, Unreachable

TRACES_MAX = 2000


def drill(
    traces: Annotated[int, typer.Option(min=TRACES_MIN, max=TRACES_MAX, help="How many to plant and delete.")] = 24,
    url: Annotated[
        str | None,
        typer.Option(help="A running server; else one is started for it.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="That server's data directory, on this machine.", show_default=False)
    ] = None,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the report to FILE (Markdown) and FILE.json.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Plant needles in every field, delete them, and look for them in every file and every answer.

    Without --url it starts a server of its own on a temporary directory and stops it again. Exit status 1: a needle was
    found, or anything else did not hold; 2: the drill could not be carried out.
    """
    signal.signal(signal.SIGTERM, _stop)  # so that the server it started does not outlive it
    try:
        target = find_target(url, data, key, key_file)
        check_report(report, target)
        with tempfile.TemporaryDirectory(prefix="clearspan-drill-") as folder:
            tell = (lambda line: None) if as_json else (lambda line: typer.echo(line, err=True))
            done = run_drill(target, Path(folder), traces=traces, tell=tell)
    except RemoteFailure as failure:
        raise fail(str(failure), failure.exit_status) from None
    except Unreachable as error:
        raise fail(error.message, 2) from None
    except (DrillFailed, OSError) as error:
        raise fail(f"the drill could not be carried out: {error}", 2) from None
    if report is not None:
        write_report(report, done)
    if as_json:
        print_json(done.as_json())
    elif report is None:
        typer.echo(render_markdown(done))
    else:
        typer.echo(f"{'Everything held' if done.ok else 'Not everything held'}. Report: {report} and {report}.json")
    if not done.ok:
        raise typer.Exit(1)


def _stop(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def find_target(url: str | None, data: Path | None, key: str | None, key_file: Path | None) -> Target | None:
    """The running server to work on; None: the drill starts its own. Raises RemoteFailure."""
    if url is None:
        if data is not None:
            raise RemoteFailure("--data is a running server's: it needs --url as well.", exit_status=2)
        return None
    if data is None or not (data / "traces.db").is_file():
        raise RemoteFailure(
            "--url needs --data, the server's data directory on this machine: without its files nothing can be shown.",
            exit_status=2,
        )
    return Target(url.rstrip("/"), find_key(key, key_file), data)


def check_report(report: Path | None, target: Target | None) -> None:
    """The report holds the marks of needles: beside the data it would be found. Raises RemoteFailure."""
    if report is None:
        return
    if report.exists() or Path(f"{report}.json").exists():
        raise RemoteFailure(f"{report} or {report}.json exists already and is not overwritten.", exit_status=2)
    if target is not None and report.resolve().is_relative_to(target.data.resolve()):
        raise RemoteFailure("The report cannot lie in the data directory that the drill searches.", exit_status=2)


def write_report(path: Path, done: DrillReport) -> None:
    """Both forms of the report."""
    path.write_text(render_markdown(done), "utf-8")
    Path(f"{path}.json").write_text(json.dumps(done.as_json(), ensure_ascii=False, indent=2) + "\n", "utf-8")
