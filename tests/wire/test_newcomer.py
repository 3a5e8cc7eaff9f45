"""What a newcomer does, on a real server in a process of its own: start with the demo, paste what README and server
print, delete, look into the files, start again."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 90
DEMO_TRACES = 222
CUSTOMER = b"user@example.com"
OTHER_CUSTOMER = b"grace@example.net"


class Running:
    """A started server and what it printed."""

    def __init__(self, process: subprocess.Popen[str], printed: str) -> None:
        self.process = process
        self.printed = printed
        self.url = re.search(r"URL +(\S+)", printed)[1]  # type: ignore[index]
        self.key = re.search(r"Key +(\S+)", printed)[1]  # type: ignore[index]
        self.commands = re.findall(r"(?ms)^curl .*?^  -d '.*?'$", printed)


@contextmanager
def server(folder: Path) -> Iterator[Running]:
    """`clearspan serve --demo` in `folder`, ready and loaded; stopped by SIGTERM at the end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLEARSPAN_")}
    environ |= {"CLEARSPAN_LOG_LEVEL": "error", "CLEARSPAN_GRPC_PORT": "off", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "clearspan", "serve", "--port", "0", "--data", "data", "--demo"]
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True)
    timer = Timer(START_S, process.kill)
    timer.start()
    try:
        printed = ""
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if len(re.findall(r"(?m)^  -d '", printed)) == 3:
                break
        timer.cancel()
        yield Running(process, printed)
    finally:
        timer.cancel()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=START_S)
    assert process.returncode == 0


def paste(command: str, folder: Path) -> Any:
    """Run a command as a shell would, and read its JSON answer."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files_with(needle: bytes, folder: Path) -> list[str]:
    return [path.name for path in sorted((folder / "data").iterdir()) if needle in path.read_bytes()]


def readme_commands(url: str) -> list[str]:
    """The README's two calls, sent to `url`."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    found = [command for block in blocks for command in re.findall(r"(?m)^curl (?:.*\\\n)*.*$", block)]
    return [command.replace("http://127.0.0.1:8321", url) for command in found]


def test_start_list_delete_and_start_again(tmp_path: Path) -> None:
    with server(tmp_path) as running:
        look_around(running, tmp_path)
        left = delete_a_customer(running, tmp_path)
    before = fsck(tmp_path)

    # As if the first load had been cut off: everything is sent again, and nothing of it may be stored again.
    state = tmp_path / "data" / "demo.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"loaded": False}))
    with server(tmp_path) as again:
        assert again.key == running.key
        assert paste(again.commands[0], tmp_path)["count"] == left
    assert json.loads(state.read_text())["loaded"]
    assert files_with(CUSTOMER, tmp_path) == files_with(OTHER_CUSTOMER, tmp_path) == []
    assert fsck(tmp_path) == before


def fsck(folder: Path) -> dict[str, Any]:
    """The report of `clearspan fsck`, which must find nothing."""
    checked = subprocess.run(
        [sys.executable, "-m", "clearspan", "fsck", "--data", str(folder / "data"), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    report: dict[str, Any] = json.loads(checked.stdout)
    assert report["ok"]
    assert report["traces"] > 0
    return report


def look_around(running: Running, folder: Path) -> None:
    """List and filter with the printed commands, the README's, and the default window."""
    list_demo, list_errors, _ = running.commands
    found = paste(list_demo, folder)
    assert found["count"] == DEMO_TRACES
    assert len(found["results"]) == 5
    assert paste(readme_commands(running.url)[0], folder)["count"] == DEMO_TRACES
    assert paste(re.sub(r"&start_time=[^']*", "", list_demo), folder)["count"] > 0
    errors = paste(list_errors, folder)
    assert errors["count"] > 0
    assert {row["environment"] for row in errors["results"]} == {"production"}
    assert all(row["error_count"] > 0 for row in errors["results"])


def delete_a_customer(running: Running, folder: Path) -> int:
    """Delete with the README's command and look into the files, then with the printed one; how many traces are left."""
    readme_list, readme_delete = readme_commands(running.url)
    assert files_with(CUSTOMER, folder) != []
    erased = prove_it(running, folder)
    assert erased > 0
    assert files_with(CUSTOMER, folder) == []
    assert paste(readme_delete, folder)["deleted_count"] == 0
    deleted = paste(running.commands[2].replace(CUSTOMER.decode(), OTHER_CUSTOMER.decode()), folder)
    assert deleted["deleted_count"] == deleted["success_count"] > 0
    assert deleted["state"] == "verified"
    assert files_with(OTHER_CUSTOMER, folder) == []
    left = DEMO_TRACES - erased - int(deleted["deleted_count"])
    assert paste(readme_list, folder)["count"] == left
    return left


def prove_it(running: Running, folder: Path) -> int:
    """The README's `clearspan` commands: look, delete what was seen, check the receipt; how many traces are gone."""
    delete, verify = readme_cli("delete"), readme_cli("verify")
    seen = json.loads(clearspan(running, folder, *delete, "--dry-run", "--json").stdout)
    matched = int(seen["traces"]["matched"])
    assert clearspan(running, folder, *delete, status=2).stdout == "", "nobody is there to type the number"
    wrong = clearspan(running, folder, *delete, "--yes", "--expected-count", str(matched + 1), status=1)
    assert "nothing was deleted" in wrong.stderr
    done = clearspan(running, folder, *delete, "--yes", "--expected-count", str(matched))
    assert f"{matched} of {matched} matched traces are erased" in done.stdout
    checked = clearspan(running, folder, *verify)
    assert f"{matched} of {matched} matching traces deleted" in checked.stdout
    receipt = folder / "receipt.json"
    text = receipt.read_text()
    assert CUSTOMER.decode() not in text
    at = len(text) // 3
    receipt.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    assert clearspan(running, folder, *verify, status=None).returncode in (1, 2), "a changed receipt is refused"
    receipt.write_text(text)
    return matched


def readme_cli(name: str) -> list[str]:
    """The words of a `clearspan` command of the README, without the program."""
    text = re.sub(r"\\\n", " ", (ROOT / "README.md").read_text())
    found = re.search(rf"(?m)^\.venv/bin/clearspan ({name} .*)$", text)
    assert found is not None
    return shlex.split(found[1], comments=True)


def clearspan(running: Running, folder: Path, *words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a newcomer does, against the running server."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLEARSPAN_")}
    environ |= {"CLEARSPAN_URL": running.url, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "clearspan", *words]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done
