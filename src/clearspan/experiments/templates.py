"""`{{name}}` in the texts of a prompt: a look-up and nothing else. No expression, loop, call or attribute exists.

A name is `input`, `output`, `expected_output` or `metadata`, or a key of the item's inputs; dots go down into objects
and lists (`{{input.question}}`, `{{messages.0.content}}`). A text is put in as it is, anything else as JSON. What is
put in is not looked through again: `{{…}}` inside an item is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from clearspan.model.errors import InvalidInput

_PLACE: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_NAME: Final = re.compile(r"[^\s{}|()\[\]#/^>&!=]+(?: [^\s{}|()\[\]#/^>&!=]+)*")
MISSING: Final = object()
"""What `look_up` finds where there is nothing: null is a value."""


class UnknownName(InvalidInput):
    """A template names something that this item does not have."""

    code = "template_name_unknown"


def check_template(text: str) -> None:
    """Raises InvalidInput unless every `{{…}}` holds a plain name."""
    for place in _PLACE.finditer(text):
        if not _NAME.fullmatch(place[1]):
            raise InvalidInput("holds `{{…}}` with something else than a name in it")


def render_template(text: str, values: Mapping[str, Any]) -> str:
    """The text with every name replaced.

    Raises:
        UnknownName: for a name without a value. An empty text in its place would ask the model something else.
    """

    def value_of(place: re.Match[str]) -> str:
        found = look_up(values, place[1])
        if found is MISSING:
            raise UnknownName(f"the template names `{place[1][:100]}`, which this item does not have")
        return as_text(found)

    return _PLACE.sub(value_of, text)


def look_up(values: Any, path: str) -> Any:
    """What lies at a dotted path in objects and lists; MISSING when nothing does. A key with dots in it comes first."""
    if isinstance(values, Mapping) and path in values:
        return values[path]
    head, dot, rest = path.partition(".")
    if isinstance(values, Mapping):
        found = values.get(head, MISSING)
    elif isinstance(values, list) and head.isascii() and head.isdigit() and len(head) < 10 and int(head) < len(values):
        found = values[int(head)]
    else:
        found = MISSING
    return found if found is MISSING or not dot else look_up(found, rest)


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
