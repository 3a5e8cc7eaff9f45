"""Needles of the tests: marked random words, `ndl` and 24 hex digits, found anywhere by `clearspan.files.scan`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clearspan.files.scan import Find, Hit, scan_files
from clearspan.files.scan import scan_values as scan_database_values

_NEEDLE = re.compile(rb"ndl[0-9a-f]{24}")
_NEEDLE_UTF16 = re.compile(rb"n\x00d\x00l\x00(?:[0-9a-f]\x00){24}")


def needle_of(random_bytes: bytes) -> str:
    """A needle from 12 random bytes."""
    return f"ndl{random_bytes[:12].hex()}"


def finder(wanted: set[str]) -> Find:
    """Sees the wanted needles, as bytes or as UTF-16."""

    def find(data: bytes) -> Iterator[tuple[str, str]]:
        seen = [(found.decode(), "raw") for found in _NEEDLE.findall(data)]
        seen += [(found[::2].decode(), "utf-16") for found in _NEEDLE_UTF16.findall(data)]
        return (each for each in seen if each[0] in wanted)

    return find


def scan_folder(folder: Path, wanted: set[str]) -> list[Hit]:
    """Every wanted needle that any file below the folder holds, each once a file and way."""
    return scan_files(folder, finder(wanted)).hits


def scan_values(database: Path, wanted: set[str]) -> list[Hit]:
    """Every wanted needle in any value of any table, zstd frames unpacked whole."""
    return scan_database_values(database, finder(wanted)).hits
