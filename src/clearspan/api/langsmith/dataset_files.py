"""Datasets as files: CSV and JSON lines out, CSV in. What goes out is read while it is sent, and never kept."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.langsmith.dataset_access import as_of_ns, check_may_use_datasets, find_dataset
from clearspan.api.langsmith.dataset_versions import newest_version
from clearspan.api.langsmith.dataset_views import DatasetFigures, render_dataset
from clearspan.api.langsmith.example_bodies import ExampleBody, check_count
from clearspan.api.langsmith.example_taking import add_examples, take_examples
from clearspan.api.langsmith.example_views import render_example
from clearspan.api.langsmith.inputs import path_uuid, read_uuid
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset, DatasetSettings
from clearspan.experiments.items import Item
from clearspan.ingest.multipart import boundary_of, split_multipart
from clearspan.model.errors import InvalidInput, PayloadTooLarge

_PAGE: Final = 500
_EXAMPLES_MAX: Final = 10_000_000
_LINE_FIELDS: Final = ("id", "inputs", "outputs", "metadata", "created_at", "modified_at", "source_run_id")
_encoder = msgspec.json.Encoder()


class _Upload(msgspec.Struct):
    """A form with a CSV file."""

    name: str
    uuid: str | None
    description: str | None
    data_type: str | None
    examples: list[ExampleBody]


@requires(Permission.READ)
async def export_jsonl(request: Request) -> Response:
    """A dataset as JSON lines, one example each; `as_of` as anywhere."""

    def lines(services: Services, dataset: Dataset, items: list[Item]) -> bytes:
        return b"".join(
            _encoder.encode(render_example(services, dataset, each, _LINE_FIELDS)) + b"\n" for each in items
        )

    return await _export(request, "jsonl", "application/jsonl", b"", lines)


@requires(Permission.READ)
async def export_csv(request: Request) -> Response:
    """A dataset as CSV: `id`, and inputs, outputs and metadata as JSON in a column each."""

    def lines(services: Services, dataset: Dataset, items: list[Item]) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out)
        for each in items:
            told = render_example(services, dataset, each, _LINE_FIELDS)
            texts = [_encoder.encode(told[name]).decode() for name in ("inputs", "outputs", "metadata")]
            writer.writerow([told["id"], *texts])
        return out.getvalue().encode()

    return await _export(request, "csv", "text/csv", b"id,inputs,outputs,metadata\r\n", lines)


@requires(Permission.INGEST)
async def upload_csv(request: Request) -> Response:
    """A new dataset from a CSV file: `input_keys` and `output_keys` name its columns."""
    services, principal = services_of(request), principal_of(request)
    check_may_use_datasets(principal)
    boundary = boundary_of(request.headers.get("content-type", ""))
    form: list[_Upload] = []

    def read(body: bytes) -> list[ExampleBody]:
        form.append(_read_form(body, boundary))
        return form[0].examples

    async def store(bodies: list[ExampleBody]) -> Response:
        dataset = await services.reads.run(_make, services, principal, form[0])
        items = await add_examples(request, dataset, bodies)
        return json_reply(render_dataset(dataset, DatasetFigures(len(items), 0, None), principal))

    return await take_examples(request, read, store)


async def _export(
    request: Request, ending: str, media_type: str, head: bytes, lines: Callable[[Services, Dataset, list[Item]], bytes]
) -> Response:
    services, principal = services_of(request), principal_of(request)
    dataset = await services.reads.run(find_dataset, services, principal, path_uuid(request, "dataset_id"))
    said_ns = as_of_ns(dataset, request.query_params.get("as_of"))
    at_ns = said_ns if said_ns is not None else await services.reads.run(newest_version, services, dataset)
    # By id: pages by number would skip an example for each one that is deleted while they are read.
    ids = await services.reads.run(services.items.list_ids, dataset, as_of_ns=at_ns, limit=_EXAMPLES_MAX)

    async def stream() -> AsyncIterator[bytes]:
        yield head
        parts = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)][::-1]
        while parts:
            part = parts.pop()
            try:
                page = await services.reads.run(services.items.list, dataset, ids=part, as_of_ns=at_ns, limit=_PAGE)
            except PayloadTooLarge:  # never of one example
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            else:
                yield lines(services, dataset, page.items)

    headers = {"Content-Disposition": f'attachment; filename="{dataset.uuid}.{ending}"', "Cache-Control": "no-store"}
    return StreamingResponse(stream(), headers=headers, media_type=media_type)


def _make(services: Services, principal: Principal, form: _Upload) -> Dataset:
    settings = DatasetSettings(description=form.description, data_type=form.data_type)
    return services.catalog.datasets.create(principal.org_id, form.name, uuid=form.uuid, settings=settings)


def _read_form(body: bytes, boundary: bytes) -> _Upload:
    said: dict[str, list[str]] = {}
    table: bytes | None = None
    for part in split_multipart(body, boundary):
        if part.fault is not None:
            raise InvalidInput(f"The part {part.name[:100]!r}: {part.fault}.", fields=(part.name[:100],))
        if part.name == "file":
            table = part.content
        else:
            said.setdefault(part.name, []).append(_text(part.content, part.name))
    if table is None:
        raise InvalidInput("file is required.", fields=("file",))
    inputs, outputs = said.get("input_keys", []), said.get("output_keys", [])
    if not inputs:
        raise InvalidInput("input_keys is required.", fields=("input_keys",))
    rows = csv.DictReader(io.StringIO(_text(table, "file"), newline=""))
    if missing := [each for each in (*inputs, *outputs) if each not in (rows.fieldnames or ())]:
        raise InvalidInput(f"The file has no column {missing[0][:100]!r}.", fields=("file",))
    try:
        examples = [
            ExampleBody(None, None, _columns(row, inputs), _columns(row, outputs) if outputs else None) for row in rows
        ]
    except csv.Error as error:
        raise InvalidInput(f"The file cannot be read as CSV: {error}.", fields=("file",)) from None
    check_count(len(examples))
    one = {name: values[0] for name, values in said.items()}
    return _Upload(
        name=one.get("name") or "Uploaded dataset",
        uuid=read_uuid(one["id"], "id") if one.get("id") else None,
        description=one.get("description"),
        data_type=one.get("data_type"),
        examples=examples,
    )


def _columns(row: dict[str, str], names: list[str]) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode({name: row[name] for name in names}))


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{name[:100]} is not UTF-8.", fields=(name[:100],)) from None


ROUTES: Final = (
    classic("POST", "/datasets/upload", upload_csv),
    classic("GET", "/datasets/{dataset_id}/csv", export_csv),
    classic("GET", "/datasets/{dataset_id}/jsonl", export_jsonl),
)
