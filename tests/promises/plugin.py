"""The table of promises: tests count runs, this collects them over all workers, prints the table and writes it down.

    def test_something(promise: PromiseFixture) -> None:
        counter = promise("P4 P6", "F11")
        for seed in range(rounds):
            with counter.run(seed): ...

    @pytest.mark.promise("P2", "F9", runs=80)      for a test that is one loop: `runs` of them if it passes

Counts travel as user properties of the test's report, which every way of running tests carries to the process that
prints, also when a worker dies later.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from .table import Counter, Table, dump, load

PROPERTY = "promises"
PromiseFixture = Callable[[str, str], Counter]
_TABLE = pytest.StashKey[Table]()
_FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises", metavar="FILE", help="print the table of promises, and write it as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(promises, faults, runs=1): a pass is so many runs without violation")
    config.stash[_TABLE] = Table()
    config.pluginmanager.register(_Collector(config.stash[_TABLE]), "promise-collector")


class _Collector:
    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == PROPERTY:
                    self._table.add(load(str(value)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
        for mark in item.iter_markers("promise"):
            counter = Counter(*mark.args)
            counter.count(mark.kwargs.get("runs", 1), violations=int(report.failed))
            item.user_properties.append((PROPERTY, dump(counter.tallies)))
    return report


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Iterator[PromiseFixture]:
    """`promise("P4 P6", "F11")` → a Counter. A test that fails outside its runs is a violation as well."""
    counters: list[Counter] = []

    def start(promises: str, faults: str) -> Counter:
        counters.append(Counter(promises, faults))
        return counters[-1]

    yield start
    failed = request.node.stash.get(_FAILED, True)
    if failed and not any(counter.has_violations for counter in counters):
        for counter in counters:
            counter.count(violations=1, seed="-")
    for counter in counters:
        request.node.user_properties.append((PROPERTY, dump(counter.tallies)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table, path = config.stash[_TABLE], config.getoption("--promises")
    if table.is_empty and not path:
        return
    terminalreporter.section("promises")
    for line in table.lines():
        terminalreporter.write_line(line)
    if path:
        table.write(Path(path))
        terminalreporter.write_line(f"also in {path}")
