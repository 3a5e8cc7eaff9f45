"""P1 and P2 under SIGKILL, for what was acknowledged over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from promises.plugin import PromiseFixture

from .live import KEY, Live
from .test_kill_ingest import SEED, Gone, Oracle, Send, one_round

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
CALL_S = 20


class GrpcOracle(Oracle):
    """Sends over gRPC, each client over a connection of its own."""

    @contextmanager
    def sender(self, live: Live) -> Iterator[Send]:
        assert live.grpc is not None
        with grpc.insecure_channel(live.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            export = channel.unary_unary(EXPORT)

            def send(body: bytes) -> bool:
                try:
                    export(body, metadata=[("authorization", f"Bearer {KEY}")], timeout=CALL_S)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.UNAVAILABLE and "queue" not in error.details():
                        raise Gone from None
                    return False
                return True

            yield send


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_server_keeps_what_it_acknowledged_over_grpc(
    tmp_path: Path, promise: PromiseFixture, rounds: int
) -> None:
    oracle, counter = GrpcOracle(), promise("P1", "F1")
    for number in range(rounds):
        with counter.run(f"grpc/{SEED + number}"):
            one_round(tmp_path / "data", oracle, SEED + number, grpc_port="0")
    acknowledged = sum(map(len, oracle.acknowledged.values()))
    assert acknowledged > 100 * rounds, "the load was too light to mean anything"
