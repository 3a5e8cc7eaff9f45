"""The evaluators and scores API of the last Respan client that has one, against a live server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clearspan.testing.live import LIVE_KEY, Live

RunClient = Callable[..., dict[str, Any]]


@pytest.mark.long
def test_respan_evaluators_and_scores(live: Live, run_client: RunClient) -> None:
    seen = run_client("respan-api-0.1.47", "run_respan_scores.py", CLEARSPAN_URL=live.url, CLEARSPAN_KEY=LIVE_KEY)
    assert seen["made"] == ["Response Quality", "response_quality", "llm", 5.0, "gpt-4o-mini"]
    assert seen["read"] is True
    assert seen["changed"] == ["told", 0.5, "gpt-4o-mini"]
    assert seen["replaced"] == ["Quality", "human", None, "response_quality"]
    assert seen["pages"] == [["By hand", "Code of mine"], ["Quality"]]
    assert seen["humans"] == 2
    assert seen["scored"] == [4.5, "human", "Quality", "t1"]
    assert seen["again"] == [True, 2.0, "weak"]
    assert seen["child"] == [True, "t1-child", False]
    assert seen["typed"] == ['{"a":1}', "ci"]
    assert seen["updated"] == [4.8, "Updated assessment", "Quality"]
    assert seen["replaced_score"] == [3.0, None]
    assert (seen["retrieved"], seen["of_span"]) == (3.0, False)
    assert seen["listed"] == [["code_of_mine", "by_hand"], ["response_quality"], []]
    assert (seen["of_trace"], seen["filtered"]) == (2, 1)
    assert seen["left"] == [True]
    assert seen["statuses"] == {"gone": 404, "no_evaluator": 400, "wrong_type": 400, "code": 400}
