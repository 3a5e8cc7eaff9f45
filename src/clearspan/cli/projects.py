"""`clearspan projects`: list and make projects, also while the server runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clearspan.catalog import Project
from clearspan.cli.keys import ConfigOption, DataOption, open_catalog
from clearspan.cli.output import JsonOption, print_json, print_table
from clearspan.model.clock import datetime_from_ns

app = typer.Typer(help="List and make projects, also while the server runs.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Its name, unique in the organisation.")],
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project."""
    with open_catalog(data, config, make=True) as catalog:
        made = catalog.create_project(catalog.first_org.id, name)
    if as_json:
        print_json(describe_project(made))
    else:
        typer.echo(f"{made.public_id} ({made.name}) is made.")


@app.command("list")
def list_(data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the projects."""
    with open_catalog(data, config) as catalog:
        rows = [describe_project(project) for project in catalog.projects(catalog.first_org.id)]
    if as_json:
        print_json({"data": rows})
    else:
        print_table(["id", "name", "created_at"], [[row["id"], row["name"], row["created_at"]] for row in rows])


def describe_project(project: Project) -> dict[str, Any]:
    """A project as JSON output shows it."""
    return {
        "id": project.public_id,
        "name": project.name,
        "created_at": datetime_from_ns(project.created_at_ns).isoformat().replace("+00:00", "Z"),
    }
