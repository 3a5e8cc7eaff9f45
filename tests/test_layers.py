"""Imports point downwards only. The layers, lowest first; a module may import its own layer and any lower one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"

LAYERS = (
    {"model", "faults"},
    {"query", "ingest", "files", "proof", "settings"},
    {"store"},
    {"catalog"},
    {"deletion"},
    {"experiments"},
    {"api", "testing"},
    {"demo", "drill"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

PURE = {"model", "query", "ingest", "proof"}
"""Layers without I/O: values in, values out."""

IO_MODULES = {
    "apsw", "sqlite3", "sqlalchemy", "alembic", "fastapi", "starlette", "granian", "httpx", "socket", "subprocess",
    "multiprocessing", "asyncio", "requests", "urllib", "typer", "rich",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted((SRC / "clearspan").rglob("*.py"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import statement, those inside functions too."""
    package = path.relative_to(SRC).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            yield node.lineno, name
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


def layer_of(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "clearspan" and len(parts) > 1 and parts[1] in LEVEL else None


def upward_imports(path: Path) -> list[str]:
    own = layer_of(".".join(path.relative_to(SRC).with_suffix("").parts))
    if own is None:
        return []
    where = path.relative_to(SRC)
    return [
        f"{where}:{line}: {own} imports {name}"
        for line, name in imports_of(path)
        if (other := layer_of(name)) is not None and LEVEL[other] > LEVEL[own]
    ]


def test_every_package_has_a_layer() -> None:
    top = {path.relative_to(SRC / "clearspan").parts[0].removesuffix(".py") for path in modules()}
    assert top - {"__init__", "__main__"} <= set(LEVEL)


def test_imports_point_downwards() -> None:
    assert not [hit for path in modules() for hit in upward_imports(path)]


@pytest.mark.parametrize("layer", sorted(PURE))
def test_pure_layers_do_no_io(layer: str) -> None:
    found = [
        f"{path.relative_to(SRC)}:{line}: {name}"
        for path in (SRC / "clearspan" / layer).rglob("*.py")
        for line, name in imports_of(path)
        if name.split(".")[0] in IO_MODULES
    ]
    assert not found


def test_the_check_itself_sees_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "clearspan" / "model" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def late() -> None:\n    from ..store import sqlite\n")
    monkeypatch.setattr(f"{__name__}.SRC", tmp_path)
    assert upward_imports(bad) == [
        "clearspan/model/bad.py:2: model imports clearspan.store",
        "clearspan/model/bad.py:2: model imports clearspan.store.sqlite",
    ]
