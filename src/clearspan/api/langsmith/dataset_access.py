"""Which datasets a key may touch, and which of their versions a request means."""

from __future__ import annotations

from clearspan.api.langsmith.inputs import read_uuid
from clearspan.api.respan.window import parse_time
from clearspan.api.services import Services
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset
from clearspan.model.errors import InvalidInput, NotFound, NotPermitted

LATEST = "latest"
"""The tag that means the newest version, whatever it is."""


def check_may_use_datasets(principal: Principal) -> None:
    """Raise NotPermitted for a key with bounds: a dataset is the organisation's, and may hold anybody's traces."""
    if principal.bound:
        raise NotPermitted("This API key is bound to projects; datasets belong to the whole organisation.")
    if principal.environment is not None:
        raise NotPermitted("This API key is limited to an environment; datasets may hold others.")


def find_dataset(services: Services, principal: Principal, uuid: str) -> Dataset:
    """The dataset of a UUID (32 hex digits). Blocks.

    Raises:
        NotFound: there is none in the key's organisation. NotPermitted: the key has bounds.
    """
    check_may_use_datasets(principal)
    found = services.catalog.datasets.find(principal.org_id, uuid)
    if found is None:
        raise NotFound("Dataset not found")  # clients look for these words
    return found


def dataset_of(services: Services, principal: Principal, written: object, name: str = "dataset_id") -> Dataset:
    """The dataset that a text names by its UUID. Blocks. Raises InvalidInput, NotFound, NotPermitted."""
    return find_dataset(services, principal, read_uuid(written, name))


def as_of_ns(dataset: Dataset, said: str | None, name: str = "as_of") -> int | None:
    """The time as of which a dataset is asked for; None: as it is now.

    Args:
        said: a time, the tag of a version, or nothing.
    Raises:
        NotFound: the dataset has no such tag.
    """
    if not said or said == LATEST:
        return None
    tagged = (dataset.tags or {}).get(said)
    if tagged is not None:
        return tagged
    try:
        return parse_time(said, name)
    except InvalidInput:
        raise NotFound(f"{name}: the dataset has no version of that tag, and it is no time.") from None
