"""`clearspan verify`: check a receipt offline. Needs no server, no network and no data directory.

Nothing of Clearspan is imported but `clearspan.proof` and the errors it raises.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clearspan.model.errors import InvalidProof
from clearspan.proof.findings import Findings
from clearspan.proof.receipt import check_receipt, counted_in
from clearspan.proof.signing import PublicKey, parse_jwks

FILE_BYTES_MAX = 64_000_000
_EXIT_FAILED = 1
_EXIT_UNREADABLE = 2

KeyOption = Annotated[
    str,
    typer.Option("--key", help="File with the public key(s), JWK or JWK set; or the JWK itself.", metavar="FILE|JWK"),
]
HeadOption = Annotated[
    Path | None, typer.Option("--head", help="File with a signed tree head that you kept or trust.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def verify(
    receipt: Annotated[str, typer.Argument(help='The receipt: a file with its text or {"receipt": …}; - reads stdin.')],
    key: KeyOption,
    head: HeadOption = None,
    consistency: Annotated[
        Path | None,
        typer.Option(
            help="File with the proof that joins receipt and head, unless the head's file has it.", show_default=False
        ),
    ] = None,
    member: Annotated[
        Path | None, typer.Option(help="File with a membership proof of one trace.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a deletion receipt offline: status 0 if all of it holds, 1 if something does not, 2 if unreadable."""
    try:
        keys = read_keys(key)
        pinned, joined = (None, None) if head is None else read_head_file(head)
        if consistency is not None:
            joined = read_object(consistency)
        text = read_signed_text(receipt, "receipt")
        claim = None if member is None else read_object(member)
    except (InvalidProof, OSError, ValueError) as error:
        refuse(error)
    found = check_receipt(text, keys, head=pinned, consistency=joined, member=claim)
    left_open = not_shown(found, own_key=_is_same(key, receipt), head=head, own_head=_is_same(head, receipt))
    if as_json:
        print_findings_json(found, not_shown=left_open)
    else:
        print_findings(found)
        if found.ok and found.payload is not None:
            typer.echo(_summary(found.payload))
            for line in left_open:
                typer.echo(f"not shown: {line}")
    if not found.ok:
        raise typer.Exit(_EXIT_FAILED)


def refuse(error: Exception) -> None:
    """Say why nothing could be checked, and end the command with status 2."""
    said = error.message if isinstance(error, InvalidProof) else str(error)
    typer.echo(f"clearspan: {said}", err=True)
    raise typer.Exit(_EXIT_UNREADABLE) from None


def print_findings(found: Findings) -> None:
    """Each point as a line."""
    for check in found.checks:
        typer.echo(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.said}")


def not_shown(found: Findings, *, own_key: bool, head: Path | None, own_head: bool) -> list[str]:
    """What a receipt that holds leaves open, in sentences; empty for one that does not hold.

    Args:
        own_key, own_head: key and head came in the receipt's own file, so that they vouch for nothing.
    """
    if not found.ok or found.payload is None:
        return []
    said = []
    if own_key:
        said.append("Who signed: the key came in the receipt's own file. Get it another way, once, and keep it.")
    if head is None:
        said.append("That this history was not replaced since: no head that you kept was given (--head).")
    elif own_head:
        said.append("That this history was not replaced since: the head came in the receipt's own file.")
    said.append("That the program which signed told the truth: that is for its source, `clearspan fsck` and `drill`.")
    return said + [f"Anything of what it could not reach: {each}" for each in found.payload["not_covered"]]


def print_findings_json(found: Findings, **more: Any) -> None:
    """The same as one JSON document, with further members."""
    value = {
        "ok": found.ok,
        "checks": [check._asdict() for check in found.checks],
        "key_id": found.key_id,
        "receipt": found.payload,
        **more,
    }
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def read_keys(key: str) -> list[PublicKey]:
    """Public keys of a file, or of a JWK on the command line. Raises InvalidProof, OSError or ValueError."""
    return parse_jwks(_parse(key if key.lstrip().startswith("{") else _read(Path(key)), "the key"))


def read_head_file(path: Path) -> tuple[str, Mapping[str, Any] | None]:
    """(signed head, consistency proof) of a file: the head's text, or {"head": …, "consistency": …}."""
    text = _read(path)
    if not text.lstrip().startswith("{"):
        return _one_line(text), None
    value = _parse(text, str(path))
    head, joined = value.get("head"), value.get("consistency")
    if not isinstance(head, str) or not isinstance(joined, dict | None):
        raise InvalidProof(f'{path} has no "head", or its "consistency" is no object.')
    return head, joined


def read_signed_text(place: str, name: str) -> str:
    """A compact JWS of a file (or of stdin): its text, or JSON with the text under `name`."""
    text = sys.stdin.read(FILE_BYTES_MAX) if place == "-" else _read(Path(place))
    if not text.lstrip().startswith("{"):
        return _one_line(text)
    value = _parse(text, place).get(name)
    if not isinstance(value, str):
        raise InvalidProof(f'{place} has no "{name}".')
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file."""
    return _parse(_read(path), str(path))


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidProof(f"In {where} there is no JSON object.")
    return value


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise InvalidProof(f"{path} is larger than any receipt or proof.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidProof(f"{path} is not text.") from None


def _one_line(text: str) -> str:
    """Editors and shells end a file with a line end; nothing else may stand around a signed text."""
    return text.removesuffix("\n").removesuffix("\r")


def _is_same(place: str | Path | None, receipt: str) -> bool:
    """Whether an option names the receipt's own file."""
    if place is None or receipt == "-" or str(place).lstrip().startswith("{"):
        return False
    return Path(place).resolve() == Path(receipt).resolve()


def _summary(payload: Mapping[str, Any]) -> str:
    counted = counted_in(payload)
    traces, rows = payload[counted], sum(counts["purged"] for counts in payload["targets"].values())
    more = [f"{traces[name]} {name.replace('_', ' ')}" for name in ("already_absent", "no_longer_matching", "held")]
    return (
        f"{payload['deletion_id']}, verified {payload['times']['verified']} by {payload['instance']}: "
        f"{traces['deleted']} of {traces['matched']} matching {counted} deleted ({', '.join(more)}), "
        f"{rows} rows purged from {len(payload['targets'])} targets, none left."
    )
