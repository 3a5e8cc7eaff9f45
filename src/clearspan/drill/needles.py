"""Needles of one drill: 24 random bytes each, that begin and end with marks of the run.

The marks make one search do for all of them, and find a needle of which only the beginning or the end is left. A needle
is written in one of several forms; whatever it was written as, every form is looked for, because a store may keep an
id as bytes that came as text, or text escaped that came plain.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

NEEDLE_BYTES = 24
MARK_BYTES = 6
TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
FORMS = ("hex", "word", "base64", "cjk")
"""The forms that a text may be given in; ids are hex, bytes are bytes."""

_CJK = 0x4E00
_LETTERS = "abcdefghijklmnop"


class Needle(NamedTuple):
    """One needle, and where it was planted."""

    number: int  # of this run, from 0
    trace: int  # number of the trace it belongs to; -1: the request that deletes
    field: str  # where a client wrote it, such as `span.name`
    form: str
    value: bytes

    @property
    def text(self) -> str:
        """The needle as its form writes it."""
        return write(self.value, self.form)


class Marks(NamedTuple):
    """What every needle of one kind begins and ends with; random, so that it is nowhere else."""

    head: bytes
    tail: bytes


def write(value: bytes, form: str) -> str:
    """Bytes in one of FORMS."""
    match form:
        case "hex":
            return value.hex()
        case "word":
            return "".join(_LETTERS[byte >> 4] + _LETTERS[byte & 15] for byte in value)
        case "base64":
            return base64.b64encode(value).decode()
        case "cjk":
            return "".join(chr(_CJK + byte) for byte in value)
    raise ValueError(form)


class Maker:
    """Makes the needles of one kind and remembers each."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random = random_bytes
        self.marks = Marks(random_bytes(MARK_BYTES), random_bytes(MARK_BYTES))
        self.when = ""  # goes before the name of each field
        self.needles: list[Needle] = []

    def text(self, trace: int, field: str) -> str:
        """A new needle as text; forms take turns, so that over the traces each field is written in each."""
        number = len(self.needles)
        return self._make(trace, field, FORMS[(trace + number) % len(FORMS)]).text

    def raw(self, trace: int, field: str) -> bytes:
        """A new needle as bytes."""
        return self._make(trace, field, "bytes").value

    def word(self, trace: int, field: str) -> str:
        """A new needle of plain letters, where a client would hardly write anything else, such as a key."""
        return self._make(trace, field, "word").text

    def id(self, trace: int, field: str, size: int) -> bytes:
        """A new needle that has the size of an id: 16 bytes between the marks' ends, 8 after the head alone."""
        head, tail = self.marks
        if size == TRACE_ID_BYTES:
            inner = self._random(size - 2 * MARK_BYTES - 2) + len(self.needles).to_bytes(2, "big")
            value = head + inner + tail
        else:
            value = head + len(self.needles).to_bytes(size - MARK_BYTES, "big")
        return self._keep(Needle(len(self.needles), trace, field, "hex", value)).value

    def _make(self, trace: int, field: str, form: str) -> Needle:
        head, tail = self.marks
        inner = self._random(NEEDLE_BYTES - 2 * MARK_BYTES)
        return self._keep(Needle(len(self.needles), trace, field, form, head + inner + tail))

    def _keep(self, needle: Needle) -> Needle:
        needle = needle._replace(field=self.when + needle.field)
        self.needles.append(needle)
        return needle

    def wanted(self) -> Wanted:
        return Wanted(self.marks, [(needle.number, needle.value) for needle in self.needles])


class _Writing(NamedTuple):
    """One way bytes can lie in a file: how a mark and a whole value look there."""

    name: str
    encode: Callable[[bytes], bytes]


def _utf16(form: str, order: str) -> Callable[[bytes], bytes]:
    return lambda value: write(value, form).encode(f"utf-16-{order}")


def _escaped(upper: bool) -> Callable[[bytes], bytes]:
    def encode(value: bytes) -> bytes:
        return "".join(f"\\u{_CJK + byte:04{'X' if upper else 'x'}}" for byte in value).encode()

    return encode


_WRITINGS = (
    _Writing("bytes", bytes),
    _Writing("hex", lambda value: value.hex().encode()),
    _Writing("hex, upper case", lambda value: value.hex().upper().encode()),
    _Writing("word", lambda value: write(value, "word").encode()),
    _Writing("base64", base64.b64encode),
    _Writing("base64, URL-safe", base64.urlsafe_b64encode),
    _Writing("cjk", lambda value: write(value, "cjk").encode()),
    _Writing("cjk, JSON-escaped", _escaped(False)),
    _Writing("cjk, JSON-escaped, upper case", _escaped(True)),
    # JSON text inside a JSON text, as a client that dumps its messages into a field sends it.
    _Writing("cjk, JSON-escaped twice", lambda value: _escaped(False)(value).replace(b"\\", b"\\\\")),
    _Writing("cjk, percent-encoded", lambda value: quote(write(value, "cjk")).encode()),
    _Writing("hex, UTF-16", _utf16("hex", "le")),
    _Writing("word, UTF-16", _utf16("word", "le")),
    _Writing("cjk, UTF-16", _utf16("cjk", "le")),
)


class Wanted:
    """The needles of one kind as a `files.scan.Find` looks for them."""

    def __init__(self, marks: Marks, values: list[tuple[int, bytes]]) -> None:
        self.marks = marks
        self.values = values
        self._marks: list[tuple[bytes, str, bool]] = []
        self._whole: dict[bytes, int] = {}
        for writing in _WRITINGS:
            for part, is_head in ((marks.head, True), (marks.tail, False)):
                shape = (writing.encode(part), writing.name, is_head)
                if shape[0] not in [known for known, _, _ in self._marks]:
                    self._marks.append(shape)
            self._whole.update({writing.encode(value): number for number, value in values})
        self._sizes = sorted({len(shape) for shape in self._whole}, reverse=True)

    def find(self, data: bytes) -> Iterator[tuple[str, str]]:
        """(needle's number, writing) of each occurrence; `fragment` where only a piece of one is left.

        Cost: two dozen searches of the data, about 15 ms a MiB.
        """
        for mark, writing, is_head in self._marks:
            at = data.find(mark)
            while at >= 0:
                yield self._name(data, at, len(mark), is_head), writing
                at = data.find(mark, at + 1)

    def _name(self, data: bytes, at: int, mark_size: int, is_head: bool) -> str:
        for size in self._sizes:
            start = at if is_head else at + mark_size - size
            number = self._whole.get(data[start : start + size]) if start >= 0 else None
            if number is not None:
                return str(number)
        return FRAGMENT

    def dump(self) -> dict[str, Any]:
        """For another process."""
        values = [[number, value.hex()] for number, value in self.values]
        return {"head": self.marks.head.hex(), "tail": self.marks.tail.hex(), "values": values}

    @classmethod
    def load(cls, said: dict[str, Any]) -> Wanted:
        """What `dump` made."""
        marks = Marks(bytes.fromhex(said["head"]), bytes.fromhex(said["tail"]))
        return cls(marks, [(number, bytes.fromhex(value)) for number, value in said["values"]])


FRAGMENT = "fragment"
"""The name of a hit that is a mark without the rest of a needle that was planted."""
