"""What docs/clients/phoenix.md says to paste, pasted: set-up, and a deletion of annotations with its proof."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from test_langsmith_docs import paste
from venvs import ensure_venv

from clearspan.testing.live import SRC, Live

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "clients" / "phoenix.md").read_text()
CLIENT = "phoenix-client-3.5.0"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_the_page_is_right(live: Live, tmp_path: Path) -> None:
    python, (set_up, recipe), (exports, verify) = ensure_venv(CLIENT), blocks("python"), blocks("sh")
    told = paste(live, set_up, f"{python} pasted", tmp_path, exports)
    assert told.splitlines()[-1] == "answer user@example.com"
    [trace] = live.traces()
    assert (trace["name"], trace["customer_identifier"]) == ("answer", "user@example.com")
    preview = live.http.post("/v1/deletions/preview", json={"trace_ids": [trace["id"]]}).json()
    assert preview["counts"]["annotation"]["planned"] == 1

    deletion_id, count = paste(live, recipe, f"{python} pasted {tmp_path}", tmp_path, exports).split()
    assert count == "1"
    command = verify.replace("clearspan", f"PYTHONPATH={SRC} {sys.executable} -m clearspan").strip()
    assert deletion_id in paste(live, "", command, tmp_path, exports)
    preview = live.http.post("/v1/deletions/preview", json={"trace_ids": [trace["id"]]}).json()
    assert preview["counts"]["annotation"]["planned"] == 0
