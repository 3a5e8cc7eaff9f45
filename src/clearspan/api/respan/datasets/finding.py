"""Which dataset and which of its items a request means, and whether its key may touch them."""

from __future__ import annotations

from uuid import UUID

from starlette.requests import Request

from clearspan.api.auth import principal_of
from clearspan.api.respan.window import parse_time
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.items import Item
from clearspan.model.errors import NotFound, NotPermitted


def check_may_use_datasets(principal: Principal) -> None:
    """Raise NotPermitted for a key with bounds: a dataset is the organisation's, and may hold anybody's traces."""
    if principal.bound:
        raise NotPermitted("This API key is bound to projects; datasets belong to the whole organisation.")
    if principal.environment is not None:
        raise NotPermitted("This API key is limited to an environment; datasets may hold others.")


async def dataset_in_path(request: Request) -> Dataset:
    """The dataset that the path names. Raises NotFound, NotPermitted."""
    services, principal = services_of(request), principal_of(request)
    return await services.reads.run(find_dataset, services, principal, request.path_params["dataset_id"])


def find_dataset(services: Services, principal: Principal, dataset_id: str) -> Dataset:
    """The dataset of an id. Blocks.

    Raises:
        NotFound: there is none in the key's organisation. NotPermitted: the key has bounds.
    """
    uuid = uuid_hex(dataset_id)
    found = None if uuid is None else services.catalog.datasets.find(principal.org_id, uuid)
    if found is None:
        raise NotFound("No dataset was found under that id.")
    check_may_use_datasets(principal)
    return found


def find_item(services: Services, dataset: Dataset, item_id: str, as_of_ns: int | None = None) -> Item:
    """The item of an id, as it is now or was at a time. Blocks. Raises NotFound."""
    page = services.items.list(dataset, ids=[item_id], as_of_ns=as_of_ns, limit=1)
    if not page.items:
        raise NotFound("The dataset has no log of that id.")
    return page.items[0]


def as_of(request: Request) -> int | None:
    """The time as of which the query asks; None: now. Raises InvalidTime."""
    text = request.query_params.get("as_of")
    return parse_time(text, "as_of") if text else None


def uuid_hex(text: str) -> str | None:
    """32 hex digits of a UUID with or without dashes; None for anything else."""
    try:
        return UUID(text).hex
    except ValueError:
        return None


def uuid_text(hex32: str) -> str:
    """32 hex digits as a UUID with dashes."""
    return str(UUID(hex32))
