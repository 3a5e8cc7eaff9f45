"""Exports: a job that is ready at once, and a signed link that streams what is in the store when it is used.

No copy is made that a deletion would have to find (docs/adr/0024-exports-are-streams.md). The id of a job is its link:
experiment, filter, window and end of life, signed. Nothing is kept of it here.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.errors import dump_json
from clearspan.api.respan.convert import Json, Owner
from clearspan.api.respan.experiments.finding import Evaluators, find_experiment, results_of, scope_of
from clearspan.api.respan.experiments.requests import Asked, expected_outputs
from clearspan.api.respan.experiments.views import ResultView, shown_id
from clearspan.api.respan.paging import base_url
from clearspan.api.respan.traces import json_response
from clearspan.api.respan.window import render_time
from clearspan.api.services import Services, services_of
from clearspan.catalog.datasets import Dataset
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.exports import Format, Row, new_table
from clearspan.model.errors import InvalidInput, NotFound, NotPermitted
from clearspan.model.trace import Scope, Window
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.store.sessions import TracePosition

DOWNLOAD: Final = "/api/v2/experiments/exports"
TOKEN_CHARS_MAX: Final = 6_000
"""A longer one would not fit into an address everywhere."""
_MAC_BYTES: Final = 32
_NS_PER_S: Final = 10**9
_ROWS_AT_ONCE: Final = 20


class Export(NamedTuple):
    """What an export's id stands for."""

    org_id: int
    project_id: int
    environment: str | None  # of the key that asked: what it may not see the export does not show
    with_expected: bool  # whether that key may see datasets
    where: Any  # query.codec.encode_expr
    start_ns: int | None
    end_ns: int | None
    expires_s: int  # Unix

    @property
    def scope(self) -> Scope:
        """Where its results are."""
        return Scope((self.project_id,), self.environment)

    @property
    def window(self) -> Window:
        """When they started."""
        return Window(self.start_ns, self.end_ns)


def sign(secret: bytes, export: Export) -> str:
    """The id of an export."""
    said = orjson.dumps(tuple(export))
    return urlsafe_b64encode(_mac(secret, said) + said).decode().rstrip("=")


def open_export(secret: bytes, export_id: str) -> Export:
    """The export of an id. Raises NotFound when it was not signed here."""
    try:
        raw = urlsafe_b64decode(export_id[:TOKEN_CHARS_MAX].encode("ascii") + b"=" * (-len(export_id) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    mac, said = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, said)):
        raise NotFound("No export was found under that id.")
    return Export(*orjson.loads(said))


def _mac(secret: bytes, said: bytes) -> bytes:
    # The leading word keeps these apart from the secret's other hashes: attachments, shares, tombstones.
    return hmac.digest(secret, b"experiment export\0" + said, "sha256")


async def begin_export(request: Request, asked: Asked) -> Response:
    """202: the export of what was asked for, with the address to fetch it from. No traces: pagers end here."""
    services, principal = asked.services, asked.principal
    format = read_format(request.query_params)
    export = Export(
        org_id=principal.org_id,
        project_id=asked.experiment.project_id,
        environment=asked.scope.environment,
        with_expected=principal.is_whole,
        where=encode_expr(asked.where),
        start_ns=asked.window.window.start_ns,
        end_ns=asked.window.window.end_ns,
        expires_s=services.clock.now_ns() // _NS_PER_S + services.settings.attachment_link_s,
    )
    export_id = sign(services.catalog.tombstone_secret, export)
    if len(export_id) > TOKEN_CHARS_MAX:
        raise InvalidInput("These filters are too long for the address of an export.", fields=("filters",))
    job = await services.reads.run(_job, request, services, asked.experiment, export, export_id, format)
    told = job | {"results": [], "next": None, "previous": None, "current_filters": asked.filters}
    headers = {"Location": job["status_url"]}
    return Response(dump_json(told), status_code=202, headers=headers, media_type="application/json")


@requires(Permission.READ)
async def read_export(request: Request) -> Response:
    """How an export stands: `ready`, or `expired`. The count is of now: deletions since then are honoured."""
    services, principal = services_of(request), principal_of(request)
    export_id = str(request.path_params["export_id"])
    format = read_format(request.query_params)

    def read() -> Json:
        experiment = find_experiment(services, principal, str(request.path_params["experiment_id"]))
        export = open_export(services.catalog.tombstone_secret, export_id)
        is_theirs = scope_of(principal, experiment) == export.scope and export.org_id == principal.org_id
        if not is_theirs:
            raise NotFound("No export was found under that id.")
        return _job(request, services, experiment, export, export_id, format)

    return json_response(await services.reads.run(read))


@requires(Permission.PUBLIC)
async def download_export(request: Request) -> Response:
    """The traces of an export as JSON Lines, CSV or Parquet (`format`); the link is its own key.

    They are read while they are sent, the oldest first: what is deleted meanwhile is not in it.
    """
    services = services_of(request)
    export = open_export(services.catalog.tombstone_secret, str(request.path_params["export_id"]))
    format = read_format(request.query_params)
    if services.clock.now_ns() >= export.expires_s * _NS_PER_S:
        raise NotPermitted("This link has expired; ask for the export again.")
    stream = _Stream(services, export)
    table = new_table(format)
    first = await services.reads.run(stream.next)

    async def pieces() -> AsyncIterator[bytes]:
        yield table.begin()
        rows = first
        while rows is not None:
            yield await services.reads.run(table.rows, rows)
            rows = await services.reads.run(stream.next)
        yield await services.reads.run(table.end)

    headers = {
        "Content-Disposition": f'attachment; filename="experiment.{format}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-store",
        "X-Robots-Tag": "noindex",
    }
    return StreamingResponse(pieces(), headers=headers, media_type=format.media_type)


def read_format(query: QueryParams) -> Format:
    """The `format` of a query; JSON Lines if it says none. Raises InvalidInput."""
    text = query.get("format") or Format.JSONL
    if text not in tuple(Format):
        raise InvalidInput(f"format is one of {', '.join(Format)}.", fields=("format",))
    return Format(text)


class _Stream:
    """The rows of an export, some at a time. Blocks."""

    def __init__(self, services: Services, export: Export) -> None:
        self._services = services
        self._export = export
        self._where = decode_expr(export.where)
        self._after: TracePosition | None = None
        self._is_over = False

    def next(self) -> list[Row] | None:
        """The next rows; None when there are no more.

        Raises:
            NotFound: the experiment is gone, or going: a table that was begun stays without its end.
        """
        if self._is_over:
            return None
        experiment, dataset, evaluators = self._around()
        export, results = self._export, results_of(self._services)
        found = results.step(export.scope, self._where, export.window, self._after, _ROWS_AT_ONCE)
        self._after = found.after
        self._is_over = found.after is None
        loaded = results.load(found.rows, bytes_max=None)
        expected = expected_outputs(self._services, experiment, dataset, loaded)
        view = ResultView(Owner("", ""), evaluators, expected)
        return [view.render(each) for each in loaded]

    def _around(self) -> tuple[Experiment, Dataset | None, Evaluators]:
        catalog, export = self._services.catalog, self._export
        experiment = catalog.experiments.of_project(export.project_id)
        if experiment is None:
            raise NotFound("No export was found under that id.")
        dataset = catalog.datasets.find(export.org_id, experiment.dataset_uuid) if export.with_expected else None
        return experiment, dataset, Evaluators(catalog.evaluators.listed(export.org_id))


def _job(
    request: Request, services: Services, experiment: Experiment, export: Export, export_id: str, format: Format
) -> Json:
    """An export as a job."""
    count = services.reader.count_traces(export.scope, decode_expr(export.where), export.window)
    is_ready = services.clock.now_ns() < export.expires_s * _NS_PER_S
    root = base_url(request)
    address = f"{root}{DOWNLOAD}/{export_id}/"
    message = "The export is ready: fetch download_url." if is_ready else "The link has expired: ask for it again."
    return {
        "message": message,
        "export_id": export_id,
        "status": "ready" if is_ready else "expired",
        "format": str(format),
        "count": count,
        "expires_at": render_time(export.expires_s * _NS_PER_S),
        "download_url": f"{address}?format={format}",
        "download_urls": {str(each): f"{address}?format={each}" for each in Format},
        "status_url": f"{root}/api/v2/experiments/{shown_id(experiment)}/exports/{export_id}/",
    }
