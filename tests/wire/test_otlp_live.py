"""A live server: slow and rude clients, a stop in the middle, what a start prints and refuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from clearspan.testing.live import LIVE_KEY, READY_S, SRC, Live, start_server, stop_server

BODY_S = 0.3
EMPTY_JSON = b'{"resourceSpans": []}'


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server = start_server(
        tmp_path_factory.mktemp("live") / "data",
        CLEARSPAN_BODY_FIRST_BYTE_S=str(BODY_S),
        CLEARSPAN_BODY_BYTES_PER_S_MIN="100000",
    )
    try:
        yield server
    finally:
        stop_server(server)


def connect(live: Live) -> socket.socket:
    address = urlsplit(live.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port or 80), timeout=READY_S)


def head(length: int, *more: str) -> bytes:
    lines = [
        "POST /v1/traces HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {LIVE_KEY}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def test_a_body_that_never_comes_is_cut_off(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(head(100))
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"arrived too slowly" in answer


def test_a_body_that_drips_is_cut_off(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(head(100_000) + b"{")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        answer = connection.recv(65_536)
        stop.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408")


def test_many_slow_clients_do_not_keep_a_good_one_waiting(live: Live) -> None:
    rude = [connect(live) for _ in range(50)]
    try:
        for n, connection in enumerate(rude):
            connection.sendall((head(1000), head(1000) + b"{", b"POST /v1/traces HT", b"")[n % 4])
        assert live.http.post("/v1/traces", content=EMPTY_JSON, headers={"Content-Type": "application/json"}).is_success
    finally:
        for connection in rude:
            connection.close()
    assert live.http.get("/readyz").status_code == 200


def test_a_body_over_the_limit_is_refused_before_it_is_sent(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(head(10**9))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_an_answer_before_the_body_was_read_says_that_the_connection_ends(live: Live) -> None:
    long, wrong = b" " * 200_000, {"Authorization": "Bearer cs_00000000_wrong"}
    for body, headers, status in ((long, wrong, 401), (iter([long, long]), wrong, 401), (long, {}, 405)):
        path = "/v1/traces" if status == 401 else "/healthz"
        refused = live.http.post(path, content=body, headers=headers)
        assert (refused.status_code, refused.headers.get("connection")) == (status, "close")
        # Over a connection of its own: httpx repeats nothing that was sent into a closed one.
        assert live.http.get("/readyz").status_code == 200
    for body, headers in ((long + EMPTY_JSON, {}), (EMPTY_JSON, wrong)):
        kept = live.http.post("/v1/traces", content=body, headers={"Content-Type": "application/json", **headers})
        assert "connection" not in kept.headers
        assert live.http.get("/readyz").status_code == 200


def test_a_client_that_waits_to_be_asked_is_asked(live: Live) -> None:
    with connect(live) as connection:
        connection.sendall(head(len(EMPTY_JSON), "Expect: 100-continue", "Connection: close"))
        assert connection.recv(25).startswith(b"HTTP/1.1 100")
        connection.sendall(EMPTY_JSON)
        assert b"HTTP/1.1 200" in answer_of(connection)


def test_a_chunked_body_is_taken(live: Live) -> None:
    sent = live.http.post(
        "/v1/traces", content=iter([EMPTY_JSON[:5], EMPTY_JSON[5:]]), headers={"Content-Type": "application/json"}
    )
    assert (sent.status_code, sent.json()) == (200, {})


def test_a_request_at_hand_is_answered_before_the_server_stops(tmp_path: Path) -> None:
    server = start_server(tmp_path / "data", CLEARSPAN_BODY_FIRST_BYTE_S="60")
    with connect(server) as connection:
        connection.sendall(head(len(EMPTY_JSON), "Connection: close") + EMPTY_JSON[:5])
        assert server.http.get("/healthz").status_code == 200
        server.process.terminate()
        connection.sendall(EMPTY_JSON[5:])
        answer = answer_of(connection)
    assert b"HTTP/1.1 200" in answer
    stop_server(server)


def serve(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A `clearspan serve` that is expected to refuse."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLEARSPAN_")}
    return subprocess.run(
        [sys.executable, "-m", "clearspan.cli.main", "serve", *options],
        env={**inherited, "PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
        timeout=READY_S,
    )


def test_what_a_start_refuses(live: Live, tmp_path: Path) -> None:
    port = str(urlsplit(live.url).port)
    taken = serve("--port", port, "--data", str(tmp_path / "a"))
    assert (taken.returncode, taken.stdout) == (1, "")
    assert "Address already in use" in taken.stderr
    open_to_all = serve("--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "b"))
    assert open_to_all.returncode == 1
    assert "Refusing to listen on 0.0.0.0" in open_to_all.stderr
    assert not (tmp_path / "b" / "owner-key").exists()


def test_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    inherited = {name: value for name, value in os.environ.items() if name != "CLEARSPAN_API_KEY"}
    printed = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "clearspan.cli.main", "serve", "--port", "0", "--data", str(data), "--json"],
            env={**inherited, "PYTHONPATH": str(SRC), "CLEARSPAN_GRPC_PORT": "off"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert process.stdout is not None
            printed.append(json.loads(process.stdout.readline()))
            process.terminate()
            assert process.wait(READY_S) == 0
    key_file = data / "owner-key"
    assert printed[0]["key"] == key_file.read_text().strip()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert printed[1]["key"] is None
    assert printed[1]["key_file"] == str(key_file)
