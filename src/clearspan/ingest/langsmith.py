"""LangSmith's run ingest: the messages of a request about runs → run documents → rows and blocks.

`run_parts` takes a body apart into messages, each a create or an update of one run with every field in its own JSON
text. `decode_runs` checks each by itself, so that a bad one is refused alone, and fuses those that speak of one run;
`batch_runs` makes of the runs of one project what the store takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.ingest.batch import Collector, DecodedRequest
from clearspan.ingest.limits import DEFAULT_LIMITS, IngestLimits
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, NO_SHARED
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.run_document import (
    RunDocument,
    RunPart,
    encode_document,
    fuse_documents,
    fuse_runs,
    new_part,
    run_fields,
    run_values,
)
from clearspan.ingest.run_parts import RunOperation
from clearspan.ingest.run_promotion import (
    KIND_OF_RUN_TYPE,
    RUN_TYPE_OF_KIND,
    GivenTimes,
    RunPromoter,
    dotted_segment,
    dotted_uuid,
    given_times,
    parse_dotted_order,
    promote_run,
    run_uuid,
)
from clearspan.model.errors import InvalidPayload
from clearspan.model.runs import is_run_id
from clearspan.model.span import SpanContext

__all__ = [
    "KIND_OF_RUN_TYPE", "RUN_TYPE_OF_KIND", "DecodedRun", "DecodedRuns", "Placement", "RejectedRun",
     "RunSource", "batch_runs", "decode_runs", "fuse_runs", "promote_run", "run_fields", "run_values",
]  # fmt: skip

_UNPLACED: Final = "it has no trace_id, and neither the run nor its parent is known"
_DOTTED_CHARS_MAX: Final = 64 * 1024
_decode: Final = msgspec.json.Decoder().decode
_IDS: Final = ("trace_id", "parent_run_id", "session_id", "reference_example_id")
_TEXT_OR_NONE: Final = (str, type(None))  # a union would be made anew for every run
_OBJECT_OR_NONE: Final = (dict, type(None))
_NESTING: Final = (dict, list)
_TEXTS: Final = ("name", "session_name", "dotted_order")


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
    """One run of a request, its messages fused."""

    run_id: str  # normal form, and the span_id
    trace_id: str
    session_id: str | None  # LangSmith's word for the project's UUID, normal form; None: not said
    session_name: str | None
    placement: Placement | None  # what `find_run` said of the run, if it had to be asked
    message_count: int
    document: RunDocument
    stored: bytes  # the document as the store keeps it
    values: Mapping[str, Any] | None  # its decoded fields, where that cost nothing
    times: GivenTimes | None  # likewise


class RejectedRun(NamedTuple):
    """A message that is not stored."""

    is_update: bool
    run_id: str  # normal form
    reason: str  # never holds content
    is_unknown: bool = False  # it does not say its trace, and neither it nor its parent is known


class DecodedRuns(NamedTuple):
    """What the messages of a request became."""

    runs: list[DecodedRun]
    rejected: list[RejectedRun]


FindRun = Callable[[str], Placement | None]


def nowhere(run_id: str) -> None:
    """A `FindRun` that knows no run."""
    return None


class _Checked(NamedTuple):
    """A message that passed its own checks and may still need a place."""

    is_update: bool
    position: int
    run_id: str
    given: dict[str, bytes]
    values: dict[str, Any]
    times: GivenTimes
    trace_id: str | None
    parent_id: str | None
    dotted_order: str | None


def decode_runs(operations: Iterable[RunOperation], source: RunSource, find_run: FindRun = nowhere) -> DecodedRuns:
    """Runs of one request, in the order of their first message; one that cannot be stored is rejected alone.

    A message without `trace_id` gets it from its dotted order, from another message of its run, from the stored run
    (an update), from its parent, here or stored; a create without a parent is a root. A create without `dotted_order`
    gets one from its parent's in the same way.

    Args:
        operations: later ones of the same run count as received later.
        find_run: where a stored run is, by normal id; asked only for messages that need it, at most once a run.
    Cost: 30 µs for a run of 2 KB in one message, 68 in two (processor time on a busy machine).
    """
    checked: list[_Checked] = []
    rejected: list[RejectedRun] = []
    groups: dict[tuple[str, str], list[tuple[RunPart, _Checked]]] = {}
    for position, operation in enumerate(operations):
        try:
            checked.append(_check(operation, position, source.limits))
        except InvalidPayload as error:
            rejected.append(RejectedRun(operation.is_update, operation.run_id, error.message))
    places = Places(checked, find_run)
    for each in checked:
        trace_id = each.trace_id or places.trace_of(each.run_id)
        if trace_id is None:
            rejected.append(RejectedRun(each.is_update, each.run_id, _UNPLACED, is_unknown=True))
            continue
        places.complete(each, trace_id)
        part = new_part(
            "update" if each.is_update else "create",
            each.given,
            received_ns=source.received_ns + each.position,
            key_id=source.key_id,
            env=source.environment,
        )
        groups.setdefault((trace_id, each.run_id), []).append((part, each))
    return DecodedRuns([_fused(key, group, places) for key, group in groups.items()], rejected)


def batch_runs(
    project_id: int, runs: Iterable[DecodedRun], prices: PriceBook | None, limits: IngestLimits = DEFAULT_LIMITS
) -> DecodedRequest:
    """The runs of one project as the batches that the store takes; none is rejected. 25 to 50 µs a run of 2 KB."""
    promoter = RunPromoter(prices)
    collector = Collector(project_id, limits.reasons)
    contexts: dict[int, SpanContext] = {}
    for run in runs:
        span, context = promoter.promote(run.document, run.stored, run.values, run.times)
        contexts[span.context_key] = context
        collector.add_span(run.trace_id, span, CODEC_LANGSMITH_RUN, NO_SHARED, run.stored)
    return collector.finish(contexts)


def _fused(key: tuple[str, str], group: list[tuple[RunPart, _Checked]], places: Places) -> DecodedRun:
    part, message = group[-1]
    session_id, name = message.values.get("session_id"), message.values.get("session_name")
    if len(group) == 1:
        document = RunDocument([part])
    else:
        document = fuse_documents([RunDocument([part]) for part, _ in group])
        # Of several messages the last that says so names the project; the document's own order may only differ for a
        # client that names two.
        for _, each in reversed(group):
            session_id = session_id or each.values.get("session_id")
            name = name or each.values.get("session_name")
    return DecodedRun(
        run_id=key[1],
        trace_id=key[0],
        session_id=run_uuid(session_id, "session_id") if session_id else None,
        session_name=name or None,
        placement=places.known.get(key[1]),
        message_count=len(group),
        document=document,
        stored=encode_document(document),
        values=message.values if len(group) == 1 else None,
        times=message.times if len(group) == 1 else None,
    )


def _check(operation: RunOperation, position: int, limits: IngestLimits) -> _Checked:
    """A message with everything in it checked that must have a form.

    Raises:
        InvalidPayload: with the reason.
    """
    given = dict(operation.fields)
    values = _decode_fields(given) if operation.values is None else dict(operation.values)
    _check_limits(given, values, limits)
    run_id = run_uuid(operation.run_id, "id")
    given["id"], values["id"] = _uuid_json(run_id), run_id
    ids = {name: run_uuid(values[name], name) for name in _IDS if values.get(name)}
    for name in _TEXTS:
        if not isinstance(values.get(name), _TEXT_OR_NONE):
            raise InvalidPayload(f"{name} is not text")
    if not isinstance(values.get("extra"), _OBJECT_OR_NONE):
        raise InvalidPayload("extra is not an object")
    run_type = values.get("run_type")
    if run_type is not None and (not isinstance(run_type, str) or run_type not in KIND_OF_RUN_TYPE):
        raise InvalidPayload(f"run_type is none of {', '.join(KIND_OF_RUN_TYPE)}")
    dotted = values.get("dotted_order") or None
    if dotted is not None and len(dotted) > _DOTTED_CHARS_MAX:
        raise InvalidPayload(f"dotted_order has more than {_DOTTED_CHARS_MAX} characters")
    times = given_times(values)
    if times[0] is None and not operation.is_update:
        raise InvalidPayload("start_time is missing")
    trace_id, parent_id = ids.get("trace_id"), ids.get("parent_run_id")
    if dotted is not None and (trace_id is None or (parent_id is None and "." in dotted)):
        segments = parse_dotted_order(dotted)
        trace_id = trace_id or (segments[0].run_id if segments else None)
        parent_id = parent_id or (segments[-2].run_id if len(segments) > 1 else None)
    return _Checked(operation.is_update, position, run_id, given, values, times, trace_id, parent_id, dotted)


def _check_limits(given: Mapping[str, bytes], values: Mapping[str, Any], limits: IngestLimits) -> None:
    if len(given) > limits.attributes_per_span:
        raise InvalidPayload(f"more than {limits.attributes_per_span} fields")
    if max(map(len, given.values()), default=0) > limits.attribute_bytes:
        raise InvalidPayload(f"a field of more than {limits.attribute_bytes} bytes")
    for name, value in values.items():
        if isinstance(value, _NESTING):
            # So many brackets must be there to be nested too deep; nearly every text has fewer.
            text = given[name]
            if len(text) > limits.depth and text.count(b"{") + text.count(b"[") > limits.depth:
                _check_depth(value, limits.depth)
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


def _decode_fields(given: Mapping[str, bytes]) -> dict[str, Any]:
    """Every field's value. The text is JSON already; a number may still be too large, or a value nested too deep."""
    try:
        return {name: _decode(text) for name, text in given.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidPayload("a field holds JSON that cannot be read, or a number too large") from None


def _uuid_json(uuid_hex: str) -> bytes:
    return b'"%b"' % dotted_uuid(uuid_hex).encode()


class Places:
    """Which trace each run of a request belongs to, and its place in the order of that trace."""

    def __init__(self, messages: list[_Checked], find_run: FindRun) -> None:
        self.known: dict[str, Placement | None] = {}  # what `find_run` said
        self._find_run = find_run
        self._traces: dict[str, str | None] = {}
        self._dotted: dict[str, str] = {}
        self._untold: dict[str, list[_Checked]] = {}  # messages without a trace, by run
        for each in messages:
            if each.trace_id is not None:
                self._traces.setdefault(each.run_id, each.trace_id)
            else:
                self._untold.setdefault(each.run_id, []).append(each)
            if each.dotted_order is not None:
                self._dotted.setdefault(each.run_id, each.dotted_order)

    def trace_of(self, run_id: str) -> str | None:
        """The trace of a run, None when nobody knows."""
        climbed: list[str] = []
        at: str | None = run_id
        trace_id: str | None = None
        while at is not None and at not in climbed:
            if at in self._traces:
                trace_id = self._traces[at]
                break
            climbed.append(at)
            messages = self._untold.get(at, [])
            if all(each.is_update for each in messages) and (found := self._ask(at)) is not None:
                trace_id = found.trace_id
                break
            parent = next((each.parent_id for each in messages if each.parent_id is not None), None)
            if parent is None and messages and not all(each.is_update for each in messages):
                trace_id = at  # a root
            at = parent
        self._traces.update(dict.fromkeys(climbed, trace_id))
        return trace_id

    def complete(self, message: _Checked, trace_id: str) -> None:
        """Gives a message its trace and, if it is a create, its dotted order, where it says none."""
        if not message.values.get("trace_id") and is_run_id(trace_id):
            message.given["trace_id"] = _uuid_json(trace_id)
        if message.is_update or message.dotted_order is not None:
            return
        start_ns, _ = message.times
        above = self._dotted_of(message.parent_id) if message.parent_id is not None else ""
        if above is not None and start_ns is not None:
            segment = dotted_segment(start_ns, message.run_id)
            dotted = self._dotted.setdefault(message.run_id, f"{above}.{segment}" if above else segment)
            message.given["dotted_order"] = msgspec.json.encode(dotted)

    def _dotted_of(self, run_id: str) -> str | None:
        if run_id in self._dotted:
            return self._dotted[run_id]
        found = self._ask(run_id)
        return found.dotted_order if found is not None else None

    def _ask(self, run_id: str) -> Placement | None:
        if run_id not in self.known:
            self.known[run_id] = self._find_run(run_id)
        return self.known[run_id]
