"""Taking examples in: from a request's body to items that are stored, whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, cast

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from clearspan.api.auth import principal_of
from clearspan.api.bodies import body_limits
from clearspan.api.intake import encoding_of, ingest_limits, is_large
from clearspan.api.langsmith.example_bodies import ExampleBody
from clearspan.api.langsmith.example_views import BASE_SPLIT
from clearspan.api.langsmith.run_content import read_content
from clearspan.api.limits import read_body
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.items import Item, ItemChange, NewAttachment, NewItem
from clearspan.ingest.decompress import decompress
from clearspan.model.errors import InvalidInput, NotFound
from clearspan.model.trace import Scope
from clearspan.store.spans import SpanReader, SpanRow

T = TypeVar("T")
_NOTHING: Final = msgspec.Raw(b"{}")


async def take_examples(
    request: Request, read: Callable[[bytes], list[ExampleBody]], store: Callable[[list[ExampleBody]], Awaitable[T]]
) -> T:
    """Read a body of examples and store them. Its bytes count as ingest's do, until they are stored.

    Raises:
        InvalidInput, PayloadTooLarge, UnsupportedMedia, RequestTimeout: the body. Overloaded: the queue is full.
        Nothing was stored.
    """
    services = services_of(request)
    encoding, limits = encoding_of(request), ingest_limits(services.settings)
    with services.gateway.reserve() as reservation:
        body = await read_body(request, body_limits(services.settings), reservation)

        def unpack() -> tuple[int, list[ExampleBody]]:
            unpacked = decompress(body, encoding, limits)
            return len(unpacked), read(unpacked)

        size, bodies = await services.gateway.decode(is_large(body, encoding), unpack)
        reservation.grow_to(size)
        return await store(bodies)


async def add_examples(request: Request, dataset: Dataset, bodies: Sequence[ExampleBody]) -> list[Item]:
    """Store new examples.

    Raises:
        InvalidInput: one does not fit the dataset's schema, or says nothing. NotFound: a source run, where its text is
        asked for. Conflict: an id is taken, or was deleted. Nothing was stored.
    """
    services, principal = services_of(request), principal_of(request)
    new = await services.reads.run(_new_items, services, principal, bodies)
    return await services.items.add(principal.key_id, dataset, new)


async def change_examples(request: Request, dataset: Dataset, bodies: Sequence[ExampleBody]) -> list[Item]:
    """Write a new version of each. Raises NotFound, InvalidInput: nothing was changed."""
    changes = [_change(each) for each in bodies]
    return await services_of(request).items.update(dataset, changes, principal_key=principal_of(request).key_id)


def check_dataset_said(dataset: Dataset, bodies: Sequence[ExampleBody]) -> None:
    """Raise InvalidInput for an example that names another dataset than its request."""
    for number, each in enumerate(bodies):
        if each.dataset_uuid not in (None, dataset.uuid):
            raise InvalidInput(
                f"Example {number} names another dataset; nothing was stored.", fields=(f"{number}.dataset_id",)
            )


def _new_items(services: Services, principal: Principal, bodies: Sequence[ExampleBody]) -> list[NewItem]:
    return [_new_item(services, principal, each, number) for number, each in enumerate(bodies)]


def _new_item(services: Services, principal: Principal, body: ExampleBody, number: int) -> NewItem:
    inputs, outputs, files = body.inputs, body.outputs, list(body.attachments)
    if body.from_run or body.run_attachments:
        row = _source_run(services, principal, body, number)
        if body.from_run:
            told = read_content(row.detail)
            inputs = told.inputs if inputs is None else inputs
            outputs = told.outputs if outputs is None else outputs
        own = {each.name for each in files}
        files += [_file_of(services, row, name) for name in body.run_attachments if name not in own]
    if inputs is None and not files and outputs is None:
        raise InvalidInput(f"Example {number} has no inputs.", fields=(f"{number}.inputs",))
    return NewItem(
        inputs=_NOTHING if inputs is None else inputs,
        outputs=outputs,
        metadata={} if body.metadata is None else body.metadata,
        splits=body.splits or (BASE_SPLIT,),
        id=body.id,
        source_run_id=body.source_run_id,
        created_ns=body.created_ns,
        attachments=tuple(files),
    )


def _change(body: ExampleBody) -> ItemChange:
    if body.id is None:
        raise InvalidInput("An example that is changed is named by its id.", fields=("id",))
    return ItemChange(
        id=body.id,
        inputs=UNSET if body.inputs is None else body.inputs,
        outputs=UNSET if body.outputs is None else body.outputs,
        metadata=UNSET if body.metadata is None else body.metadata,
        splits=UNSET if body.splits is None else body.splits,
        attachments=body.attachments,
        kept=body.kept,
    )


def _source_run(services: Services, principal: Principal, body: ExampleBody, number: int) -> SpanRow:
    """The run that an example is made from, of several copies the newest. Raises InvalidInput, NotFound."""
    if body.source_run_id is None:
        raise InvalidInput(f"Example {number}: the source run is not named.", fields=(f"{number}.source_run_id",))
    found = cast(SpanReader, services.reader).find_spans(principal.scope_for_read(), [body.source_run_id])
    if not found:
        raise NotFound(f"Example {number}: its source run was not found; nothing was stored.")
    return found[-1]


def _file_of(services: Services, row: SpanRow, name: str) -> NewAttachment:
    spans = cast(SpanReader, services.reader)
    found = spans.read_attachment(
        Scope((row.trace.project_id,)), row.trace.summary.trace_id, row.detail.span.span_id, name
    )
    if found is None:
        raise NotFound(f"The source run has no attachment {name[:100]!r}; nothing was stored.")
    info, pieces = found
    return NewAttachment(name, info.mime_type, b"".join(pieces))
