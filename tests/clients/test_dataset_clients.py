"""The datasets API of the last Respan client that has one, against a live server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from clearspan.testing.live import LIVE_KEY, Live

HERE = Path(__file__).resolve().parent


def load(name: str) -> Any:
    """A module beside this file; the folder is no package, since programs in it have the names of none."""
    spec = importlib.util.spec_from_file_location(f"clients_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_respan_datasets(live: Live) -> None:
    python = load("venvs").ensure_venv("respan-api-0.1.47")
    program = "run_respan_datasets.py"
    seen = load("conftest").run_program(python, program, CLEARSPAN_URL=live.url, CLEARSPAN_KEY=LIVE_KEY)
    assert seen["made"] == ["golden", "first", "ready", "traces"]
    assert seen["bulk"] == [4, 0, []]
    assert seen["imported"] == [
        "Imported 1 of 1 matching traces",
        "Imported 0 of 1 matching traces; 1 in the dataset already",
    ]
    assert seen["pages"] == [["row 0", "row 1"], ["row 2", "row 3"]]
    assert seen["row"] == [{"n": 1}, "seen", "wanted", {"kind": "odd"}, 0.5]
    assert seen["updated"] == ["seen", {"better": True}]
    assert seen["replaced"] == [{"n": 1}, "only this", None, {}]
    assert seen["summary"] == [6, 0.0]
    assert seen["renamed"] == ["silver", "first"]
    assert seen["copied"] == ["copy", 6]
    assert seen["listed"] == [1, [6], 6]
    assert seen["removed"] == ["4 logs deleted", [{"question": "source-1"}], "1 logs deleted"]
    assert seen["names_left"] == ["copy"]
    assert seen["statuses"] == {"gone": 404, "gone_again": 404, "taken": 400, "no_filter": 400, "eval_reports": 404}
    assert sorted(each["trace_unique_id"] for each in live.traces()) == ["source-1", "source-2"]
