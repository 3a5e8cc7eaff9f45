"""LangSmith's run ingest: the JSON pieces of a request → run documents → rows and blocks.

The routes split a request into pieces, one for each message about a run: a whole JSON object of `/runs` or
`/runs/batch`, or the main part of a multipart body with the parts of its fields. `decode_runs` checks each piece by
itself, so that a bad run is refused alone, and fuses the pieces that speak of one run; `batch_runs` makes of the runs
of one project what the store takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.ingest.batch import Collector, DecodedRequest
from clearspan.ingest.limits import DEFAULT_LIMITS, IngestLimits
from clearspan.ingest.otlp_json import decode_json
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, NO_SHARED
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_document import (
    Op,
    RawFields,
    RunDocument,
    encode_document,
    fuse_documents,
    fuse_runs,
    new_part,
    run_fields,
    run_values,
    run_view,
)
from clearspan.ingest.run_promotion import (
    KIND_OF_RUN_TYPE,
    RUN_TYPE_OF_KIND,
    RunPromoter,
    dotted_segment,
    dotted_uuid,
    given_times,
    parse_dotted_order,
    promote_run,
    run_uuid,
)
from clearspan.model.errors import InvalidPayload
from clearspan.model.span import SpanContext

__all__ = [
    "KIND_OF_RUN_TYPE", "RUN_TYPE_OF_KIND", "DecodedRun", "DecodedRuns", "Placement", "RejectedRun", "RunPiece",
    "RunSource", "batch_runs", "decode_runs", "fuse_runs", "gather_pieces", "promote_run", "run_fields", "run_values",
]  # fmt: skip

FIELD_PARTS: Final = frozenset({"inputs", "outputs", "events", "extra", "error", "serialized"})
"""What a multipart body may send apart from a run's main part."""

_UNPLACED: Final = "it has no trace_id, and neither the run nor its parent is known"
_DOTTED_CHARS_MAX: Final = 64 * 1024
_raw_fields: Final = msgspec.json.Decoder(RawFields).decode


class RunPiece(NamedTuple):
    """One message about a run."""

    op: Op
    run_id: str | None  # of the part's name or the path; None: the main JSON says it
    main: bytes | None  # a JSON object; None: only field parts came
    fields: Mapping[str, bytes] = {}  # name → JSON text of the parts sent apart; they count before `main`'s own


class Placement(NamedTuple):
    """Where a run already is: what a piece needs that does not say it itself."""

    trace_id: str  # normal form
    dotted_order: str | None = None
    project_id: int | None = None


class RunSource(NamedTuple):
    """Who sent a request of runs, and when."""

    received_ns: int
    key_id: str | None = None
    environment: str | None = None  # the key's
    limits: IngestLimits = DEFAULT_LIMITS


class DecodedRun(NamedTuple):
    """One run of a request, its pieces fused."""

    run_id: str  # normal form, and the span_id
    trace_id: str
    session_id: str | None  # LangSmith's word for the project's UUID, normal form; None: not said
    session_name: str | None
    placement: Placement | None  # where the run was found, if `find_run` had to be asked for it
    piece_count: int
    document: RunDocument
    stored: bytes  # the document as the store keeps it


class RejectedRun(NamedTuple):
    """A piece that is not stored."""

    op: Op
    run_id: str | None  # as far as it could be read
    reason: str  # never holds content
    is_unknown: bool = False  # it does not say its trace, and neither it nor its parent is known


class DecodedRuns(NamedTuple):
    """What the pieces of a request became."""

    runs: list[DecodedRun]
    rejected: list[RejectedRun]


FindRun = Callable[[str], Placement | None]


def nowhere(run_id: str) -> None:
    """A `FindRun` that knows no run."""
    return None


def gather_pieces(parts: Iterable[tuple[Op, str, str | None, bytes]]) -> list[RunPiece]:
    """The parts of a multipart body as pieces.

    Args:
        parts: (create or update, run id as the name has it, field or None for the main part, JSON text), in the
            order of the body. A main part begins a new piece; a field joins the last piece of its run and kind.
    """
    pieces: list[RunPiece] = []
    last: dict[tuple[Op, str], int] = {}
    for op, run_id, field, text in parts:
        at = last.get((op, run_id))
        if field is None and (at is None or pieces[at].main is not None):
            last[op, run_id] = len(pieces)
            pieces.append(RunPiece(op, run_id, text, {}))
        elif field is None:
            assert at is not None
            pieces[at] = pieces[at]._replace(main=text)
        elif at is None:
            last[op, run_id] = len(pieces)
            pieces.append(RunPiece(op, run_id, None, {field: text}))
        else:
            pieces[at] = pieces[at]._replace(fields={**pieces[at].fields, field: text})
    return pieces


class _Piece(NamedTuple):
    """A piece that passed its own checks and may still need a place."""

    op: Op
    position: int
    run_id: str
    given: dict[str, bytes]
    trace_id: str | None
    parent_id: str | None
    dotted_order: str | None
    start_ns: int | None


def decode_runs(pieces: Iterable[RunPiece], source: RunSource, find_run: FindRun = nowhere) -> DecodedRuns:
    """Runs of one request, in the order of their first piece; a piece that cannot be stored is rejected alone.

    A piece without `trace_id` gets it from its dotted order, from another piece of its run, from the stored run (an
    update), from its parent, here or stored, and is a root if it names no parent. A create without `dotted_order`
    gets one from its parent's the same way.

    Args:
        pieces: later ones of the same run count as received later.
        find_run: where a stored run is, by normal id; asked only for pieces that need it, at most once a run.
    Cost: about 45 µs for a run of 2 KB in two pieces.
    """
    checked: list[_Piece] = []
    rejected: list[RejectedRun] = []
    documents: dict[tuple[str, str], list[RunDocument]] = {}
    for position, piece in enumerate(pieces):
        try:
            checked.append(_check(piece, position, source.limits))
        except InvalidPayload as error:
            rejected.append(RejectedRun(piece.op, _shown_id(piece), error.message))
    places = _Places(checked, find_run)
    for each in checked:
        trace_id = places.trace_of(each.run_id)
        if trace_id is None:
            rejected.append(RejectedRun(each.op, each.run_id, _UNPLACED, is_unknown=True))
            continue
        part = new_part(
            each.op,
            places.completed(each, trace_id),
            received_ns=source.received_ns + each.position,
            key_id=source.key_id,
            env=source.environment,
        )
        documents.setdefault((trace_id, each.run_id), []).append(RunDocument([part]))
    runs = [_fused(key, group, places.known.get(key[1])) for key, group in documents.items()]
    return DecodedRuns(runs, rejected)


def batch_runs(
    project_id: int, runs: Iterable[DecodedRun], prices: PriceBook | None, limits: IngestLimits = DEFAULT_LIMITS
) -> DecodedRequest:
    """The runs of one project as the batches that the store takes; none is rejected. About 25 µs a run of 2 KB."""
    promoter = RunPromoter(prices)
    collector = Collector(project_id, limits.reasons)
    contexts: dict[int, SpanContext] = {}
    for run in runs:
        span, context = promoter.promote(run.document, run.stored)
        contexts[span.context_key] = context
        collector.add_span(run.trace_id, span, CODEC_LANGSMITH_RUN, NO_SHARED, run.stored)
    return collector.finish(contexts)


def _fused(key: tuple[str, str], group: list[RunDocument], placement: Placement | None) -> DecodedRun:
    document = group[0] if len(group) == 1 else fuse_documents(group)
    view = run_view(document)
    session_id = _text_of(view.get("session_id"))
    return DecodedRun(
        run_id=key[1],
        trace_id=key[0],
        session_id=run_uuid(session_id, "session_id") if session_id is not None else None,
        session_name=_text_of(view.get("session_name")),
        placement=placement,
        piece_count=len(group),
        document=document,
        stored=encode_document(document),
    )


def _check(piece: RunPiece, position: int, limits: IngestLimits) -> _Piece:
    """A piece with its fields apart and everything in it that must have a form checked.

    Raises:
        InvalidPayload: with the reason.
    """
    given, values = _read(piece, limits)
    _check_limits(given, values, limits)
    run_id = _run_id(piece, values)
    for name in ("trace_id", "parent_run_id", "session_id", "reference_example_id"):
        if values.get(name) not in (None, ""):
            run_uuid(values[name], name)
        elif name in given:
            del given[name]
    for name in ("name", "session_name", "dotted_order"):
        if not isinstance(values.get(name), str | None):
            raise InvalidPayload(f"{name} is not text")
    if not isinstance(values.get("extra"), dict | None):
        raise InvalidPayload("extra is not an object")
    run_type = values.get("run_type")
    if run_type is not None and (not isinstance(run_type, str) or run_type not in KIND_OF_RUN_TYPE):
        raise InvalidPayload(f"run_type is none of {', '.join(KIND_OF_RUN_TYPE)}")
    dotted = values.get("dotted_order") or None
    segments = parse_dotted_order(dotted) if dotted is not None else []
    if dotted is not None and (not segments or len(dotted) > _DOTTED_CHARS_MAX):
        raise InvalidPayload("dotted_order cannot be read")
    start_ns, _ = given_times({name: msgspec.Raw(given[name]) for name in _TIMES if name in given})
    if start_ns is None and piece.op == "create":
        raise InvalidPayload("start_time is missing")
    trace = values.get("trace_id")
    parent = values.get("parent_run_id")
    return _Piece(
        op=piece.op,
        position=position,
        run_id=run_id,
        given=given if given.get("id", b"null") != b"null" else {**given, "id": _uuid_json(run_id)},
        trace_id=run_uuid(trace, "trace_id") if trace else segments[0].run_id if segments else None,
        parent_id=run_uuid(parent, "parent_run_id") if parent else segments[-2].run_id if len(segments) > 1 else None,
        dotted_order=dotted,
        start_ns=start_ns,
    )


_TIMES: Final = ("start_time", "end_time", "dotted_order")


def _read(piece: RunPiece, limits: IngestLimits) -> tuple[dict[str, bytes], dict[str, Any]]:
    """(JSON text by field, decoded value by field)."""
    values: dict[str, Any] = {}
    given: dict[str, bytes] = {}
    if piece.main is not None:
        value = decode_json(piece.main)
        if not isinstance(value, dict):
            raise InvalidPayload("the run is not a JSON object")
        values = value
        given = {name: bytes(raw) for name, raw in _raw_fields(piece.main).items()}
    for name, text in piece.fields.items():
        try:
            values[name] = decode_json(text)
        except InvalidPayload:
            raise InvalidPayload(f"{name} is not JSON") from None
        given[name] = text
    return given, values


def _check_limits(given: Mapping[str, bytes], values: Mapping[str, Any], limits: IngestLimits) -> None:
    if len(given) > limits.attributes_per_span:
        raise InvalidPayload(f"more than {limits.attributes_per_span} fields")
    for name, text in given.items():
        if len(text) > limits.attribute_bytes:
            raise InvalidPayload(f"a field of more than {limits.attribute_bytes} bytes")
        # As many brackets as that must be there to be nested too deep; nearly every value has fewer.
        if text.count(b"{") + text.count(b"[") > limits.depth:
            _check_depth(values[name], limits.depth)
    events = values.get("events")
    if isinstance(events, list) and len(events) > limits.events_per_span:
        raise InvalidPayload(f"more than {limits.events_per_span} events")


def _check_depth(value: Any, depth: int) -> None:
    level: list[Any] = [value]
    for _ in range(depth + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    raise InvalidPayload("values nested too deep")


class _Places:
    """Which trace each run of a request belongs to, and its place in the order of that trace."""

    def __init__(self, pieces: Iterable[_Piece], find_run: FindRun) -> None:
        self.known: dict[str, Placement | None] = {}  # what `find_run` said
        self._find_run = find_run
        self._traces: dict[str, str | None] = {}
        self._dotted: dict[str, str] = {}
        self._untold: dict[str, list[_Piece]] = {}  # pieces without a trace, by run
        for piece in pieces:
            if piece.trace_id is not None:
                self._traces.setdefault(piece.run_id, piece.trace_id)
            if piece.dotted_order is not None:
                self._dotted.setdefault(piece.run_id, piece.dotted_order)
        for piece in pieces:
            if piece.run_id not in self._traces:
                self._untold.setdefault(piece.run_id, []).append(piece)

    def trace_of(self, run_id: str) -> str | None:
        """The trace of a run, None when nobody knows."""
        climbed: list[str] = []
        at: str | None = run_id
        trace_id: str | None = None
        while at is not None and at not in climbed:
            climbed.append(at)
            if at in self._traces:
                trace_id = self._traces[at]
                break
            pieces = self._untold.get(at, [])
            if all(piece.op == "update" for piece in pieces) and (found := self._ask(at)) is not None:
                trace_id = found.trace_id
                break
            parent = next((piece.parent_id for piece in pieces if piece.parent_id is not None), None)
            if parent is None and any(piece.op == "create" for piece in pieces):
                trace_id = at  # a root
            at = parent
        for each in climbed:
            self._traces[each] = trace_id
        return trace_id

    def completed(self, piece: _Piece, trace_id: str) -> dict[str, bytes]:
        """The fields of a piece with its trace and, for a create, its dotted order, where it gives none."""
        given = piece.given
        if "trace_id" not in given and len(trace_id) == _UUID_HEX_CHARS:
            given = {**given, "trace_id": _uuid_json(trace_id)}
        if piece.dotted_order is None and piece.op == "create" and piece.start_ns is not None:
            above = self._dotted_of(piece.parent_id) if piece.parent_id is not None else ""
            if above is not None:
                segment = dotted_segment(piece.start_ns, piece.run_id)
                dotted = self._dotted.setdefault(piece.run_id, f"{above}.{segment}" if above else segment)
                given = {**given, "dotted_order": msgspec.json.encode(dotted)}
        return given

    def _dotted_of(self, run_id: str) -> str | None:
        if run_id in self._dotted:
            return self._dotted[run_id]
        found = self._ask(run_id)
        return found.dotted_order if found is not None else None

    def _ask(self, run_id: str) -> Placement | None:
        if run_id not in self.known:
            self.known[run_id] = self._find_run(run_id)
        return self.known[run_id]


_UUID_HEX_CHARS: Final = 32


def _run_id(piece: RunPiece, values: Mapping[str, Any]) -> str:
    named = run_uuid(piece.run_id, "the id of the part or path") if piece.run_id is not None else None
    if values.get("id") is None and named is not None:
        return named
    run_id = run_uuid(values.get("id"), "id")
    if named is not None and named != run_id:
        raise InvalidPayload("its id is not the one that the part or path names")
    return run_id


def _shown_id(piece: RunPiece) -> str | None:
    """What a rejection names the run by: an id that is one, never other content."""
    for value in (piece.run_id, _id_in(piece.main)):
        try:
            return run_uuid(value, "id")
        except InvalidPayload:
            continue
    return None


def _id_in(main: bytes | None) -> Any:
    if main is None:
        return None
    try:
        return _only_id(main).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Id(msgspec.Struct):
    id: Any = None


_only_id: Final = msgspec.json.Decoder(_Id).decode


def _uuid_json(uuid_hex: str) -> bytes:
    return b'"%b"' % dotted_uuid(uuid_hex).encode()


def _text_of(raw: msgspec.Raw | None) -> str | None:
    value = None if raw is None else msgspec.json.decode(raw)
    return value if isinstance(value, str) and value else None
