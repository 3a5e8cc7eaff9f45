"""A full disk must not stop deletions: they are what makes room. See `DeletionStore.make_room`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from clearspan.model.errors import ClearspanError
from clearspan.store.port import DeletionStore

T = TypeVar("T")

_CODES = frozenset({"disk_full"})


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error says that the file system has no space left, itself or through what caused it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, ClearspanError) and error.code in _CODES:
            return True
        if type(error).__name__ == "FullError" or "database or disk is full" in str(error):
            return True
        error = error.__cause__
    return False


def with_room(store: DeletionStore, action: Callable[[], T]) -> T:
    """Do something; should the disk be full, give up the reserve and do it once more."""
    try:
        return action()
    except Exception as error:
        if not is_disk_full(error) or not store.make_room():
            raise
    return action()
