"""Virtual environments for the real client libraries, made once and kept under `.venvs/`.

Each client has one, since two of them install the same top-level package. What goes in is pinned completely in
`requirements/<name>-<version>.txt`, so there is nothing to resolve and pip is told to look at nothing else.

    python tests/clients/venvs.py [NAME-VERSION …]     make those that are missing (all without arguments)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements"
VENVS = HERE.parent.parent / ".venvs"
MARKER = ".complete"


def client_names() -> list[str]:
    """Every client that has a requirement file, such as `respan-api-0.1.49`."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def ensure_venv(name: str) -> Path:
    """The python of a client's environment, made first if it is not there or its requirements have changed.

    It is built beside its place and moved there as a whole, so that an interrupted or a second, simultaneous run
    leaves no half of one. Environments are called by path, never activated, so moving them is harmless.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    home = VENVS / name
    python = home / "bin" / "python"
    if _is_complete(home, digest):
        return python
    building = VENVS / f".building-{name}-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    venv.create(building, symlinks=True, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(building / "bin" / "python")]
    options = ["--quiet", "--no-deps", "--no-compile", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "install", *options, "-r", str(requirements)], check=True, stdout=sys.stderr)
    (building / MARKER).write_text(digest)
    if not _is_complete(home, digest):
        shutil.rmtree(home, ignore_errors=True)
        try:
            building.rename(home)
        except OSError:  # another run was quicker; its environment is as good
            assert _is_complete(home, digest)
    shutil.rmtree(building, ignore_errors=True)
    return python


def _is_complete(home: Path, digest: str) -> bool:
    marker = home / MARKER
    return marker.is_file() and marker.read_text() == digest


if __name__ == "__main__":
    for wanted in sys.argv[1:] or client_names():
        print(ensure_venv(wanted))
