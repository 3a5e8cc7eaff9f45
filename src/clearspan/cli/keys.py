"""`clearspan keys`: make, list and revoke API keys, also while the server runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from clearspan.catalog import ALL_SCOPES, ApiKey, Catalog, KeyPolicy, KeyScope
from clearspan.catalog.access import PPM
from clearspan.catalog.database import FILE_NAME
from clearspan.cli.output import JsonOption, print_json, print_table
from clearspan.model.clock import datetime_from_ns, ns_from_datetime
from clearspan.model.errors import ClearspanError, InvalidInput, NotFound
from clearspan.settings import load_settings

app = typer.Typer(help="Make, list and revoke API keys, also while the server runs.", no_args_is_help=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data directory; else from the settings.", show_default=False)
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", show_default=False)]

_SPAN = re.compile(r"([1-9]\d{0,5})([smhdw])")
_SPAN_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[
        list[KeyScope] | None, typer.Option(help="May be given several times; without it, every scope.")
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(help="Bind the key to this project; may be given several times."),
    ] = None,
    environment: Annotated[str | None, typer.Option(help="Bind the key to this environment.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="A time (2027-01-31T12:00Z; naive is UTC) or a span: 90m, 12h, 30d, 8w.")
    ] = None,
    delete_max_traces: Annotated[
        int | None, typer.Option(help="Most traces that one deletion may match.", min=1, show_default=False)
    ] = None,
    delete_max_share: Annotated[
        str | None,
        typer.Option(help="Most of its visible traces that one deletion may match: 0.05 is 5 %.", show_default=False),
    ] = None,
    delete_needs_reason: Annotated[
        bool, typer.Option("--delete-needs-reason", help="Deletions need a reason.")
    ] = False,
    no_delete_all: Annotated[bool, typer.Option("--no-delete-all", help="Deletions need a bounded window.")] = False,
    strict_window: Annotated[
        bool, typer.Option("--strict-window", help="Deletions must name the start of their window.")
    ] = False,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once; only its SHA-256 is kept."""
    with open_catalog(data, config, make=True) as catalog:
        org = catalog.first_org
        made = catalog.create_key(
            org.id,
            name=name,
            scopes=scope or ALL_SCOPES,
            project_ids=None if not project else [_project_id(catalog, org.id, each) for each in project],
            environment=environment,
            expires_at_ns=None if expires is None else parse_expiry(expires, datetime.now(UTC)),
            policy=KeyPolicy(
                max_traces=delete_max_traces,
                max_share_ppm=None if delete_max_share is None else parse_share(delete_max_share),
                require_reason=delete_needs_reason,
                forbid_delete_all=no_delete_all,
                strict_window=strict_window,
            ),
        )
        names = {each.id: each.name for each in catalog.projects(org.id)}
    if as_json:
        print_json(describe_key(made.key, names) | {"key": made.secret})
    else:
        typer.echo(made.secret)
        typer.echo(f"{made.key.public_id}: keep the key above, it is not shown again.", err=True)


@app.command("list")
def list_(data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the keys: their names, bounds and visible prefixes; never the keys themselves."""
    with open_catalog(data, config) as catalog:
        org = catalog.first_org
        names = {each.id: each.name for each in catalog.projects(org.id)}
        keys = catalog.list_keys(org.id)
        rows = [describe_key(key, names) for key in keys]
    if as_json:
        print_json({"data": rows})
        return
    print_table(
        ["id", "prefix", "name", "scopes", "projects", "environment", "deletions", "state"],
        [
            [
                row["id"],
                row["prefix"],
                row["name"],
                " ".join(row["scopes"]),
                "all" if row["projects"] is None else " ".join(row["projects"]),
                row["environment"] or "all",
                describe_policy(key.policy),
                row["state"],
            ]
            for key, row in zip(keys, rows, strict=True)
        ],
    )


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Id (key_…) or visible prefix (cs_…); never the key itself.")],
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key for good. A running server refuses it within 5 seconds."""
    with open_catalog(data, config) as catalog:
        org = catalog.first_org
        revoked = catalog.revoke_key(org.id, key)
        names = {each.id: each.name for each in catalog.projects(org.id)}
    if as_json:
        print_json(describe_key(revoked, names))
    else:
        typer.echo(f"{revoked.public_id} ({revoked.name}) is revoked.")


@contextmanager
def open_catalog(data: Path | None, config: Path | None, *, make: bool = False) -> Iterator[Catalog]:
    """The catalog of a data directory; errors end the command with a sentence and status 1.

    Args:
        make: make the directory when it is not there; else that is an error.
    """
    try:
        folder = load_settings({"data": data}, config=config).data
        if not make and not (folder / FILE_NAME).exists():
            raise NotFound(f"There is no Clearspan data in {folder}.")
        with Catalog.open(folder) as catalog:
            yield catalog
    except ClearspanError as error:
        typer.echo(f"clearspan: {error.message}", err=True)
        raise typer.Exit(1) from None


def parse_expiry(text: str, now: datetime) -> int:
    """A span from `now` or an ISO 8601 time → Unix nanoseconds. Raises InvalidInput."""
    if match := _SPAN.fullmatch(text):
        return ns_from_datetime(now) + int(match[1]) * _SPAN_UNITS_S[match[2]] * 1_000_000_000
    try:
        return ns_from_datetime(datetime.fromisoformat(text))
    except ValueError:
        raise InvalidInput(
            f"{text!r} is neither a time such as 2027-01-31T12:00Z nor a span such as 30d.", fields=("expires",)
        ) from None


def parse_share(text: str) -> int:
    """A share such as 0.05 → millionths. Raises InvalidInput unless it lies above 0 and not above 1."""
    try:
        share = Decimal(text)
    except InvalidOperation:
        share = Decimal(0)
    if not share.is_finite() or not 0 < share <= 1 or share * PPM != int(share * PPM):
        raise InvalidInput(
            f"{text!r} is no share: write 0.05 for 5 %, with at most 6 decimals.", fields=("delete_max_share",)
        )
    return int(share * PPM)


def describe_policy(policy: KeyPolicy) -> str:
    """A key's deletion policy in a few words; empty when it limits nothing."""
    words = []
    if policy.max_traces is not None:
        words.append(f"≤ {policy.max_traces} traces")
    if policy.max_share_ppm is not None:
        words.append(f"≤ {Decimal(policy.max_share_ppm) / 10_000:f} %")
    if policy.require_reason:
        words.append("reason")
    if policy.forbid_delete_all:
        words.append("no delete_all")
    if policy.strict_window:
        words.append("strict window")
    return ", ".join(words)


def describe_key(key: ApiKey, project_names: dict[int, str]) -> dict[str, Any]:
    """A key as JSON output shows it."""
    now_ns = ns_from_datetime(datetime.now(UTC))
    state = "valid" if key.is_valid(now_ns) else "revoked" if key.revoked_at_ns is not None else "expired"
    return {
        "id": key.public_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": [scope.value for scope in key.scopes],
        "projects": None if key.project_ids is None else [project_names[each] for each in key.project_ids],
        "environment": key.environment,
        "policy": {
            "delete_max_traces": key.policy.max_traces,
            "delete_max_share": None if key.policy.max_share_ppm is None else key.policy.max_share_ppm / PPM,
            "delete_needs_reason": key.policy.require_reason,
            "no_delete_all": key.policy.forbid_delete_all,
            "strict_window": key.policy.strict_window,
        },
        "state": state,
        "created_at": _time(key.created_at_ns),
        "expires_at": _time(key.expires_at_ns),
        "revoked_at": _time(key.revoked_at_ns),
    }


def _project_id(catalog: Catalog, org_id: int, name: str) -> int:
    found = catalog.find_project(org_id, name)
    if found is None:
        raise NotFound(f"There is no project {name!r}.")
    return found.id


def _time(ns: int | None) -> str | None:
    return None if ns is None else datetime_from_ns(ns).isoformat().replace("+00:00", "Z")
