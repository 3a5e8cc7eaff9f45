"""Exports: a job at once, and a link that streams what is there when it is used."""

from __future__ import annotations

import csv
import io
import json
from contextlib import ExitStack
from typing import Any

import pytest
from tests.wire.respan_experiments import (
    ALL,
    add_items,
    add_result,
    add_score,
    make_dataset,
    make_experiment,
    result_id,
)

from clearspan.api.respan.experiments import exports
from clearspan.catalog import KeyScope
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.items import NewItem
from clearspan.model.ids import normalise_id
from clearspan.testing.wire import Wire

pytestmark = pytest.mark.parametrize("wire", ["sqlite"], indirect=True)
HOST = "http://clearspan.test"
RESULTS = 45
"""More than two of the pieces that a download is read in."""


@pytest.fixture
def experiment(wire: Wire) -> Experiment:
    dataset = make_dataset(wire)
    (item,) = add_items(wire, dataset, NewItem({"q": 1}, "expected"))
    made = make_experiment(wire, dataset)
    for number in range(RESULTS):
        own = item if number == 0 else None
        add_result(wire, made, number, item=own, ago_s=100 - number, metadata={"parity": str(number % 2)})
    add_score(wire, 0, "accuracy", score=0.5)
    return made


def begin(wire: Wire, experiment: Experiment, query: str = "", body: Any = None, **rest: Any) -> Any:
    """The job of an export."""
    said = {"is_exporting": True} if body is None else body
    answer = wire.post(f"{ALL}{experiment.public_id}/logs/list/{query}", said, **rest)
    assert answer.status_code == 202, answer.text
    return answer.json()


def fetch(wire: Wire, url: str) -> Any:
    return wire.get(url.removeprefix(HOST), key=None)


def lines(wire: Wire, job: Any) -> list[Any]:
    answer = fetch(wire, job["download_url"])
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_every_way_of_asking_begins_a_job_and_ends_a_pager(wire: Wire, experiment: Experiment) -> None:
    base = f"{ALL}{experiment.public_id}/logs/"
    for answer in (
        wire.get(f"{base}list/?export=true"),
        wire.get(f"{base}?export=1&page=1&page_size=100&sort_by=-start_time"),
        wire.post(f"{base}list/?export=1", {}),
        wire.post(f"{base}list/", {"is_exporting": True}),
    ):
        assert answer.status_code == 202
        job = answer.json()
        assert (job["status"], job["count"], job["results"], job["next"]) == ("ready", RESULTS, [], None)
        assert job["message"]
        assert answer.headers["location"] == job["status_url"]
        assert wire.get(job["status_url"].removeprefix(HOST)).json() == {
            key: value for key, value in job.items() if key not in ("results", "next", "previous", "current_filters")
        }
        assert len(lines(wire, job)) == RESULTS


def test_json_lines_hold_whole_results_the_oldest_first(wire: Wire, experiment: Experiment) -> None:
    job = begin(wire, experiment)
    answer = fetch(wire, job["download_url"])
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "no-store" in answer.headers["cache-control"]
    told = lines(wire, job)
    assert [each["id"] for each in told] == [result_id(number) for number in range(RESULTS)]
    listed = wire.get(f"{ALL}{experiment.public_id}/logs/list/?sort_by=start_time&page_size=1").json()["results"]
    assert told[0] == listed[0]
    assert (told[0]["expected_output"], told[0]["scores"]["accuracy"]["numerical_value"]) == ("expected", 0.5)


def test_csv_has_one_line_a_result_and_runs_no_formula(wire: Wire, experiment: Experiment) -> None:
    add_result(wire, experiment, RESULTS, ago_s=1, name="=HYPERLINK(0)", outputs={"a": 'x "y",\nz'})
    job = begin(wire, experiment, "?format=csv")
    rows = list(csv.DictReader(io.StringIO(fetch(wire, job["download_url"]).text)))
    assert [row["id"] for row in rows] == [result_id(number) for number in range(RESULTS + 1)]
    assert rows[-1]["name"] == "'=HYPERLINK(0)"
    assert json.loads(rows[-1]["output"]) == {"a": 'x "y",\nz'}
    assert json.loads(rows[0]["scores"])["accuracy"]["numerical_value"] == 0.5
    assert (rows[0]["total_cost"], rows[0]["duration"]) == ("", "2.0")


def test_filter_and_window_go_with_the_link(wire: Wire, experiment: Experiment) -> None:
    filters = {"metadata__parity": {"value": ["0"]}, "status": {"value": ["success"]}}
    job = begin(wire, experiment, body={"is_exporting": True, "filters": filters})
    assert job["count"] == 23
    assert job["current_filters"]["status"] == {"operator": "", "value": ["success"]}
    assert [each["id"] for each in lines(wire, job)] == [result_id(number) for number in range(0, RESULTS, 2)]
    scored = {"scores__accuracy": {"operator": "gte", "value": [0.5]}}
    assert len(lines(wire, begin(wire, experiment, body={"is_exporting": True, "filters": scored}))) == 1


def test_what_is_deleted_after_the_job_was_made_is_not_in_it(wire: Wire, experiment: Experiment) -> None:
    job = begin(wire, experiment)
    for number in (0, 30):
        assert wire.send("DELETE", f"/api/traces/{normalise_id(result_id(number))}/").json()["state"] == "verified"
    assert {each["id"] for each in lines(wire, job)} == {
        result_id(number) for number in range(RESULTS) if number not in (0, 30)
    }
    assert wire.get(job["status_url"].removeprefix(HOST)).json()["count"] == RESULTS - 2


def test_what_is_deleted_while_it_is_sent_is_not_sent_any_more(
    wire: Wire, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = begin(wire, experiment)
    asked: list[int] = []
    next_rows = exports._Stream.next

    def deleting(stream: exports._Stream) -> Any:
        asked.append(1)
        if len(asked) == 2:
            wire.send("DELETE", f"/api/traces/{result_id(40)}/")
        return next_rows(stream)

    monkeypatch.setattr(exports._Stream, "next", deleting)
    told = [each["id"] for each in lines(wire, job)]
    assert result_id(40) not in told
    assert len(told) == RESULTS - 1


def test_a_link_ends_with_its_time_its_experiment_and_its_signature(wire: Wire, experiment: Experiment) -> None:
    job = begin(wire, experiment)
    url = job["download_url"].removeprefix(HOST)
    forged = url.replace(job["export_id"], ("A" if job["export_id"][0] != "A" else "B") + job["export_id"][1:])
    for wrong in (forged, url.replace(job["export_id"], "x"), url.replace(job["export_id"], "é" * 9)):
        assert wire.get(wrong, key=None).status_code == 404
    assert wire.get(url.replace("jsonl", "xlsx"), key=None).status_code == 400
    wire.clock.advance(wire.services.settings.attachment_link_s)
    assert wire.get(url, key=None).status_code == 403
    assert wire.get(job["status_url"].removeprefix(HOST)).json()["status"] == "expired"
    again = begin(wire, experiment)
    project = wire.catalog.find_project_uuid(wire.catalog.first_org.id, experiment.uuid)
    assert project is not None
    wire.send("DELETE", f"/sessions/{experiment.uuid}")
    assert fetch(wire, again["download_url"]).status_code == 404
    assert wire.get(again["status_url"].removeprefix(HOST)).status_code == 404


def test_a_key_gets_no_more_by_a_link_than_it_may_see(wire: Wire, experiment: Experiment) -> None:
    bound = wire.key(KeyScope.READ, project_ids=[experiment.project_id])
    told = lines(wire, begin(wire, experiment, key=bound))
    assert (len(told), told[0]["expected_output"]) == (RESULTS, None)
    staging = wire.key(KeyScope.READ, environment="staging")
    assert lines(wire, begin(wire, experiment, key=staging)) == []
    job = begin(wire, experiment)
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    assert wire.get(job["status_url"].removeprefix(HOST), key=theirs).status_code == 404
    assert wire.get(job["status_url"].removeprefix(HOST), key=bound).status_code == 200
    assert wire.get(job["status_url"].removeprefix(HOST), key=staging).status_code == 404


def test_a_filter_too_long_for_an_address_is_refused(wire: Wire, experiment: Experiment) -> None:
    filters = {"id": {"operator": "in", "value": [result_id(number) for number in range(400)]}}
    answer = wire.post(f"{ALL}{experiment.public_id}/logs/list/", {"is_exporting": True, "filters": filters})
    assert (answer.status_code, "filters" in answer.json()) == (400, True)


def test_parquet_without_its_library_says_what_is_missing(
    wire: Wire, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        patch.setitem(__import__("sys").modules, "pyarrow", None)
        answer = fetch(wire, begin(wire, experiment, "?format=parquet")["download_url"])
    assert (answer.status_code, "clearspan[parquet]" in answer.text) == (400, True)
