"""The writer process dies under its client: every call is answered or fails at once, none waits for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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
