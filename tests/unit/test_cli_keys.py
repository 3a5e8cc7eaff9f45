"""`clearspan keys` and `clearspan projects`, also beside a running server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from clearspan.catalog import Catalog, KeyPolicy, KeyScope
from clearspan.cli import keys, projects
from clearspan.model.clock import ns_from_datetime
from clearspan.model.errors import InvalidInput, NotAuthenticated
from clearspan.testing.clock import FixedClock

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def run(data: Path, *words: str) -> Result:
    app = typer.Typer()
    app.add_typer(keys.app, name="keys")
    app.add_typer(projects.app, name="projects")
    return CliRunner().invoke(app, [*words, "--data", str(data)], catch_exceptions=False)


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    run(tmp_path, "projects", "create", "chat")
    made = run(
        tmp_path, "keys", "create", "--name", "ci", "--scope", "read", "--scope", "delete", "--project", "chat",
        "--environment", "staging", "--expires", "30d", "--json",
    )  # fmt: skip
    key = json.loads(made.stdout)
    assert (key["scopes"], key["projects"], key["environment"]) == (["delete", "read"], ["chat"], "staging")
    with Catalog.open(tmp_path) as server:
        who = server.authenticate(key["key"])
        assert who.scopes == {KeyScope.READ, KeyScope.DELETE}
    listed = run(tmp_path, "keys", "list", "--json")
    [row] = json.loads(listed.stdout)["data"]
    assert row == {name: value for name, value in key.items() if name != "key"}
    assert row["state"] == "valid"
    revoked = run(tmp_path, "keys", "revoke", key["id"], "--json")
    assert json.loads(revoked.stdout)["state"] == "revoked"
    table = run(tmp_path, "keys", "list").stdout
    assert key["prefix"] in table
    assert "revoked" in table
    assert key["key"] not in table + listed.stdout


def test_without_json_only_the_key_is_on_standard_output(tmp_path: Path) -> None:
    made = run(tmp_path, "keys", "create", "--name", "me")
    secret = made.stdout.removesuffix("\n")
    assert made.exit_code == 0
    assert "\n" not in secret
    with Catalog.open(tmp_path) as server:
        assert server.authenticate(secret).scopes == set(KeyScope)
    assert "is revoked" in run(tmp_path, "keys", "revoke", secret[:11]).stdout


def test_a_running_server_refuses_a_key_within_five_seconds_of_its_revocation(tmp_path: Path) -> None:
    clock = FixedClock(ns_from_datetime(datetime.now(UTC)))
    with Catalog.open(tmp_path, clock=clock) as server:
        secret = run(tmp_path, "keys", "create", "--name", "x").stdout.strip()
        assert server.authenticate(secret).key_name == "x"
        assert run(tmp_path, "keys", "revoke", secret[:11]).exit_code == 0
        clock.advance(4.9)
        with pytest.raises(NotAuthenticated):
            server.authenticate(secret)


def test_projects_are_made_and_listed(tmp_path: Path) -> None:
    made = json.loads(run(tmp_path, "projects", "create", "chat", "--json").stdout)
    assert made["name"] == "chat"
    listed = json.loads(run(tmp_path, "projects", "list", "--json").stdout)["data"]
    assert [row["name"] for row in listed] == ["default", "chat"]
    assert listed[1] == made
    assert made["id"] in run(tmp_path, "projects", "list").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["keys", "revoke", "key_none"], "no such API key"),
        (["keys", "create", "--name", "x", "--project", "none"], "no project 'none'"),
        (["keys", "create", "--name", "x", "--expires", "soon"], "neither a time"),
        (["keys", "create", "--name", "x", "--expires", "2001-01-01"], "in the past"),
        (["projects", "create", "default"], "'default' already"),
    ],
)
def test_errors_are_sentences_and_status_1(tmp_path: Path, words: list[str], sentence: str) -> None:
    Catalog.open(tmp_path).close()
    ran = run(tmp_path, *words)
    assert ran.exit_code == 1
    assert ran.stderr.startswith("clearspan: ")
    assert sentence in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize("words", [["keys", "list"], ["projects", "list"], ["keys", "revoke", "x"]])
def test_looking_makes_no_data_directory(tmp_path: Path, words: list[str]) -> None:
    ran = run(tmp_path / "none", *words)
    assert ran.exit_code == 1
    assert "no Clearspan data" in ran.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", datetime(2026, 11, 21, 12, 1, 30, tzinfo=UTC)),
        ("12h", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2w", datetime(2026, 12, 5, 12, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_expiries_are_spans_or_times(text: str, at: datetime) -> None:
    assert keys.parse_expiry(text, NOW) == ns_from_datetime(at)


@pytest.mark.parametrize("text", ["", "0d", "d", "1y", "-1d", "1.5h", "tomorrow"])
def test_other_expiries_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        keys.parse_expiry(text, NOW)


def test_a_key_carries_a_deletion_policy(tmp_path: Path) -> None:
    made = run(
        tmp_path, "keys", "create", "--name", "careful", "--delete-max-traces", "500", "--delete-max-share", "0.05",
        "--delete-needs-reason", "--no-delete-all", "--strict-window", "--json",
    )  # fmt: skip
    key = json.loads(made.stdout)
    assert key["policy"] == {
        "delete_max_traces": 500, "delete_max_share": 0.05, "delete_needs_reason": True, "no_delete_all": True,
        "strict_window": True,
    }  # fmt: skip
    with Catalog.open(tmp_path) as server:
        assert server.authenticate(key["key"]).policy == KeyPolicy(500, 50_000, True, True, True)
    [row] = json.loads(run(tmp_path, "keys", "list", "--json").stdout)["data"]
    assert row["policy"] == key["policy"]
    assert "≤ 500 traces, ≤ 5 %, reason, no delete_all, strict window" in run(tmp_path, "keys", "list").stdout


def test_a_key_without_a_policy_limits_nothing(tmp_path: Path) -> None:
    secret = run(tmp_path, "keys", "create", "--name", "free").stdout.strip()
    with Catalog.open(tmp_path) as server:
        assert server.authenticate(secret).policy == KeyPolicy()
        org_id = server.first_org.id
        for policy in (KeyPolicy(max_traces=0), KeyPolicy(max_share_ppm=0), KeyPolicy(max_share_ppm=1_000_001)):
            with pytest.raises(InvalidInput):
                server.create_key(org_id, name="x", policy=policy)


@pytest.mark.parametrize("text", ["0", "-0.1", "1.01", "5%", "nan", "inf", "0.0000001", ""])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        keys.parse_share(text)


@pytest.mark.parametrize(("text", "ppm"), [("1", 1_000_000), ("0.05", 50_000), ("0.000001", 1), ("5e-2", 50_000)])
def test_shares_are_exact(text: str, ppm: int) -> None:
    assert keys.parse_share(text) == ppm
