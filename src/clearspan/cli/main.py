"""The `clearspan` command. Each command's module is imported only when it is called for, so that `--help` is quick."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, NamedTuple

import typer


class Command(NamedTuple):
    """Where a command lives: a function, or a Typer of sub-commands."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "serve": Command("clearspan.cli.serve", "serve", "Start the server."),
    "keys": Command("clearspan.cli.keys", "app", "Make, list and revoke API keys."),
    "projects": Command("clearspan.cli.projects", "app", "List and make projects."),
    "delete": Command("clearspan.cli.delete", "delete", "Delete traces: preview, confirmation, progress, receipt."),
    "deletions": Command("clearspan.cli.deletions", "app", "Look at deletions, cancel or retry them, get receipts."),
    "holds": Command("clearspan.cli.holds", "app", "Keep traces from every deletion, and let them go again."),
    "experiments": Command("clearspan.cli.experiments", "app", "List experiments, and compare them item by item."),
    "drill": Command("clearspan.cli.drill", "drill", "Plant needles, delete them, look for them, write a report."),
    "demo": Command("clearspan.cli.demo", "app", "Load the demo into a running server."),
    "verify": Command("clearspan.cli.verify", "verify", "Check a deletion receipt offline."),
    "ledger": Command("clearspan.cli.ledger", "app", "Check, show and export the ledger of deletions."),
    "fsck": Command("clearspan.cli.fsck", "fsck", "Check every stored invariant of a data directory."),
}


def main() -> None:
    """Entry point of the installed script."""
    arguments = sys.argv[1:]
    build(next((each for each in arguments if not each.startswith("-")), None))()


def build(wanted: str | None) -> typer.Typer:
    """The command line with `wanted` loaded; the others only as a name and a line of help.

    Args:
        wanted: the command about to run; "*" loads all, for documentation and tests.
    """
    root = typer.Typer(
        name="clearspan",
        help="A self-hosted store for LLM traces that deletes on request and proves it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    root.callback()(_options)
    for name, command in COMMANDS.items():
        if wanted not in (name, "*"):
            root.command(name, help=command.help)(_not_loaded)
            continue
        loaded = getattr(import_module(command.module), command.attribute)
        if isinstance(loaded, typer.Typer):
            root.add_typer(loaded, name=name, help=command.help)
        else:
            root.command(name, cls=getattr(loaded, "command_class", None))(loaded)
    return root


def _not_loaded() -> None:
    raise AssertionError("only the command that was named is run")


def _print_version(asked: bool) -> None:
    if asked:
        from clearspan import __version__

        typer.echo(f"clearspan {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `clearspan` itself."""


if __name__ == "__main__":
    main()
