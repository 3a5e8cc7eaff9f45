"""`clearspan serve`: open the data directory, listen, print where and with which key, stop cleanly on a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from clearspan.api.app import create_app, make_gate
from clearspan.api.auth import Gate
from clearspan.api.logs import configure_logging
from clearspan.api.runtime import open_services
from clearspan.api.services import Services
from clearspan.catalog import Catalog, OwnerKey
from clearspan.model.errors import ClearspanError
from clearspan.settings import GRPC_PORT, Settings, check_bind, load_settings, unknown_variables

if TYPE_CHECKING:
    from clearspan.api.otlp.grpc_server import GrpcServer

BACKLOG = 1024
READS_END_S = 2.0
"""How long after the signal to stop a list may go on; it is refused then, and may be asked again after the restart."""
GRPC_END_S = 5.0
"""How long after the signal calls over gRPC may go on, such as one whose message is still on its way."""
SWITCH_S = 0.0005
"""How long a thread may hold the interpreter lock while another wants it. The default of 5 ms is paid for every row
that a reader steps over and every piece that is sent to the writer while a large body is being decoded."""
GC_THRESHOLDS = (20_000, 20, 20)
"""Decoding a body makes thousands of tuples and no cycle. The default of 700 costs a twentieth of the time."""
_log = logging.getLogger("clearspan.serve")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port for HTTP; 0 takes a free one.", show_default="8321")] = None,
    grpc_port: Annotated[
        str | None,
        typer.Option(help="Port for OTLP over gRPC, or `off`; `auto` is 4317 if that is free.", show_default="auto"),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data directory.", show_default="data")] = None,
    demo: Annotated[
        bool | None, typer.Option("--demo", help="Load recorded traces into a project named `demo`.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print address and key as one JSON object.")] = False,
) -> None:
    """Start the server. It stops on SIGTERM or Ctrl-C, after the requests at hand."""
    options = {"host": host, "port": port, "grpc_port": grpc_port, "data": data, "demo": demo}
    try:
        settings = load_settings(options, config=config)
        run(settings, as_json=as_json)
    except (ClearspanError, OSError, RuntimeError) as error:
        typer.echo(f"clearspan: {error}", err=True)
        raise typer.Exit(1) from None


def run(settings: Settings, *, as_json: bool = False) -> None:
    """Serve until a signal asks to stop.

    Raises:
        InvalidInput: a setting, or an address that others can reach while no key exists.
        DataDirectoryLocked: another server uses the data directory.
        OSError: the address is taken.
    """
    signal.signal(signal.SIGTERM, _stop_starting)
    sys.setswitchinterval(SWITCH_S)
    configure_logging(settings.log_level)
    for name in unknown_variables(os.environ):
        _log.warning("the environment variable %s sets nothing", name)
    with ExitStack() as stack:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        catalog = stack.enter_context(Catalog.open(settings.data))
        check_bind(settings.host, key_exists=settings.api_key is not None or catalog.has_valid_key())
        port = _free_port(settings.host, settings.port)
        services = stack.enter_context(open_services(settings, catalog))
        owner_key = catalog.ensure_owner_key(settings.api_key)
        base_url = url_of(settings.host, port)

        def announce(grpc_port: int | None) -> None:
            print(_announcement(base_url, owner_key, _grpc_address(settings, grpc_port), as_json=as_json), flush=True)
            if settings.demo:
                from clearspan.demo.show import start_demo  # rich: 70 ms and 8 MiB that others need not pay

                start_demo(url_of(settings.host, port, local=True), settings.data)

        # What is loaded by now stays: the collector need not walk it again and again in the middle of requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_listen(services, port, announce))


def _stop_starting(*_: object) -> NoReturn:
    raise SystemExit(0)


async def _listen(services: Services, port: int, on_listening: Callable[[int | None], None]) -> None:
    """Serve in this process and loop until SIGTERM or SIGINT; running requests are answered first.

    Args:
        on_listening: told the port for gRPC; None: there is none.

    Embedded rather than with Granian's own worker process: one process less (25 MiB), and signals, the writer
    process and the threads of this process have one owner.
    """
    from granian.constants import Interfaces
    from granian.server.embed import Server

    settings, gate = services.settings, make_gate(services)
    grpc_server, grpc_port = await _listen_grpc(services, gate)
    server = Server(
        cast(Any, create_app(services, gate)),
        address=settings.host,
        port=port,
        interface=Interfaces.ASGINL,
        backlog=BACKLOG,
        backpressure=settings.connections_max,
        websockets=False,
        log_enabled=False,
    )

    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []
    await services.runner.begin()

    def stop() -> None:
        services.end_reads(READS_END_S)
        server.stop()  # type: ignore[no-untyped-call]
        stopping.append(loop.create_task(services.runner.close()))
        if grpc_server is not None:
            stopping.append(loop.create_task(grpc_server.stop(GRPC_END_S)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    server.on_startup(lambda: on_listening(grpc_port))
    try:
        await server.serve()
    finally:
        await asyncio.gather(*stopping)


async def _listen_grpc(services: Services, gate: Gate) -> tuple[GrpcServer | None, int | None]:
    """(the listener, its port); none when it is off, or when nobody asked for it and the port is taken.

    Raises:
        OSError: a port that was asked for is taken.
    """
    asked = services.settings.grpc_port
    if asked is None:
        return None, None
    from clearspan.api.otlp.grpc_server import GrpcServer, PortTaken  # 16 MiB that those without it need not pay

    server = GrpcServer(services, gate, services.settings.host, GRPC_PORT if asked == "auto" else asked)
    try:
        return server, await server.start()
    except PortTaken as error:
        if asked != "auto":
            raise OSError(f"{error}. Choose another with --grpc-port, or `off`.") from None
        _log.warning("OTLP over gRPC is off: port %d is taken", GRPC_PORT)
        return None, None


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def url_of(host: str, port: int, *, local: bool = False) -> str:
    """The server's address as a URL.

    Args:
        local: as a client of this machine reaches it, also when the server listens on every address.
    """
    if local and host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _free_port(host: str, port: int) -> int:
    """`port` if nobody listens on it; any free one for 0.

    Granian sets SO_REUSEPORT: without this a second server would share the address, and requests, with the first.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        return int(probe.getsockname()[1])


def _grpc_address(settings: Settings, port: int | None) -> str | None:
    return None if port is None else url_of(settings.host, port).removeprefix("http://")


def _announcement(base_url: str, owner_key: OwnerKey, grpc_address: str | None, *, as_json: bool) -> str:
    if as_json:
        import json

        path = None if owner_key.path is None else str(owner_key.path)
        return json.dumps({"url": base_url, "grpc": grpc_address, "key": owner_key.secret, "key_file": path})
    lines = [f"Clearspan listens on {base_url}"]
    if grpc_address is not None:
        lines.append(f"OTLP/gRPC on {grpc_address}")
    if owner_key.secret:
        lines += [
            f"API key   {owner_key.secret}",
            f"          shown this once; also in {owner_key.path}, readable by you only",
        ]
    elif owner_key.path is not None:
        lines.append(f"API key   in {owner_key.path}")
    return "\n".join(lines)
