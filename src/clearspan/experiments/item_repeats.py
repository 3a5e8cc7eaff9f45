"""Whether an item that is sent is one that is there already: its sender may have lost the answer to an earlier request.

What was sent is compared with the first version, since that is what the earlier request made: a change that somebody
made in between does not turn the repeat into another item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from clearspan.experiments.item_documents import Item, NewAttachment, Version
from clearspan.model.span import Attachment

_NULL: Final = b"null"


def is_repeat(version: Version, files: Sequence[Attachment], old: Item, read: Callable[[str], NewAttachment]) -> bool:
    """Whether an item that is to be written is what the first version of its id says already.

    Values are compared by their JSON texts, attachments by name, type and bytes. When an item was created is not: a
    client whose caller says nothing about it says the present time, another one in each run of a script.

    Args:
        old: the first version.
        read: an attachment of `old` by its name; called only when all else is the same.
    """
    texts = {name: text for name, text in version.texts.items() if text != _NULL}
    is_same = (
        not old.redacted
        and texts == dict(old.texts)
        and version.splits == old.splits
        and version.source_run_id == old.source_run_id
    )
    sent = sorted((each.name, each.mime_type, len(each.data)) for each in files)
    return (
        is_same
        and sent == [tuple(each) for each in old.attachments]
        and all(read(each.name).data == each.data for each in files)
    )
