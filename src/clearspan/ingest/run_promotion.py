"""A LangSmith run document → the narrow row of its span, and who it belongs to.

A run is a span: its id is the span's id. What LangSmith's server works out is worked out here: the status, the token
counts and costs that `usage_metadata` states, the time to the first token, the thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from clearspan.ingest import semconv
from clearspan.ingest.dispatch import parse_count, parse_flag, parse_money, parse_tags
from clearspan.ingest.failure import error_fingerprint
from clearspan.ingest.metadata import Pair, canonical_pairs, flatten, json_text, scalar_text
from clearspan.ingest.pricing import PriceBook
from clearspan.ingest.promote import NAME_CHARS_MAX, context_key, signed_hash
from clearspan.ingest.respan import parse_time
from clearspan.ingest.run_document import RawFields, RunDocument, parse_document, run_view, sender
from clearspan.model.clock import ns_from_datetime
from clearspan.model.errors import InvalidPayload
from clearspan.model.span import Span, SpanContext

KIND_OF_RUN_TYPE: Final[Mapping[str, str]] = {
    "llm": "chat",
    "chain": "chain",
    "tool": "tool",
    "retriever": "retriever",
    "embedding": "embedding",
    "prompt": "prompt",
    "parser": "parser",
}
"""Every `run_type` there is, and the kind of its span."""

RUN_TYPE_OF_KIND: Final[Mapping[str, str]] = {
    "chat": "llm", "completion": "llm", "response": "llm", "generation": "llm", "text": "llm",
    "embedding": "embedding", "tool": "tool", "function": "tool", "retriever": "retriever", "reranker": "retriever",
    "prompt": "prompt", "parser": "parser",
}  # fmt: skip
"""The `run_type` of a span that came by another dialect; any kind that is not here is a chain."""

REFERENCE_EXAMPLE_KEY: Final = "_reference_example_id"
"""The metadata key under which filters find the runs of one dataset example."""

_CALLS: Final = frozenset({"llm", "embedding"})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")
_NIL: Final = "0" * 32
_SMALL_FIELDS: Final = (
    "id", "parent_run_id", "dotted_order", "name", "run_type", "start_time", "end_time", "error", "status", "tags",
    "extra", "reference_example_id",
)  # fmt: skip
_LARGE_FIELDS: Final = {"outputs": (b"usage", b'"model'), "events": (b'"new_token"',)}  # and what tells in them
_SCALARS: Final = (str, int, float)  # a union would be made anew for every run
_PICO_MAX: Final = 2**63 - 1
_DOTTED_TIME: Final = re.compile(r"(\d{8}T\d{6})(\d{1,9})Z")
_ERROR_CLASS: Final = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Z]\w*)[(:]")
_THREAD_KEYS: Final = ("session_id", "conversation_id", "thread_id")
_NOT_METADATA: Final = tuple(
    key.removeprefix("langsmith.metadata.") for key in semconv.METADATA_NEVER if key.startswith("langsmith.metadata.")
)
_TEXT_MAX: Final = semconv.TEXT_CHARS_MAX
_decode: Final = msgspec.json.Decoder().decode
_NULL: Final = msgspec.Raw(b"null")


class Usage(NamedTuple):
    """What a run states about tokens and cost. None: it does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_pico: int | None = None


NO_USAGE: Final = Usage()
GivenTimes = tuple[int | None, int | None]
"""Start and end of a run in Unix ns, as it states them."""


def promote_run(document: bytes, prices: PriceBook | None = None) -> tuple[Span, SpanContext]:
    """The row and context of a stored run; equal documents give equal rows. Cost: 60 to 80 µs for 2 KB.

    Who promotes many at once shares one `RunPromoter`: their contexts, a third of the cost, are then read once.

    Args:
        prices: for runs that state tokens and no cost; None leaves those unpriced.
    Raises:
        StoreDamaged: not a run document.
        InvalidPayload: the document was not made by `langsmith.decode_runs`: it has no id or a time that is none.
    """
    return RunPromoter(prices).promote(parse_document(document), document)


class RunPromoter:
    """Promotes the runs of one request: runs of one trace repeat their metadata, which is read once.

    One instance per request, so that nothing of a request's content stays in memory for the next.
    """

    def __init__(self, prices: PriceBook | None) -> None:
        self._prices = prices
        self._contexts: dict[tuple[Any, ...], tuple[SpanContext, int]] = {}

    def promote(
        self,
        document: RunDocument,
        stored: bytes,
        values: Mapping[str, Any] | None = None,
        times: GivenTimes | None = None,
    ) -> tuple[Span, SpanContext]:
        """As `promote_run`, with the document decoded already.

        Args:
            stored: its stored form.
            values: the decoded fields of its view, if the caller has them; only `_SMALL_FIELDS` and `_LARGE_FIELDS` are
            read.
            times: what `given_times` says of it, if the caller has asked.
        """
        view = run_view(document)
        if values is None:
            values = _decode_promoted(view)
        metadata, invocation = _extra(values)
        run_type = values.get("run_type")
        usage, response_model = _usage(values.get("outputs"), metadata, is_call=run_type in _CALLS)
        start_ns, end_ns = _times(given_times(values) if times is None else times, document)
        status, error_class, fingerprint = _outcome(values)
        model = _text(metadata.get("ls_model_name")) or _text(invocation.get("model") or invocation.get("model_name"))
        provider = _text(metadata.get("ls_provider"))
        cost, cost_source = self._cost(usage, provider, model, response_model, start_ns)
        ttft_s = _ttft(values.get("events"), start_ns)
        context, key = self._context(document, view, values, metadata)
        # Not Span(…): see promote.py.
        return Span._make((
            run_uuid(values.get("id"), "id"),
            _parent(values),
            scalar_text(values.get("name") or "")[:NAME_CHARS_MAX],
            None,  # entity_name
            None,  # workflow_name
            None,  # path
            KIND_OF_RUN_TYPE.get(run_type, "span") if isinstance(run_type, str) else "span",
            None,  # log_method
            start_ns,
            end_ns,
            status,
            None,  # status_code
            error_class,
            fingerprint,
            model or response_model,
            response_model,
            provider,
            None,  # deployment_name
            None,  # prompt_id
            _text(metadata.get("lc_hub_repo")),
            _text(metadata.get("lc_hub_commit_hash")),
            *usage[:6],
            False,  # usage_repeats
            cost,
            cost_source,
            ttft_s,
            None,  # routing_time_s
            True if ttft_s is not None else parse_flag(invocation.get("stream")),
            key,
            signed_hash(stored, 0),
        )), context  # fmt: skip

    def _cost(
        self, usage: Usage, provider: str | None, model: str | None, response_model: str | None, start_ns: int
    ) -> tuple[int | None, str | None]:
        if usage.cost_pico is not None:
            return usage.cost_pico, "source"
        named = response_model or model
        if self._prices is None or named is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
            return None, None
        return self._prices.price(
            provider,
            named,
            start_ns,
            prompt_tokens=usage.prompt_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            cached_tokens=usage.cached_tokens or 0,
            cache_creation_tokens=usage.cache_creation_tokens or 0,
            asked_model=model,
        )

    def _context(
        self, document: RunDocument, view: RawFields, values: Mapping[str, Any], metadata: dict[str, Any]
    ) -> tuple[SpanContext, int]:
        key_id, key_environment = sender(document)
        parts = (
            key_id,
            key_environment,
            bytes(view.get("tags", _NULL)),
            bytes(view.get("reference_example_id", _NULL)),
            bytes(view.get("extra", _NULL)),
        )
        found = self._contexts.get(parts)
        if found is None:
            context = _read_context(values, metadata, key_id, key_environment)
            found = self._contexts[parts] = context, context_key(context)
        return found


def _extra(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metadata, invocation parameters) of a run; not to be changed."""
    extra = _dict(values.get("extra"))
    return _dict(extra.get("metadata")), _dict(extra.get("invocation_params"))


def _decode_promoted(view: RawFields) -> dict[str, Any]:
    """The fields that a row is made of, the large ones only where they can say something."""
    values: dict[str, Any] = {name: _decode(view[name]) for name in _SMALL_FIELDS if name in view}
    for name, signs in _LARGE_FIELDS.items():
        raw = view.get(name)
        if raw is not None and any(sign in bytes(raw) for sign in signs):
            values[name] = _decode(raw)
    return values


def run_uuid(value: Any, what: str) -> str:
    """The normal form of a run id: 32 hex digits of a UUID of any version.

    Raises:
        InvalidPayload: anything else, with `what` in the words.
    """
    if isinstance(value, str) and _UUID.fullmatch(value):
        found = value.replace("-", "").lower()
        if found != _NIL:
            return found
    raise InvalidPayload(f"{what} is missing" if value in (None, "") else f"{what} is not a UUID")


def dotted_uuid(uuid_hex: str) -> str:
    """32 hex digits as LangSmith writes a UUID, with dashes."""
    return f"{uuid_hex[:8]}-{uuid_hex[8:12]}-{uuid_hex[12:16]}-{uuid_hex[16:20]}-{uuid_hex[20:]}"


class DottedSegment(NamedTuple):
    """One step of a `dotted_order`: when a run began and which."""

    start_ns: int | None
    run_id: str


def parse_dotted_order(text: str) -> list[DottedSegment]:
    """The runs from the root down to the run itself; [] for a text that is no dotted order.

    Fractions of a second of 1 to 9 digits are taken. A segment's time that is none is None: it only sorts.
    """
    out: list[DottedSegment] = []
    for segment in text.split("."):
        time, mark, run_id = segment.partition("Z")
        try:
            out.append(DottedSegment(_dotted_ns(time + mark), run_uuid(run_id, "dotted_order")))
        except InvalidPayload:
            return []
    return out


def dotted_segment(start_ns: int, run_id: str) -> str:
    """One segment of a dotted order, with microseconds."""
    seconds, rest = divmod(start_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}{rest // 1000:06d}Z{dotted_uuid(run_id)}"


def _dotted_ns(text: str) -> int | None:
    found = _DOTTED_TIME.fullmatch(text)
    if found is None:
        return None
    try:
        seconds = ns_from_datetime(datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))
    except ValueError:
        return None
    ns = seconds + int(found[2].ljust(9, "0"))
    return ns if ns >= 0 else None


def given_times(values: Mapping[str, Any]) -> GivenTimes:
    """Start and end as the run states them, in Unix ns; the start else from its dotted order.

    Args:
        values: decoded fields of a run.
    Raises:
        InvalidPayload: a time that cannot be read, or one outside 1970 to 2262.
    """
    start_ns = parse_time(values.get("start_time"))
    if start_ns is None and isinstance(dotted := values.get("dotted_order"), str):
        segments = parse_dotted_order(dotted)
        start_ns = segments[-1].start_ns if segments else None
    return start_ns, parse_time(values.get("end_time"))


def error_text(values: Mapping[str, Any]) -> str | None:
    """What went wrong, as text; None for a run that did not fail."""
    error = values.get("error")
    if error is None or error == "":
        return None
    return error if isinstance(error, str) else json_text(error)


def run_status(values: Mapping[str, Any]) -> str:
    """error, ok or pending: LangSmith's rule, by `error` and `end_time`; its own `status` only where it says error."""
    if error_text(values) is not None or values.get("status") == "error":
        return "error"
    return "ok" if values.get("end_time") not in (None, "") else "pending"


def _times(times: GivenTimes, document: RunDocument) -> tuple[int, int]:
    """Start and end; an update that came alone may state neither, and then the receipt stands for the start."""
    start_ns, end_ns = times
    if start_ns is None:
        start_ns = end_ns if end_ns is not None else min(part.at for part in document.parts)
    return start_ns, max(start_ns, end_ns or 0)


def _outcome(values: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """(status, error class, fingerprint). The class is what the error's text begins with, `ValueError('…')`."""
    status = run_status(values)
    if status != "error":
        return status, None, None
    message = error_text(values)
    named = _ERROR_CLASS.match(message) if message else None
    error_class = named[1][:_TEXT_MAX] if named else None
    return status, error_class, error_fingerprint(error_class, message)


def _parent(values: Mapping[str, Any]) -> str | None:
    parent = values.get("parent_run_id")
    if parent:
        return run_uuid(parent, "parent_run_id")
    dotted = values.get("dotted_order")
    segments = parse_dotted_order(dotted) if isinstance(dotted, str) and "." in dotted else []
    return segments[-2].run_id if len(segments) > 1 else None


def _usage(outputs: Any, metadata: Mapping[str, Any], *, is_call: bool) -> tuple[Usage, str | None]:
    """What a run states about tokens and cost, and the model that answered, where its outputs name one.

    Args:
        is_call: of a model. Only then are the outputs a model's answer: any other run may have a `model` of its own.
    """
    answer = _dict(outputs)
    found = answer.get("usage_metadata")
    if not isinstance(found, dict):
        found = metadata.get("usage_metadata")
    if not is_call:
        return (parse_usage(found) if isinstance(found, dict) else NO_USAGE), None
    if not isinstance(found, dict):
        found = _message_usage(answer)
    response_model = _text(answer.get("model")) or _text(_dict(answer.get("llm_output")).get("model_name"))
    return (parse_usage(found) if isinstance(found, dict) else NO_USAGE), response_model


def _message_usage(answer: Mapping[str, Any]) -> Any:
    """Usage where LangChain and the providers themselves keep it."""
    generations = answer.get("generations")
    while isinstance(generations, list) and generations:
        generations = generations[0]
    message = _dict(_dict(generations).get("message"))
    for holder in (_dict(message.get("kwargs")), message):
        if isinstance(holder.get("usage_metadata"), dict):
            return holder["usage_metadata"]
    return _dict(answer.get("llm_output")).get("token_usage") or answer.get("usage")


def parse_usage(usage: Mapping[str, Any]) -> Usage:
    """Counts and costs of a `usage_metadata` object, or of a provider's own `usage` under OpenAI's names.

    The input's and the output's cost make the total where that is not stated.
    """
    inputs = _dict(
        usage.get("input_token_details") or usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    )
    outputs = _dict(
        usage.get("output_token_details")
        or usage.get("completion_tokens_details")
        or usage.get("output_tokens_details")
    )
    cost = parse_money(usage.get("total_cost"))
    if cost is None:
        sides = [parse_money(usage.get(key)) for key in ("input_cost", "output_cost")]
        cost = min(sum(known), _PICO_MAX) if (known := [each for each in sides if each is not None]) else None
    return Usage(
        prompt_tokens=_first_count(usage.get("input_tokens"), usage.get("prompt_tokens")),
        completion_tokens=_first_count(usage.get("output_tokens"), usage.get("completion_tokens")),
        total_tokens=parse_count(usage.get("total_tokens")),
        cached_tokens=_first_count(inputs.get("cache_read"), inputs.get("cached_tokens")),
        cache_creation_tokens=parse_count(inputs.get("cache_creation")),
        reasoning_tokens=_first_count(outputs.get("reasoning"), outputs.get("reasoning_tokens")),
        cost_pico=cost,
    )


def _first_count(*values: Any) -> int | None:
    return next((found for value in values if (found := parse_count(value)) is not None), None)


def _ttft(events: Any, start_ns: int) -> float | None:
    """Seconds from the start to the first `new_token` event."""
    if not events or not isinstance(events, list):
        return None
    times: list[int] = []
    for event in events:
        if isinstance(event, dict) and event.get("name") == "new_token":
            try:
                at = parse_time(event.get("time"))
            except InvalidPayload:
                continue
            if at is not None and at >= start_ns:
                times.append(at)
    return (min(times) - start_ns) / 1e9 if times else None


def _read_context(
    values: Mapping[str, Any], metadata: dict[str, Any], key_id: str | None, key_environment: str | None
) -> SpanContext:
    thread = next((text for key in _THREAD_KEYS if (text := _text(metadata.get(key))) is not None), None)
    pairs: list[Pair] = [
        pair for key, value in metadata.items() if not key.startswith(_NOT_METADATA) for pair in flatten(value, key)
    ]
    example = values.get("reference_example_id")
    if example:
        # First, so that no bound on the number of pairs can push it out.
        pairs.insert(0, (REFERENCE_EXAMPLE_KEY, dotted_uuid(run_uuid(example, "reference_example_id"))))
    return SpanContext(
        customer_identifier=_text(metadata.get("user_id")),
        session_id=thread,
        thread_id=thread,
        environment=key_environment or _text(metadata.get("environment")),
        key_id=key_id,
        tags=parse_tags(values.get("tags")) or (),
        metadata=canonical_pairs(pairs),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    """A scalar as text within TEXT_CHARS_MAX; None for nothing, "" and objects."""
    if not isinstance(value, _SCALARS) or value == "":
        return None
    return scalar_text(value)[:_TEXT_MAX]
