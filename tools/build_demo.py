"""Build the demo set from a folder that holds `otlp-recordings/` and `real-traces/`.

    python tools/build_demo.py SOURCE_FOLDER

Writes `src/clearspan/demo/data/*.jsonl.zst`: one OTLP request a line, `{"path", "content_type"}` with either
`"base64"` (a recorded body, byte for byte) or `"json"` (an OTLP/JSON request converted here). Running it again on the
same sources gives the same requests. What is converted, chosen and left out, and under which licence, is in
`src/clearspan/demo/README.md`.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import demo_convert
import zstandard

TARGET = Path(__file__).resolve().parent.parent / "src" / "clearspan" / "demo" / "data"
SPANS_PER_REQUEST = 256

RECORDINGS_LEFT_OUT = {
    "langsmith-multipart",  # not OTLP
    "langsmith-multipart-zstd",
    "vercel-ai-sdk-proto",  # the same calls as vercel-ai-sdk-json
}


def recorded_requests(folder: Path) -> Iterator[dict[str, Any]]:
    """Every OTLP body of the recordings in the order it was sent, bytes untouched but for content-encoding."""
    for family in sorted(path for path in folder.iterdir() if path.is_dir()):
        if family.name in RECORDINGS_LEFT_OUT:
            continue
        for headers_file in sorted(family.glob("*.headers.json")):
            headers = json.loads(headers_file.read_text())
            stem = headers_file.name.removesuffix(".headers.json")
            body = read_body(family, stem)
            yield {
                "source": f"otlp-recordings/{family.name}",
                "path": "/api/v2/traces" if family.name == "respan-native" else "/v1/" + stem.split("-")[1],
                "content_type": headers["headers"].get("content-type", "application/x-protobuf"),
                "base64": base64.b64encode(body).decode(),
            }


def read_body(family: Path, stem: str) -> bytes:
    """The body of one recorded request, unpacked."""
    for suffix in (".pb", ".wire.json", ".pb.gz", ".wire.json.gz"):
        path = family / (stem + suffix)
        if path.exists():
            data = path.read_bytes()
            return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    raise FileNotFoundError(f"{family / stem}.*")


def converted_requests(source: str, traces: Iterable[demo_convert.Trace]) -> Iterator[dict[str, Any]]:
    """OTLP/JSON requests of at most `SPANS_PER_REQUEST` spans each, whole traces together."""
    waiting: list[demo_convert.Trace] = []
    for trace in traces:
        if waiting and sum(len(each.spans) for each in waiting) + len(trace.spans) > SPANS_PER_REQUEST:
            yield one_request(source, waiting)
            waiting = []
        waiting.append(trace)
    if waiting:
        yield one_request(source, waiting)


def one_request(source: str, traces: list[demo_convert.Trace]) -> dict[str, Any]:
    return {
        "source": source,
        "path": "/v1/traces",
        "content_type": "application/json",
        "json": {"resourceSpans": [resource for trace in traces for resource in trace.resource_spans()]},
    }


def write(name: str, requests: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(request, ensure_ascii=False, separators=(",", ":")) for request in requests]
    plain = ("\n".join(lines) + "\n").encode()
    packed = zstandard.ZstdCompressor(level=19).compress(plain)
    (TARGET / f"{name}.jsonl.zst").write_bytes(packed)
    print(f"{name}: {len(lines)} requests, {len(plain):,} bytes, {len(packed):,} packed")


def main(folder: Path) -> None:
    real = folder / "real-traces"
    TARGET.mkdir(parents=True, exist_ok=True)
    write("recordings", recorded_requests(folder / "otlp-recordings"))
    for name, convert in demo_convert.SOURCES.items():
        write(name, converted_requests(f"real-traces/{name}", convert(real)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
