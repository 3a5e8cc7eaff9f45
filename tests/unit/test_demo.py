"""The demo set and its way to the present. Loading it into a server is in tests/wire/test_demo_load.py."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from clearspan.demo.commands import CUSTOMER, demo_commands
from clearspan.demo.dataset import DemoRequest, demo_requests
from clearspan.demo.load import DemoState, read_state, write_state
from clearspan.demo.redate import SPREAD_NS, redate, trace_ids

NOW_NS = 1_800_000_000 * 10**9
ALLOWED_ADDRESSES = re.compile(r"@(example\.(com|org|net)|demo\.example|acme\.example)$")


@pytest.fixture(scope="module")
def requests() -> list[DemoRequest]:
    return list(demo_requests())


@pytest.fixture(scope="module")
def redated(requests: list[DemoRequest]) -> list[DemoRequest]:
    return redate(requests, NOW_NS)


def json_spans(requests: list[DemoRequest]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(resource, span) of every OTLP/JSON request."""
    for request in requests:
        if request.is_json:
            for entry in json.loads(request.body)["resourceSpans"]:
                for scope in entry["scopeSpans"]:
                    yield from ((entry["resource"], span) for span in scope["spans"])


def attributes(entry: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values()), None) for each in entry["attributes"]}


def test_every_source_is_there(requests: list[DemoRequest]) -> None:
    count = Counter(request.source.split("/")[0 if request.source.startswith("otlp") else 1] for request in requests)
    assert count == {"otlp-recordings": 93, "frameworks": 1, "tau-bench": 6, "swe-agent": 1, "magentic-one": 2}
    assert len(trace_ids(requests)) == 222


def test_all_traces_lie_in_the_last_hour(redated: list[DemoRequest]) -> None:
    times = [(int(s["startTimeUnixNano"]), int(s["endTimeUnixNano"])) for _, s in json_spans(redated)]
    assert min(start for start, _ in times) >= NOW_NS - SPREAD_NS
    assert max(end for _, end in times) < NOW_NS


def test_a_trace_moves_as_a_whole(requests: list[DemoRequest], redated: list[DemoRequest]) -> None:
    shifts: dict[str, set[int]] = {}
    for (_, old), (_, new) in zip(json_spans(requests), json_spans(redated), strict=True):
        pairs = [(old, new), *zip(old.get("events", []), new.get("events", []), strict=True)]
        for before, after in pairs:
            for key in ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano"):
                if key in before:
                    shifts.setdefault(old["traceId"], set()).add(int(after[key]) - int(before[key]))
    assert len(shifts) > 100
    assert {len(each) for each in shifts.values()} == {1}


def test_dating_twice_gives_the_same_bytes(requests: list[DemoRequest], redated: list[DemoRequest]) -> None:
    assert redate(requests, NOW_NS) == redated


def test_nobody_is_named(requests: list[DemoRequest]) -> None:
    converted = [request.body.decode() for request in requests if request.source.startswith("real-traces/")]
    found = {hit for text in converted for hit in re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text)}
    assert not {hit for hit in found if not ALLOWED_ADDRESSES.search(hit)}


def test_the_documented_commands_find_something(redated: list[DemoRequest]) -> None:
    customers: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for resource, span in json_spans(redated):
        customers[attributes(span).get("user.id", "")] += 1
        if span.get("status", {}).get("code") == 2:
            failed[attributes(resource).get("deployment.environment.name", "")] += 1
    assert customers[CUSTOMER] >= 5
    assert failed["production"] >= 1
    assert failed["staging"] >= 1


def test_commands_are_shell_safe_and_name_their_window() -> None:
    state = DemoState(key="cs_demo", now_ns=NOW_NS, loaded=True)
    texts = [command for _, command in demo_commands("http://127.0.0.1:8321", state)]
    assert len(texts) == 3
    for text in texts:
        assert text.count("'") % 2 == 0
        assert "start_time=2027-01-15T07:09:00Z" in text
        json.loads(text.rsplit("-d '", 1)[1].removesuffix("'"))


def test_the_state_survives_and_is_private(tmp_path: Any) -> None:
    state = DemoState(key="cs_demo", now_ns=NOW_NS, loaded=False)
    assert read_state(tmp_path) is None
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert (tmp_path / "demo-key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "demo-key").read_text() == "cs_demo\n"
    (tmp_path / "demo.json").write_text("{")
    assert read_state(tmp_path) is None
