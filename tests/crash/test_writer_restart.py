"""The writer process dies under its client: every call is answered or fails at once, none waits for ever."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearspan.store.sqlite import client as client_module
from clearspan.store.sqlite import wire
from clearspan.store.sqlite.client import WriterClient, WriterDied
from clearspan.store.sqlite.process import Options

ROUNDS = 3
WAIT_S = 20.0


def test_calls_sent_between_death_and_restart_are_answered_or_fail(tmp_path: Path) -> None:
    client = WriterClient(Options(tmp_path / "traces.db", bytes(32), 2000, 2**24, 8))
    try:
        for _ in range(ROUNDS):
            os.kill(client.pid, signal.SIGKILL)
            answered = False
            while not answered:
                try:
                    answered = client.call("ping", timeout_s=WAIT_S)  # TimeoutError: it was forgotten
                except WriterDied:
                    continue
        assert client.restarts == ROUNDS
    finally:
        client.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[WriterClient]:
    made = WriterClient(Options(tmp_path / "traces.db", bytes(32), 2000, 2**24, 8))
    yield made
    made.close()


def test_a_request_or_answer_that_cannot_be_coded_fails_alone(client: WriterClient) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        client.call("ping", lambda: None, timeout_s=WAIT_S)  # a function has no bytes
    unreadable = client._enqueue(wire.CALL, lambda: pickle.dumps(("ping", ())), lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        unreadable.result(WAIT_S)
    assert client.is_alive
    assert client.call("ping", timeout_s=WAIT_S)


def test_after_many_deaths_in_a_row_it_comes_back(client: WriterClient, monkeypatch: pytest.MonkeyPatch) -> None:
    may_start, refused = threading.Event(), threading.Event()
    start = client._start
    waits: list[int] = []

    def fails_at_first() -> Any:
        if may_start.is_set():
            return start()
        refused.set()
        raise RuntimeError("no room")

    def wait_s(deaths: int) -> float:
        waits.append(deaths)
        return 0.01

    monkeypatch.setattr(client, "_start", fails_at_first)
    monkeypatch.setattr(client_module, "_wait_s", wait_s)
    os.kill(client.pid, signal.SIGKILL)
    assert refused.wait(WAIT_S)
    assert not client.is_alive
    with pytest.raises(WriterDied):
        client.call("ping", timeout_s=WAIT_S)
    may_start.set()
    give_up_at = time.monotonic() + WAIT_S
    while not client.is_alive and time.monotonic() < give_up_at:
        time.sleep(0.01)
    assert client.call("ping", timeout_s=WAIT_S)
    assert waits == list(range(1, len(waits) + 1))


def test_starts_are_spaced_further_and_further() -> None:
    assert [client_module._wait_s(deaths) for deaths in (1, 2, 3, 4, 5, 8, 1000)] == [0, 0, 1, 2, 4, 30, 30]
