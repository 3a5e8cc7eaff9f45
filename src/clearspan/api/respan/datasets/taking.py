"""Rows of a dataset from traces, and from another dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from starlette.requests import Request

from clearspan.api.bodies import check_members
from clearspan.api.respan.convert import Json
from clearspan.api.respan.filters import parse_filters
from clearspan.api.respan.window import open_window
from clearspan.api.services import Services
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.importing import Imported, Selected, items_from_traces
from clearspan.experiments.item_reading import ItemPart
from clearspan.experiments.items import Item, NewAttachment, NewItem
from clearspan.model.errors import InvalidInput
from clearspan.model.trace import Window
from clearspan.query.ast import Expr

_IMPORTS: Final = frozenset({
    "filters", "operator", "start_time", "end_time", "sampling_percentage", "trace_ids",
})  # fmt: skip
WITH_TRACES: Final = frozenset({"initial_log_filters", "operator", "start_time", "end_time", "sampling", "trace_ids"})
"""What the body that makes a dataset may say about traces that come with it."""
_AT_ONCE: Final = 100
_HUNDRED: Final = 100


class ImportSaid(NamedTuple):
    """Which traces a body asks to be imported."""

    where: Expr | None
    window: Window
    percent: int
    trace_ids: list[str] | None = None


def read_import(request: Request, body: Mapping[str, Any], *, is_required: bool = True) -> ImportSaid | None:
    """The traces that a body names: by window, filters and percentage, or (ours) by `trace_ids`.

    Args:
        is_required: the body is about an import; otherwise None stands for one that asks for none.
    Raises:
        InvalidInput, InvalidFilter, InvalidTime: naming the key.
    """
    if is_required:  # a mistyped filter would import everything
        check_members(body, _IMPORTS, "an import")
    filters = body.get("filters" if is_required else "initial_log_filters")
    times = [body.get(key) for key in ("start_time", "end_time")]
    trace_ids = body.get("trace_ids")
    if not is_required and not filters and not any(times) and trace_ids is None:
        return None
    for key, each in zip(("start_time", "end_time"), times, strict=True):
        if each is not None and not isinstance(each, str):
            raise InvalidInput(f"{key} must be a time.", fields=(key,))
        if each is None and trace_ids is None:
            raise InvalidInput(f"{key} is required: say from when to when traces are imported.", fields=(key,))
    if trace_ids is not None and not (isinstance(trace_ids, list) and all(isinstance(each, str) for each in trace_ids)):
        raise InvalidInput("trace_ids is a list of ids.", fields=("trace_ids",))
    where = parse_filters(filters, body.get("operator"), fields="list")
    percent = body.get("sampling_percentage" if is_required else "sampling")
    if percent is None:
        percent = _HUNDRED
    if isinstance(percent, bool) or not isinstance(percent, int) or not 1 <= percent <= _HUNDRED:
        raise InvalidInput("sampling is a whole number from 1 to 100.", fields=("sampling_percentage",))
    window = open_window(*times).window
    return ImportSaid(where, window, percent, trace_ids)


async def import_said(services: Services, principal: Principal, dataset: Dataset, said: ImportSaid) -> Json:
    """Import those traces, and what became of them for the answer.

    Raises:
        InvalidInput: too many traces match; nothing was imported.
    """
    selected = Selected(principal.scope_for_read(), said.trace_ids, said.where, said.window, said.percent)
    found = await items_from_traces(services.items, services.reader, dataset, selected, principal_key=principal.key_id)
    return _told(found)


def _told(found: Imported) -> Json:
    notes = [f"Imported {len(found.added)} of {found.matched} matching traces"]
    for count, what in (
        (found.left_out, "left out by the sampling"),
        (found.known, "in the dataset already"),
        (found.unfit, f"could not be taken ({found.reason})"),
        (found.deleted, "deleted meanwhile"),
    ):
        if count:
            notes.append(f"{count} {what}")
    return {
        "message": "; ".join(notes),
        "matched_count": found.matched,
        "imported_count": len(found.added),
        "known_count": found.known,
        "sampled_out_count": found.left_out,
        "unfit_count": found.unfit,
        "deleted_count": found.deleted,
    }


async def copy_items(services: Services, principal: Principal, source: Dataset, made: Dataset) -> None:
    """The present items of one dataset as new items of another, links to their traces included."""
    as_of_ns = services.clock.now_ns()
    page: ItemPart | None = None
    while page is None or page.after is not None:
        after = None if page is None else page.after
        page = await services.reads.run(services.items.part, source, as_of_ns=as_of_ns, after=after, limit=_AT_ONCE)
        new = [await services.reads.run(_copy, services, source, item) for item in page.items if not item.redacted]
        if new:
            await services.items.add(principal.key_id, made, new)


def _copy(services: Services, source: Dataset, item: Item) -> NewItem:
    files = [services.items.read_attachment(source, item, each.name) for each in item.attachments]
    return NewItem(
        inputs=item.raw("inputs"),
        outputs=item.raw("outputs"),
        metadata=item.raw("metadata"),
        observed=item.raw("observed"),
        metrics=item.raw("metrics"),
        splits=item.splits,
        source_run_id=item.source_run_id,
        created_ns=item.created_ns,
        attachments=[NewAttachment(each.name, each.mime_type, each.data) for each in files],
    )
