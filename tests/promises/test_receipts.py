"""Receipts of a real server, checked by another process without server or network, and every way to forge them."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clearspan.model.errors import InvalidProof
from clearspan.proof.log import check_log
from clearspan.proof.receipt import check_receipt
from clearspan.proof.signing import SigningKey, parse_jwks
from crash.live import Live
from crash.world import World, native_delete

from .plugin import PromiseFixture

SEED = 20261122
DELETIONS_SHORT, DELETIONS_LONG = 3, 40
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NO_NETWORK = "import socket; socket.socket.connect = None; socket.create_connection = None; "


class Papers(NamedTuple):
    """What an auditor was given of one deletion."""

    receipt: str
    member: dict[str, Any]


class Case(NamedTuple):
    """A server's papers, and the folder in which its commands look for them."""

    folder: Path
    papers: list[Papers]
    keys: dict[str, Any]
    first_head: str  # taken before the last deletions
    head: str
    joined: dict[str, Any]  # consistency from the last receipt to the last head


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    world = World(tmp_path / "data", random.Random(SEED))
    server = world.start()
    yield server
    server.end()


def collect(live: Live, folder: Path, count: int) -> Case:
    """Delete so many groups and take every paper there is."""
    world = World(folder / "data", random.Random(SEED))
    papers = []
    first_head = ""
    with live.client() as client:
        for number in range(count):
            group = world.plant(live, world.rng.randint(1, 9))
            done = native_delete(client, group).json()
            assert done["state"] == "verified", done
            where = f"/v1/deletions/{done['id']}"
            receipt = client.get(f"{where}/receipt", headers={"Accept": "application/jose"}).text
            asked = {"project": "default", "trace_id": world.rng.choice(group.trace_ids)}
            member = client.get(f"{where}/membership", params=asked).json()
            assert not any(each in json.dumps(member) for each in group.trace_ids if each != asked["trace_id"])
            assert not any(needle in receipt for needle in group.needles)
            papers.append(Papers(receipt, member))
            if number == count // 2:
                first_head = client.get("/v1/ledger/head").json()["head"]
        keys = client.get("/v1/ledger/keys").json()
        head = client.get("/v1/ledger/head").json()
        size = payload(papers[-1].receipt)["ledger"]["size"]
        joined = client.get("/v1/ledger/consistency", params={"from": size, "size": head["size"]}).json()
    return Case(folder, papers, keys, first_head, head["head"], joined)


def payload(jws: str) -> dict[str, Any]:
    part = jws.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def clearspan(folder: Path, *arguments: str) -> tuple[int, str]:
    """The command in a process of its own that cannot open a connection: (status, output)."""
    code = NO_NETWORK + "from clearspan.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def write(case: Case, name: str, value: object) -> str:
    (case.folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return name


def verify(case: Case, receipt: str, member: dict[str, Any] | None = None, keys: object = None, head: str = "") -> int:
    """The status of `clearspan verify` on these papers."""
    arguments = ["verify", write(case, "r.jws", receipt), "--key", write(case, "k.json", keys or case.keys)]
    if member is not None:
        arguments += ["--member", write(case, "m.json", member)]
    if head:
        arguments += ["--head", write(case, "h.jws", head)]
    return clearspan(case.folder, *arguments)[0]


def other_key() -> dict[str, Any]:
    return {"keys": [SigningKey.generate().public_jwk()]}


def flipped(text: str) -> str:
    """A hex text with one digit changed."""
    return ("0" if text[0] != "0" else "1") + text[1:]


def forged_members(member: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {**member, "trace_id": member["trace_id"] + "x"}
    yield {**member, "project_id": member["project_id"] + 1}
    yield {**member, "salt": flipped(member["salt"])}
    yield {**member, "leaf_index": member["leaf_index"] + 1}
    yield {**member, "leaf_count": member["leaf_count"] + 1}
    for at, node in enumerate(member["path"]):
        yield {**member, "path": [*member["path"][:at], flipped(node), *member["path"][at + 1 :]]}
    yield {**member, "path": [*member["path"], "00" * 32]}


@pytest.mark.parametrize("count", [DELETIONS_SHORT, pytest.param(DELETIONS_LONG, marks=pytest.mark.long)])
def test_genuine_receipts_verify_and_forged_ones_do_not(
    live: Live, tmp_path: Path, promise: PromiseFixture, count: int
) -> None:
    case = collect(live, tmp_path, count)
    assert live.stop() == 0  # nothing below needs it
    genuine, forged = promise("P8", "F26"), promise("P8", "F7")
    for number, (receipt, member) in enumerate(case.papers):
        with genuine.run(f"{SEED}/{number}"):
            assert verify(case, receipt, member) == 0
    last = case.papers[-1]
    with genuine.run(f"{SEED}/head"):
        joined = json.dumps({"head": case.head, "consistency": case.joined})
        assert verify(case, last.receipt, last.member, head=joined) == 0
    with forged.run(f"{SEED}/papers", runs=2 + len(case.papers)):
        assert verify(case, last.receipt, keys=other_key()) == 1
        assert verify(case, last.receipt[:-7]) in (1, 2)
        for receipt, _ in case.papers[:-1]:
            assert verify(case, receipt, last.member) == 1
    every_byte(case, last, random.Random(SEED), forged)


def every_byte(case: Case, papers: Papers, rng: random.Random, forged: Any) -> None:
    """Each character of a receipt changed to another, in this process: as the command does, and faster."""
    keys = parse_jwks(case.keys)
    text = papers.receipt
    assert check_receipt(text, keys).ok
    for at, char in enumerate(text):
        other = rng.choice(ALPHABET.replace(char, "") + ".=")
        with forged.run(f"{SEED}/byte/{at}"):
            assert other == char or not check_receipt(text[:at] + other + text[at + 1 :], keys).ok
    for number, member in enumerate(forged_members(papers.member)):
        with forged.run(f"{SEED}/member/{number}"):
            assert not check_receipt(text, keys, member=member).ok
    with forged.run(f"{SEED}/head"):
        assert not check_receipt(text, keys, head=case.first_head).ok, "a head from before it proves nothing of it"


Change = Callable[[list[str]], list[str]]
CHANGES: dict[str, Change] = {
    "last entry cut": lambda entries: entries[:-1],
    "cut in the middle": lambda entries: entries[: len(entries) // 2],
    "first entry dropped": lambda entries: entries[1:],
    "one dropped": lambda entries: [*entries[: len(entries) // 2], *entries[len(entries) // 2 + 1 :]],
    "two swapped": lambda entries: [entries[1], entries[0], *entries[2:]],
    "one doubled": lambda entries: [entries[0], *entries],
    "one edited": lambda entries: [*entries[:-1], entries[-1].replace('"at_ns":1', '"at_ns":2', 1)],
    "reversed": lambda entries: [*reversed(entries)],
    "one added": lambda entries: [*entries, entries[-1]],
}
"""Ways to change the entries of an exported ledger."""


def changed(lines: list[str], change: Change) -> list[str]:
    """An export with its entries changed; first line, keys, heads and receipts as they are."""
    kinds = ('{"key"', '{"head"', '{"receipt"')
    entries = [line for line in lines[1:] if not line.startswith(kinds)]
    rest = [line for line in lines[1:] if line.startswith(kinds)]
    assert len(entries) > 4
    assert change(entries) != entries
    at = lines.index(entries[0])
    return [*lines[:at], *change(entries), *(line for line in rest if line not in lines[:at])]


def test_a_changed_ledger_is_found(live: Live, tmp_path: Path, promise: PromiseFixture) -> None:
    case = collect(live, tmp_path, DELETIONS_SHORT)
    assert live.stop() == 0
    status, told = clearspan(tmp_path, "ledger", "export", "--data", str(tmp_path / "data"), "--out", "ledger.jsonl")
    assert status == 0, told
    check = ("ledger", "check", "x.jsonl", "--key", write(case, "k.json", case.keys), "--head")
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert is_sound(case, lines)
    genuine, forged = promise("P8", "F26"), promise("P8", "F7")
    for head in (case.first_head, case.head):
        with genuine.run(SEED):
            write(case, "x.jsonl", "\n".join(lines) + "\n")
            status, told = clearspan(tmp_path, *check, write(case, "h.jws", head))
            assert status == 0, told
    write(case, "x.jsonl", "\n".join(changed(lines, CHANGES["one dropped"])) + "\n")
    assert clearspan(tmp_path, *check, "h.jws")[0] == 1
    for name, change in CHANGES.items():
        with forged.run(f"{SEED}/{name}"):
            assert not is_sound(case, changed(lines, change)), name


def is_sound(case: Case, lines: list[str]) -> bool:
    """As the command says, in this process: an export that cannot be read is not sound."""
    try:
        return check_log([line.encode() for line in lines], keys=parse_jwks(case.keys), head=case.head).ok
    except InvalidProof:
        return False
