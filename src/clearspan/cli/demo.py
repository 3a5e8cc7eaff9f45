"""`clearspan demo`: load the demo into a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clearspan.demo.commands import demo_commands
from clearspan.demo.show import load_and_show, load_quietly
from clearspan.model.errors import ClearspanError
from clearspan.settings import load_settings

app = typer.Typer(help="Load the demo into a running server.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `load` a sub-command: a Typer with one command alone would swallow its name."""


@app.command("load")
def load(
    url: Annotated[str | None, typer.Option(help="The server; else the host and port of the settings.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Its data directory; else from the settings.", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Post the demo set to a server of this machine, once, and print URL, key and three commands to try."""
    try:
        settings = load_settings({"data": data}, config=config)
        base_url = (url or f"http://{settings.host}:{settings.port}").rstrip("/")
        if not as_json:
            load_and_show(base_url, settings.data)
            return
        state, refusals = load_quietly(base_url, settings.data)
    except (ClearspanError, OSError) as error:
        typer.echo(f"clearspan: {error}", err=True)
        raise typer.Exit(1) from None
    commands = [{"what": what, "command": command} for what, command in demo_commands(base_url, state)]
    answer = {"url": base_url, "key": state.key, "refusals": refusals, "commands": commands}
    typer.echo(json.dumps(answer, indent=2))
