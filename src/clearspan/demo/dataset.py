"""The requests of the demo set, as they lie in `data/`. What they are: README.md beside this file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import zstandard

UNPACKED_BYTES_MAX = 64 * 2**20


class DemoRequest(NamedTuple):
    """One OTLP request, with the times it was recorded or derived with."""

    source: str  # folder of the recordings or name of the public data set
    path: str  # where a client sends it
    content_type: str
    body: bytes

    @property
    def is_json(self) -> bool:
        """Whether the body is OTLP/JSON; else it is protobuf."""
        return self.content_type.startswith("application/json")

    @property
    def is_logs(self) -> bool:
        """Whether the body carries log records instead of spans."""
        return self.path.endswith("/logs")


def demo_requests() -> Iterator[DemoRequest]:
    """Every request, file by file in the order of their names, in the order they were sent."""
    files = [item for item in resources.files(__package__).joinpath("data").iterdir() if item.name.endswith(".zst")]
    for item in sorted(files, key=lambda each: each.name):
        plain = zstandard.ZstdDecompressor().decompress(item.read_bytes(), max_output_size=UNPACKED_BYTES_MAX)
        for line in plain.splitlines():
            entry = json.loads(line)
            yield DemoRequest(
                source=entry["source"],
                path=entry["path"],
                content_type=entry["content_type"],
                body=base64.b64decode(entry["base64"])
                if "base64" in entry
                else json.dumps(entry["json"], ensure_ascii=False, separators=(",", ":")).encode(),
            )
