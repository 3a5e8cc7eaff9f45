"""`clearspan verify` and `clearspan ledger`: what an auditor types, without a server and without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clearspan.catalog import Catalog
from clearspan.cli.main import build
from clearspan.proof.manifest import claim_of, render_claim
from clearspan.proof.signing import SigningKey, render_jwks
from clearspan.testing.receipts import SALT, issue_receipt, leaves_of, receipt_payload

OFFLINE = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        raise SystemExit("a socket was used: " + event)
sys.addaudithook(refuse)
from clearspan.cli.main import main
try:
    main()
finally:
    loaded = {name for name in sys.modules if name.startswith("clearspan.")}
    allowed = ("clearspan.proof", "clearspan.cli", "clearspan.model")
    foreign = sorted(name for name in loaded if not name.startswith(allowed))
    heavy = sorted({"sqlalchemy", "apsw", "httpx", "fastapi", "alembic"} & set(sys.modules))
    print("LOADED", foreign, heavy, file=sys.stderr)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def papers(tmp_path: Path, data: Path) -> Path:
    """What an auditor has: receipt, keys, heads, a membership proof, an export."""
    folder = tmp_path / "papers"
    folder.mkdir()
    with Catalog.open(data) as catalog:
        catalog.append_ledger("deletion", "del_0", {})
        early = catalog.signed_head()
        jws = issue_receipt(catalog, 5, receipt_payload("del_x"))
        catalog.append_ledger("deletion", "del_9", {})
        late, size = catalog.signed_head(), catalog.ledger_size()
        joined = {"old_size": 2, "size": size, "path": [node.hex() for node in catalog.consistency(2, size)]}
        keys = render_jwks([each.key for each in catalog.signing_keys()])
    claim = claim_of(leaves_of(["t-1", "t-2", "t-3"]), SALT, 1, "t-2")
    assert claim is not None
    files: dict[str, Any] = {
        "receipt.json": {"receipt": jws, "id": "del_x"},
        "keys.json": keys,
        "key.json": keys["keys"][0],
        "member.json": render_claim(claim),
        "foreign-member.json": render_claim(claim) | {"trace_id": "t-9"},
        "late.json": {"head": late, "consistency": joined},
        "joined.json": joined,
        "other-key.json": SigningKey(bytes(32)).public_jwk(),
        "no-key.json": {"kty": "RSA"},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    for name, text in {
        "receipt.jws": jws,
        "early.jws": early,
        "late.jws": late,
        "broken.json": "{",
        "none.txt": "",
    }.items():
        (folder / name).write_text(text + "\n")
    (folder / "binary").write_bytes(b"\xff\xfe\0")
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(build(str(words[0])), [str(word) for word in words], catch_exceptions=False)


def test_a_receipt_is_checked_line_by_line(papers: Path) -> None:
    ran = run("verify", papers / "receipt.json", "--key", papers / "keys.json", "--member", papers / "member.json",
              "--head", papers / "late.json")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    lines = [line for line in ran.stdout.splitlines() if not line.startswith("not shown: ")]
    points = "signature: form: entry: inclusion: head_signature: head_instance: head: member_form: member:"
    assert [line.split()[1] for line in lines[:-1]] == points.split()
    assert all(line.startswith("ok    ") for line in lines[:-1])
    assert "3 of 5 matching traces deleted" in lines[-1]
    assert "12 rows purged from 2 targets, none left." in lines[-1]


def test_what_a_good_receipt_does_not_show_is_said(papers: Path) -> None:
    told = json.loads((papers / "receipt.json").read_text())
    own = papers / "own.json"
    for name in ("keys.json", "late.json"):
        told |= json.loads((papers / name).read_text())
    own.write_text(json.dumps(told))

    def left_open(*words: str | Path) -> list[str]:
        ran = run("verify", *words)
        assert ran.exit_code == 0, ran.output
        lines = ran.stdout.splitlines()
        said: list[str] = json.loads(run("verify", *words, "--json").stdout)["not_shown"]
        assert [line.removeprefix("not shown: ") for line in lines if line.startswith("not shown: ")] == said
        assert lines[-len(said) :] == [f"not shown: {each}" for each in said], "it is what is read last"
        return said

    kept = left_open(papers / "receipt.json", "--key", papers / "keys.json", "--head", papers / "late.json")
    assert any("told the truth" in line for line in kept)
    assert any("Backups" in line for line in kept)
    assert not any("key" in line or "head" in line for line in kept)
    headless = left_open(papers / "receipt.json", "--key", papers / "keys.json")
    assert [line for line in headless if line not in kept] == [line for line in headless if "head" in line] != []
    alone = left_open(own, "--key", own, "--head", own)
    assert len(alone) == len(kept) + 2
    assert any("key came in the receipt's own file" in line for line in alone)
    assert any("head came in the receipt's own file" in line for line in alone)


def test_json_says_the_same(papers: Path) -> None:
    ran = run("verify", papers / "receipt.jws", "--key", (papers / "key.json").read_text(), "--json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["ok"], told["receipt"]["deletion_id"]) == (0, True, "del_x")
    assert told["key_id"] == json.loads((papers / "key.json").read_text())["kid"]
    refused = json.loads(run("verify", papers / "receipt.jws", "--key", papers / "other-key.json", "--json").stdout)
    assert (refused["ok"], refused["receipt"], refused["checks"][0]["ok"]) == (False, None, False)


def test_a_receipt_may_come_through_a_pipe(papers: Path) -> None:
    words = ["verify", "-", "--key", str(papers / "key.json")]
    ran = CliRunner().invoke(build("verify"), words, input=(papers / "receipt.jws").read_text())
    assert ran.exit_code == 0


@pytest.mark.parametrize(
    ("words", "failed"),
    [
        (["receipt.json", "--key", "other-key.json"], "signature"),
        (["early.jws", "--key", "key.json"], "signature"),
        (["none.txt", "--key", "key.json"], "signature"),
        (["receipt.json", "--key", "key.json", "--member", "foreign-member.json"], "member"),
        (["receipt.json", "--key", "key.json", "--member", "joined.json"], "member_form"),
        (["receipt.json", "--key", "key.json", "--head", "late.jws"], "head"),
        (["receipt.json", "--key", "key.json", "--head", "early.jws", "--consistency", "joined.json"], "head"),
        (["receipt.json", "--key", "key.json", "--head", "receipt.jws"], "head_signature"),
    ],
)
def test_what_does_not_hold_is_named_and_status_1(papers: Path, words: list[str], failed: str) -> None:
    ran = run("verify", *(word if word.startswith("--") else papers / word for word in words))
    assert ran.exit_code == 1
    assert [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("FAILED")] == [f"{failed}:"]
    assert "matching traces deleted" not in ran.stdout, "nothing of an unproved receipt is repeated"


def test_a_head_and_its_proof_may_lie_in_two_files(papers: Path) -> None:
    words = ("--key", papers / "key.json", "--head", papers / "late.jws", "--consistency", papers / "joined.json")
    assert run("verify", papers / "receipt.json", *words).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["nowhere.json", "--key", "key.json"],
        ["broken.json", "--key", "key.json"],
        ["keys.json", "--key", "key.json"],
        ["binary", "--key", "key.json"],
        ["receipt.json", "--key", "nowhere.json"],
        ["receipt.json", "--key", "no-key.json"],
        ["receipt.json", "--key", "none.txt"],
        ["receipt.json", "--key", "key.json", "--member", "none.txt"],
        ["receipt.json", "--key", "key.json", "--head", "joined.json"],
    ],
)
def test_what_cannot_be_read_is_status_2(papers: Path, words: list[str]) -> None:
    ran = run("verify", *(word if word.startswith("--") else papers / word for word in words))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("clearspan: ")


def offline(*words: str | Path) -> tuple[int, str]:
    """(status, what was loaded) of a command in a process of its own, in which a socket ends it."""
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *map(str, words)], capture_output=True, text=True, env={"PATH": "/usr/bin"}
    )
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_verify_needs_nothing_but_the_proof_package(papers: Path) -> None:
    words = ("--key", papers / "key.json", "--head", papers / "late.json", "--member", papers / "member.json")
    assert offline("verify", papers / "receipt.json", *words) == (0, "LOADED [] []")


# The ledger


def test_an_exported_ledger_is_checked_without_the_data(papers: Path, data: Path) -> None:
    out = papers / "ledger.jsonl"
    assert run("ledger", "export", "--out", out, "--data", data).exit_code == 0
    ran = run("ledger", "check", out, "--key", papers / "keys.json", "--head", papers / "early.jws")
    assert ran.exit_code == 0, ran.output
    assert [line.split()[:2] for line in ran.stdout.splitlines()] == [
        ["ok", "entries:"], ["ok", "heads:"], ["ok", "receipts:"], ["ok", "pinned_head:"],
    ]  # fmt: skip
    piped = run("ledger", "export", "--data", data)
    assert piped.stdout_bytes == out.read_bytes(), "exporting again adds nothing"


def test_a_ledger_in_order_says_what_that_does_not_show(papers: Path, data: Path) -> None:
    for words, left_open in (
        ((), ["--key", "--head"]),
        (("--key", papers / "keys.json"), ["--head"]),
        (("--key", papers / "keys.json", "--head", papers / "late.json"), []),
    ):
        ran = run("ledger", "check", "--data", data, *words)
        assert ran.exit_code == 0, ran.output
        lines = [line for line in ran.stdout.splitlines() if line.startswith("not shown: ")]
        assert [line.rpartition("(")[2].removesuffix(").") for line in lines] == left_open
        said = json.loads(run("ledger", "check", "--data", data, *words, "--json").stdout)["not_shown"]
        assert [f"not shown: {each}" for each in said] == lines


def test_a_changed_export_names_its_first_bad_entry(papers: Path, data: Path) -> None:
    out = papers / "ledger.jsonl"
    run("ledger", "export", "--out", out, "--data", data)
    out.write_bytes(out.read_bytes().replace(b'"deletion_id":"del_0"', b'"deletion_id":"del_1"'))
    ran = run("ledger", "check", out, "--json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["ok"]) == (1, False)
    assert "Entry 0 was changed" in told["checks"][0]["said"]
    assert run("ledger", "check", papers / "receipt.jws").exit_code == 2
    assert run("ledger", "check", papers / "nowhere").exit_code == 2


def test_a_data_directory_is_checked(papers: Path, data: Path) -> None:
    ran = run("ledger", "check", "--data", data, "--head", papers / "late.json")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.splitlines()[0].startswith("ok      chain:")
    nowhere = run("ledger", "check", "--data", papers)
    assert (nowhere.exit_code, nowhere.stdout) == (2, "")


def test_heads_keys_and_rotation(papers: Path, data: Path) -> None:
    head = run("ledger", "head", "--data", data)
    assert head.stdout == (papers / "late.jws").read_text()
    assert json.loads(run("ledger", "head", "--data", data, "--json").stdout) == {"head": head.stdout.strip()}
    made = json.loads(run("ledger", "rotate-key", "--data", data, "--json").stdout)
    keys = run("ledger", "keys", "--data", data, "--json")
    assert [each["kid"] for each in json.loads(keys.stdout)["keys"]][1:] == [made["kid"]]
    table = run("ledger", "keys", "--data", data).stdout.splitlines()
    assert ["retired" in line for line in table] == [True, False]
    (papers / "all.json").write_text(keys.stdout)
    assert run("verify", papers / "receipt.json", "--key", papers / "all.json").exit_code == 0
    assert run("ledger", "check", "--data", data, "--key", papers / "key.json").exit_code == 0
    assert "signs from now on" in run("ledger", "rotate-key", "--data", data).stdout
