"""The text of LangSmith's filters: `op(arg, …)` → calls, names and values. What they mean is grammar.py's business.

    call   = name "(" [ arg { "," arg } ] ")"
    arg    = call | name | text | number | "null" | "true" | "false" | "[" [ arg { "," arg } ] "]"
    text   = "…" or '…'; a backslash stands before either quote, itself, /, b f n r t, or uXXXX

White space may stand anywhere outside of texts.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn, TypeAlias

from clearspan.model.errors import InvalidFilter

LENGTH_MAX: Final = 400_000
DEPTH_MAX: Final = 20
CALLS_MAX: Final = 500
VALUES_MAX: Final = 10_000
_DIGITS_MAX: Final = 400

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_.]*)|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?)"
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<mark>[()\[\],])|(?P<end>\Z))""",
    re.ASCII | re.DOTALL,
)
_CONSTANTS: Final = {"null": None, "true": True, "false": False, "None": None, "True": True, "False": False}
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\", "/": "/"}


@dataclass(frozen=True, slots=True)
class Name:
    """A word that stands for a field."""

    word: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator with its arguments."""

    operator: str
    args: tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """A list of values."""

    items: tuple[Arg, ...]


Scalar: TypeAlias = str | Decimal | bool | None
Arg: TypeAlias = Call | Name | Array | Scalar


def parse_text(text: str, param: str) -> Call:
    """The call that a filter is.

    Args:
        param: the request's name of it, for errors.
    Raises:
        InvalidFilter: not of the form, too long, too deep or too much; the message tells where. `.fields` is `param`.
    Cost: O(length).
    """
    return _Parser(text, param).whole()


class _Parser:
    def __init__(self, text: str, param: str) -> None:
        self._text = text
        self._param = param
        self._at = 0
        self._calls = self._values = 0
        if len(text) > LENGTH_MAX:
            self._refuse(f"it has {len(text)} characters; at most {LENGTH_MAX} are read")

    def whole(self) -> Call:
        kind, word = self._next()
        if kind != "name":
            self._refuse(f'`op(arg, …)` is needed, such as eq(run_type, "llm"), not {_shown(word)}')
        call = self._arg(kind, word, 1)
        if not isinstance(call, Call):
            self._refuse(f'`op(arg, …)` is needed, such as eq(run_type, "llm"), not {_shown(word)}')
        kind, word = self._next()
        if kind != "end":
            self._refuse(f"{_shown(word)} follows the end of the filter; join several by and(…) or or(…)")
        return call

    def _arg(self, kind: str, word: str, depth: int) -> Arg:
        if depth > DEPTH_MAX:
            self._refuse(f"it nests deeper than {DEPTH_MAX} levels")
        if kind == "name":
            at = self._at
            if self._next() == ("mark", "("):
                self._calls += 1
                if self._calls > CALLS_MAX:
                    self._refuse(f"it has more than {CALLS_MAX} operators")
                return Call(word, self._args(")", depth))
            self._at = at
            return _CONSTANTS[word] if word in _CONSTANTS else Name(word)
        if kind == "text":
            return self._unquoted(word)
        if kind == "number":
            if len(word) > _DIGITS_MAX:
                self._refuse("a number is too long")
            return Decimal(word)
        if word == "[":
            return Array(self._args("]", depth))
        self._refuse(f"a field, a value or an operator is needed, not {_shown(word)}")

    def _args(self, close: str, depth: int) -> tuple[Arg, ...]:
        found: list[Arg] = []
        kind, word = self._next()
        if word == close and kind == "mark":
            return ()
        while True:
            self._values += 1
            if self._values > VALUES_MAX:
                self._refuse(f"it has more than {VALUES_MAX} values")
            found.append(self._arg(kind, word, depth + 1))
            kind, word = self._next()
            if (kind, word) == ("mark", close):
                return tuple(found)
            if (kind, word) != ("mark", ","):
                self._refuse(f"`,` or `{close}` is needed, not {_shown(word)}")
            kind, word = self._next()

    def _next(self) -> tuple[str, str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            rest = self._text[self._at :].lstrip()
            self._at = len(self._text) - len(rest)
            what = "a text without its closing quote" if rest[0] in "\"'" else _shown(rest[0])
            self._refuse(f"{what} is not understood")
        self._at = found.end()
        assert found.lastgroup is not None
        return found.lastgroup, found[found.lastgroup]

    def _unquoted(self, quoted: str) -> str:
        def char(match: re.Match[str]) -> str:
            what = match[1]
            if len(what) == 5:
                return chr(int(what[1:], 16))
            if what not in _ESCAPED:
                self._refuse(f"the escape {_shown(match[0])} is not understood; a backslash itself is written twice")
            return _ESCAPED[what]

        text = _ESCAPE.sub(char, quoted[1:-1]) if "\\" in quoted else quoted[1:-1]
        try:
            # Two escapes may be the halves of one character.
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeError:
            self._refuse("a text is not valid Unicode")

    def _refuse(self, why: str) -> NoReturn:
        at = f" (at character {self._at})" if self._at else ""
        raise InvalidFilter(f"`{self._param}` is not a filter{at}: {why}", fields=(self._param,))


def _shown(word: str) -> str:
    if not word:
        return "the end"
    return json.dumps(word if len(word) <= 40 else f"{word[:39]}…")
