"""House rules, held by a test instead of a lecture. Each rule is a function of (path, text) → complaints."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 640
FUNCTION_LINES_MAX = 80
FILE_BYTES_MAX = 1_500_000

# Put together from pieces so that this file does not break its own rules.
MACHINE_PATHS = re.compile(
    "|".join(["/" + "work/", "/tmp" + "/w/", "/" + "root/", "/tmp/" + "bash_jobs", "/" + "farm/"])
)
OPEN_MARKS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error"]) + r")\b")
REGISTRY_HOSTS = re.compile("|".join(["pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\.(org|com)"]))


def tracked_files() -> list[Path]:
    """Every file of the repository; without git (an unpacked archive), every file outside caches."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if found.returncode == 0:
        paths = [ROOT / name for name in found.stdout.decode().split("\0") if name]
    else:
        skipped = {".git", ".venv", ".venvs", "__pycache__", "data", "build", "dist"}
        paths = [path for path in ROOT.rglob("*") if not skipped & set(path.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.is_file())


def text_files() -> Iterator[tuple[Path, str]]:
    """(path, text) of every tracked file that is UTF-8 text and not a recording."""
    for path in tracked_files():
        if "fixtures" in path.parts or path.name == "LICENSE":
            continue
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def lines_with(pattern: re.Pattern[str], path: Path, text: str) -> list[str]:
    return [
        f"{path}:{no}: {line.strip()[:100]}" for no, line in enumerate(text.splitlines(), 1) if pattern.search(line)
    ]


def long_functions(path: Path, text: str) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    spans = [(node, (node.end_lineno or node.lineno) - node.lineno + 1) for node in nodes]
    return [f"{path}:{node.lineno}: {node.name} has {n} lines" for node, n in spans if n > FUNCTION_LINES_MAX]


def test_no_path_of_a_developers_machine_is_tracked() -> None:
    assert not [hit for path, text in text_files() for hit in lines_with(MACHINE_PATHS, path, text)]


def test_no_package_registry_is_named() -> None:
    assert not [hit for path, text in text_files() for hit in lines_with(REGISTRY_HOSTS, path, text)]


def test_no_open_marks_are_left_in_the_code() -> None:
    code = [(path, text) for path, text in text_files() if path.suffix in {".py", ".sql", ".sh"}]
    assert not [hit for path, text in code for hit in lines_with(OPEN_MARKS, path, text)]


def test_files_and_functions_stay_readable() -> None:
    python = [(path, text) for path, text in text_files() if path.suffix == ".py"]
    too_long = [f"{path}: {text.count(chr(10))} lines" for path, text in python if text.count("\n") > FILE_LINES_MAX]
    assert not too_long + [hit for path, text in python for hit in long_functions(path, text)]


def test_every_module_says_what_it_is_for() -> None:
    python = [(path, text) for path, text in text_files() if path.suffix == ".py"]
    assert not [str(path) for path, text in python if text.strip() and not ast.get_docstring(ast.parse(text))]


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [path for path in tracked_files() if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_no_tracked_file_is_large() -> None:
    assert not [path for path in tracked_files() if path.stat().st_size > FILE_BYTES_MAX]


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", ".ci/run"])
def test_what_a_newcomer_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
