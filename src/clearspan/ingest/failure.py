"""What went wrong in a span, in a form that equal failures share."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

_MESSAGE_CHARS: Final = 500
_VARIABLE: Final = re.compile(
    r"""0x[0-9a-fA-F]+                     # addresses
      | \b[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\b  # UUIDs
      | \b(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b  # other ids in hex
      | "[^"]*" | '[^']*' | `[^`]*`       # quoted names and values
      | \d+(?:[.,:]\d+)*                  # numbers, times, versions
    """,
    re.VERBOSE,
)


_NAMED: Final = re.compile(r"([A-Za-z_][\w.]*)\(")


def is_hidden_failure(is_traceable: bool | None, has_exception: bool) -> bool:
    """Whether a span whose status says `ok` failed all the same.

    LangSmith's JavaScript client (0.12.0) says `ok` when a run begins, which OpenTelemetry takes as the last word: the
    error that it says at the end is dropped. What it leaves is an exception event, which it records for nothing else.

    Args:
        is_traceable: `langsmith.traceable`, the mark of its own spans.
    """
    return bool(is_traceable) and has_exception


def specific_class(error_class: str | None, message: str | None) -> str | None:
    """The class of an error; where the source only says `Exception`, the one its message begins with.

    LangSmith reports `Exception` for everything and writes the repr, `RateLimitError('…')`, as the message.
    """
    if error_class == "Exception" and message and (named := _NAMED.match(message)):
        return named.group(1)
    return error_class


def error_fingerprint(error_class: str | None, message: str | None) -> str | None:
    """16 hex digits that are equal for errors of one class and message shape; None when nothing is known.

    The class counts without its package (`openai.RateLimitError` is `RateLimitError`), the message by its
    first line with digits, hex ids and quoted parts taken out.
    """
    if not error_class and not message:
        return None
    name = (error_class or "").rpartition(".")[2]
    first_line = (message or "").strip().partition("\n")[0][:_MESSAGE_CHARS]
    shape = " ".join(_VARIABLE.sub("?", first_line).split())
    text = f"{name}\n{shape}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=8).hexdigest()
