"""Every fault point of the product, read from its source: a new one cannot be left out of the tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import clearspan
from clearspan.deletion.state import DeletionState

SOURCE = Path(clearspan.__file__).parent


@cache
def fault_points() -> tuple[str, ...]:
    """The names of all points, sorted.

    A point is the argument of a call `fault(…)`: a text, or `_RECORDED[state]`, which stands for one point a state.

    Raises:
        ValueError: a call whose point cannot be read from the source.
    """
    return tuple(sorted({point for path in SOURCE.rglob("*.py") for point in _points_of(path)}))


def _points_of(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if "fault(" not in text:
        return  # to parse all takes seconds
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault"):
            continue
        (argument,) = node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif "_RECORDED[" in ast.unparse(argument):
            yield from (f"deletion.after_{state.value}_recorded" for state in DeletionState)
        else:
            raise ValueError(f"{path}:{node.lineno}: cannot tell which point {ast.unparse(argument)} is")
