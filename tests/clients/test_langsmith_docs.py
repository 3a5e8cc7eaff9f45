"""What docs/clients/langsmith.md says to paste, pasted: set-up in both languages, evaluate(), a deletion with proof."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_langsmith import node_modules
from venvs import ensure_venv

from clearspan.api.langsmith.paths import OTEL_PATHS
from clearspan.api.langsmith.routes import ROUTES
from clearspan.testing.live import LIVE_KEY, SRC, Live

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "clients" / "langsmith.md").read_text()
CLIENT = "langsmith-0.15.0"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def paste(live: Live, script: str, command: str, folder: Path, *exports: str) -> str:
    """Run a command in bash after the page's exports, with `script` in a file of that name; what it printed."""
    lines = (
        "\n".join(exports or blocks("sh")[:1])
        .replace("http://127.0.0.1:8321", live.url)
        .replace("=KEY", f"={LIVE_KEY}")
    )
    (folder / "pasted").write_text(script)
    environment = {key: each for key, each in os.environ.items() if not key.startswith(("LANGSMITH_", "PYTHON"))}
    done = subprocess.run(
        ["bash", "-euc", f"{lines}\n{command}"],
        cwd=folder,
        env={**environment, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def customers(live: Live) -> list[Any]:
    return [(each["name"], each["customer_identifier"]) for each in live.traces()]


def test_the_page_is_right(live: Live, tmp_path: Path) -> None:
    python, (set_up, evaluate, recipe) = ensure_venv(CLIENT), blocks("python")
    exports, otel, verify = blocks("sh")
    paste(live, set_up, f"{python} pasted", tmp_path)
    assert customers(live) == [("answer", "user@example.com")]
    paste(live, set_up.replace("user@", "other@"), f"{python} pasted", tmp_path, exports, otel)
    assert sorted(customers(live)) == [("answer", "other@example.com"), ("answer", "user@example.com")]

    assert paste(live, evaluate, f"{python} pasted", tmp_path).splitlines()[-1] == "0.5"

    said = json.loads(paste(live, recipe, f"{python} pasted user@example.com shop {tmp_path}", tmp_path))
    assert said["traces"] == 1
    assert ("answer", "user@example.com") not in customers(live)
    command = verify.replace("clearspan", f"PYTHONPATH={SRC} {sys.executable} -m clearspan").strip()
    told = paste(live, "", command, tmp_path)
    assert said["deletion_id"] in told
    files = [path for path in (tmp_path / "data").iterdir() if path.is_file()]
    assert [path.name for path in files if b"user@example.com" in path.read_bytes()] == []


def test_the_pages_javascript_is_right(live: Live, tmp_path: Path) -> None:
    (script,) = blocks("javascript")
    (tmp_path / "node_modules").symlink_to(node_modules() / "node_modules")
    polyfill = re.search(r"`(globalThis\.crypto .*?;)`", PAGE)
    assert polyfill is not None
    paste(
        live, script.replace("const client", f"{polyfill[1]}\nconst client", 1), "mv pasted a.mjs; node a.mjs", tmp_path
    )
    assert customers(live) == [("answer", "user@example.com")]


PATHS = {each for route in ROUTES for each in (route.path, *route.aliases)} | {*OTEL_PATHS, "/v1/ledger/keys"}
BARE = PATHS | {each.removeprefix("/api/v2") for each in PATHS}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(?:[A-Z]+ )?(/[a-z-]+(?:/[a-z-]+)*)`", PAGE))))
def test_paths_of_the_page_exist(path: str) -> None:
    assert any(each == path or each.startswith(path + "/") for each in BARE), path
