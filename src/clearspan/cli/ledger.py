"""`clearspan ledger`: check, show and export the ledger of deletions. `check FILE` needs no server and no data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clearspan.cli.keys import ConfigOption, DataOption, open_catalog
from clearspan.cli.verify import (
    HeadOption,
    JsonOption,
    print_findings,
    print_findings_json,
    read_head_file,
    read_keys,
    refuse,
)
from clearspan.model.errors import ClearspanError, InvalidProof
from clearspan.proof.encoding import render_time
from clearspan.proof.findings import Findings
from clearspan.proof.log import check_log
from clearspan.proof.signing import PublicKey, render_jwks

app = typer.Typer(help="Check, show and export the ledger of deletions.", no_args_is_help=True)


@app.command("check")
def check(
    file: Annotated[
        Path | None,
        typer.Argument(help="An exported ledger; without it, the data directory is checked.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Public keys you trust (file or JWK); else the ledger's own keys.",
            metavar="FILE|JWK",
            show_default=False,
        ),
    ] = None,
    head: HeadOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every entry, signed head and receipt; status 1 if something does not hold, 2 if unreadable. Reads only."""
    try:
        keys = [] if key is None else read_keys(key)
        pinned = None if head is None else read_head_file(head)[0]
        found = _check_data(data, config, keys, pinned) if file is None else _check_file(file, keys, pinned)
    except (ClearspanError, OSError, ValueError) as error:
        refuse(error)
    left_open = not_shown(keys_given=key is not None, head_given=head is not None) if found.ok else []
    if as_json:
        print_findings_json(found, not_shown=left_open)
    else:
        print_findings(found)
        for line in left_open:
            typer.echo(f"not shown: {line}")
    if not found.ok:
        raise typer.Exit(1)


def not_shown(*, keys_given: bool, head_given: bool) -> list[str]:
    """What a ledger that is in order leaves open, in sentences."""
    said = []
    if not keys_given:
        said.append("Who signed: the ledger's own keys vouch for themselves. Give keys that you trust (--key).")
    if not head_given:
        said.append("That it was not cut short or made anew: no head that you kept was given (--head).")
    return said


@app.command("head")
def head_(data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Sign and publish the ledger as it is; print the signed head. Keep it elsewhere: it detects a roll-back."""
    with open_catalog(data, config) as catalog:
        jws = catalog.signed_head()
    typer.echo(json.dumps({"head": jws}) if as_json else jws)


@app.command("export")
def export(
    out: Annotated[Path | None, typer.Option(help="File to write; else standard output.", show_default=False)] = None,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the whole ledger as JSON lines that `ledger check` and others can check. No personal data is in it."""
    from clearspan.catalog.export import export_lines

    with open_catalog(data, config) as catalog:
        catalog.signed_head()  # so that the last entries are under a signature too
        with catalog.database.read() as db:
            lines = (line + b"\n" for line in export_lines(db))
            if out is None:
                sys.stdout.buffer.writelines(lines)
                sys.stdout.flush()
            else:
                with out.open("wb") as file:
                    file.writelines(lines)


@app.command("keys")
def keys_(data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the public keys that receipts and heads were ever signed with; --json prints the JWK set for auditors."""
    with open_catalog(data, config) as catalog:
        stored = catalog.signing_keys()
    if as_json:
        typer.echo(json.dumps(render_jwks([each.key for each in stored]), indent=2))
        return
    for each in stored:
        until = "signs now" if each.retired_at_ns is None else f"retired {render_time(each.retired_at_ns)}"
        typer.echo(f"{each.key_id}  made {render_time(each.created_at_ns)}  {until}")


@app.command("rotate-key")
def rotate_key(data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Sign with a new key from now on. The old public key stays; its private part is erased. The ledger records it."""
    with open_catalog(data, config) as catalog:
        made = catalog.rotate_signing_key()
    if as_json:
        typer.echo(json.dumps(made.key.jwk(), indent=2))
    else:
        typer.echo(f"{made.key_id} signs from now on. Publish it: clearspan ledger keys --json")


def _check_file(path: Path, keys: Sequence[PublicKey], pinned: str | None) -> Findings:
    with path.open("rb") as file:
        return check_log(file, keys=keys, head=pinned)


def _check_data(data: Path | None, config: Path | None, keys: Sequence[PublicKey], pinned: str | None) -> Findings:
    # Only here: an export is checked without the store's libraries being loaded.
    from clearspan.catalog.check import check_ledger
    from clearspan.settings import load_settings

    folder = load_settings({"data": data}, config=config).data
    if not (folder / "catalog.db").is_file():
        raise InvalidProof(f"There is no Clearspan data in {folder}.")
    return check_ledger(folder, keys=keys, head=pinned)
