"""What others may rely on is listed, and the list is true."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import clearspan
from clearspan.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = sorted(
    ".".join(path.relative_to(ROOT / "src").parts[:-1]) for path in (ROOT / "src" / "clearspan").rglob("__init__.py")
)


def test_version_is_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", clearspan.__version__)


@pytest.mark.parametrize("package", PACKAGES)
def test_listed_names_exist_once(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert [name for name in names if not hasattr(module, name)] == []
    assert len(names) == len(set(names))


def test_the_packages_own_list_is_short() -> None:
    assert clearspan.__all__ == ["__version__"]


def test_the_script_and_its_commands_exist() -> None:
    module, _, name = PROJECT["scripts"]["clearspan"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    for command in COMMANDS.values():
        assert hasattr(importlib.import_module(command.module), command.attribute)


def test_every_dependency_is_locked() -> None:
    lock = (ROOT / "requirements" / "runtime.txt").read_text().lower()
    named = [re.split(r"[^A-Za-z0-9_.-]", each)[0].lower() for each in PROJECT["dependencies"]]
    assert [name for name in named if not re.search(rf"(?m)^{re.escape(name)}==", lock)] == []
