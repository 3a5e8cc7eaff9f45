"""Native bodies → deletion and hold requests. Nothing here reads a store or changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from starlette.requests import Request

from clearspan.api.native.annotations import parse_annotations
from clearspan.api.native.bounds import Bounds
from clearspan.api.native.inputs import check_keys, need_text, read_count, read_flag, read_text, read_time, read_word
from clearspan.api.native.spans import NOTHING_BESIDE, parse_spans
from clearspan.api.policies import policy_of
from clearspan.api.respan.filters import parse_filters
from clearspan.api.respan.window import EffectiveWindow, open_window
from clearspan.deletion.holds import HoldRequest
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest, Selection
from clearspan.model.errors import InvalidFilter, InvalidInput
from clearspan.model.ids import normalise_id
from clearspan.model.trace import Scope, Window
from clearspan.settings import Settings

DIALECT: Final = "native"
IDS_MAX: Final = 10_000
KEY_CHARS_MAX: Final = 200
_NAME_CHARS_MAX: Final = 255
_DAY_NS: Final = 86_400_000_000_000

_SELECTING: Final = ("filters", "trace_ids", "span_ids", "annotations", "plan_token")
_WHERE: Final = frozenset({"filters", "operator", "trace_ids", "project", "environment", "start_time", "end_time"})
REQUEST_KEYS: Final = _WHERE | {
    "span_ids", "annotations", "delete_all", "expected_count", "reason", "not_before", "leave_copies"
}  # fmt: skip
PLAN_KEYS: Final = frozenset({"plan_token", "expected_count", "idempotency_key", "wait"})
CREATE_KEYS: Final = REQUEST_KEYS | PLAN_KEYS
HOLD_KEYS: Final = _WHERE | {"reason", "everything"}


class Wait(Enum):
    """What a call waits for before it answers; NONE is HIDDEN, for a deletion that is only planned is in no file."""

    NONE = "none"
    HIDDEN = "hidden"
    VERIFIED = "verified"


class Execution(NamedTuple):
    """How a deletion is asked for, apart from what it deletes."""

    plan_token: str | None  # None: the body itself says what to delete
    expected_count: int | None
    idempotency_key: str | None
    wait: Wait


class Limits(NamedTuple):
    """What the server's settings say of every request."""

    strict_windows: bool
    not_before_max_ns: int


def limits_of(settings: Settings, now_ns: int) -> Limits:
    """The limits at this moment."""
    return Limits(settings.strict_windows, now_ns + settings.not_before_days_max * _DAY_NS)


def parse_execution(body: dict[str, Any], request: Request) -> Execution:
    """The part of a creating body that is not about what to delete.

    Raises:
        InvalidInput: an unknown key, a wrong type, none or several ways to say what to delete, or a key beside a plan
            token that the preview has settled already.
    """
    check_keys(body, CREATE_KEYS)
    named = [key for key in _SELECTING if body.get(key) is not None]
    if len(named) != 1:
        raise InvalidInput(
            f"Exactly one of {', '.join(_SELECTING)} is needed; nothing was deleted.",
            code="missing_selection" if not named else "several_selections",
            fields=tuple(named or _SELECTING),
        )
    token = read_text(body, "plan_token", chars_max=KEY_CHARS_MAX)
    if token is not None:
        for key, value in body.items():
            if key not in PLAN_KEYS and value is not None:
                raise InvalidInput(
                    f"{key} is fixed by the preview that the plan token stands for; nothing was deleted.", fields=(key,)
                )
    return Execution(
        token,
        read_count(body, "expected_count"),
        _idempotency_key(body, request),
        read_word(body, "wait", Wait, Wait.HIDDEN),
    )


def parse_deletion(
    body: dict[str, Any], bounds: Bounds, limits: Limits, *, idempotency_key: str | None = None
) -> DeletionRequest:
    """What a creating or previewing body asks to delete. Whether it keeps to the limits is the guards' to say.

    Raises:
        InvalidInput, InvalidFilter, InvalidTime: it cannot be understood; names the key.
        NotFound: no such project. NotPermitted: another environment than the key's.
    """
    principal = bounds.principal
    delete_all = read_flag(body, "delete_all")
    window = _window(body)
    if delete_all and window != Window():
        raise InvalidInput(
            "delete_all says that no window is meant, and start_time or end_time gives one; nothing was deleted.",
            fields=("delete_all",),
        )
    return DeletionRequest(
        org_id=principal.org_id,
        requested_by=principal.key_id,
        dialect=DIALECT,
        scope=bounds.scope(_name(body, "project"), _name(body, "environment")),
        selection=_selected(body),
        window=window,
        delete_all=delete_all,
        reason=read_text(body, "reason"),
        expected_count=read_count(body, "expected_count"),
        idempotency_key=idempotency_key,
        policy=policy_of(principal),
        strict_window=limits.strict_windows,
        not_before_ns=read_time(body, "not_before"),
        not_before_max_ns=limits.not_before_max_ns,
        reach=principal.scope_for_copies(),
        leave_copies=read_flag(body, "leave_copies"),
    )


def parse_preview(body: dict[str, Any], bounds: Bounds, limits: Limits) -> DeletionRequest:
    """The same for a preview, which has no plan token, nothing to wait for and nothing to repeat."""
    check_keys(body, REQUEST_KEYS)
    return parse_deletion(body, bounds, limits)


def parse_hold(body: dict[str, Any], bounds: Bounds) -> HoldRequest:
    """What a hold keeps: filter, ids, or `everything: true` within project, environment and window.

    Raises:
        InvalidInput, InvalidFilter, InvalidTime: it cannot be understood; names the key.
        NotFound: no such project. NotPermitted: another environment than the key's.
    """
    check_keys(body, HOLD_KEYS)
    everything = read_flag(body, "everything")
    named = [key for key in ("filters", "trace_ids") if body.get(key) is not None]
    if len(named) + everything != 1:
        raise InvalidInput(
            "Exactly one of filters, trace_ids and everything is needed; nothing is held.",
            code="missing_selection" if not named and not everything else "several_selections",
            fields=("filters", "trace_ids", "everything"),
        )
    return HoldRequest(
        org_id=bounds.principal.org_id,
        created_by=bounds.principal.key_id,
        scope=_held_scope(bounds, _name(body, "project"), _name(body, "environment")),
        selection=ByFilter(None) if everything else _selection(body),
        window=_window(body),
        reason=need_text(body, "reason"),
    )


def _held_scope(bounds: Bounds, project: str | None, environment: str | None) -> Scope:
    """As what a request speaks of; a hold that names no project keeps the items of datasets, too."""
    scope = bounds.scope(project, environment)
    if project is not None:
        return scope
    return scope._replace(project_ids=(*scope.project_ids, *bounds.principal.dataset_project_ids))


def window_of(request: DeletionRequest) -> EffectiveWindow:
    """The window that a native request is carried out for, as headers tell it."""
    return EffectiveWindow(request.window, is_default=False)


def _selected(body: dict[str, Any]) -> Selection:
    if (span_ids := body.get("span_ids")) is not None:
        _check_alone(body, "span_ids", NOTHING_BESIDE)
        return parse_spans(span_ids)
    if (given := body.get("annotations")) is not None:
        _check_alone(body, "annotations", ("filters", "operator", "trace_ids", "leave_copies"))
        return parse_annotations(given)
    return _selection(body)


def _check_alone(body: dict[str, Any], chosen: str, others: Sequence[str]) -> None:
    for key in others:
        if body.get(key) is not None:
            raise InvalidInput(f"{key} says nothing beside {chosen}; nothing was done.", fields=(key,))


def _selection(body: dict[str, Any]) -> ByFilter | ByIds:
    if body.get("trace_ids") is None:
        where = parse_filters(body.get("filters"), body.get("operator"), fields="list")
        if where is None:
            raise InvalidFilter(
                "filters must not be empty; nothing was done.", code="empty_filter", fields=("filters",)
            )
        return ByFilter(where)
    for key in ("filters", "operator"):
        if body.get(key) is not None:
            raise InvalidInput(f"{key} says nothing beside trace_ids; nothing was done.", fields=(key,))
    given = body["trace_ids"]
    if not isinstance(given, list) or not given or not all(isinstance(each, str) for each in given):
        raise InvalidInput("trace_ids must be a list of ids, not empty; nothing was done.", fields=("trace_ids",))
    if len(given) > IDS_MAX:
        raise InvalidInput(f"trace_ids may name at most {IDS_MAX} traces; nothing was done.", fields=("trace_ids",))
    try:
        return ByIds(tuple(dict.fromkeys(normalise_id(each) for each in given)))
    except ValueError as error:
        raise InvalidInput(f"trace_ids holds what is not an id: {error}.", fields=("trace_ids",)) from None


def _window(body: dict[str, Any]) -> Window:
    start_ns, end_ns = read_time(body, "start_time"), read_time(body, "end_time")
    if start_ns is None and end_ns is None:
        return Window()
    # Read once more as texts, so that a window that ends before it starts is refused in one place.
    return open_window(body.get("start_time"), body.get("end_time")).window


def _name(body: dict[str, Any], key: str) -> str | None:
    return read_text(body, key, chars_max=_NAME_CHARS_MAX)


def _idempotency_key(body: dict[str, Any], request: Request) -> str | None:
    in_body = read_text(body, "idempotency_key", chars_max=KEY_CHARS_MAX)
    in_header = request.headers.get("idempotency-key") or None
    if in_header is not None and len(in_header) > KEY_CHARS_MAX:
        raise InvalidInput(
            f"Idempotency-Key must have at most {KEY_CHARS_MAX} characters; nothing was done.",
            fields=("idempotency_key",),
        )
    if in_body is not None and in_header is not None and in_body != in_header:
        raise InvalidInput(
            "idempotency_key and the header Idempotency-Key differ; nothing was done.", fields=("idempotency_key",)
        )
    return in_body or in_header
