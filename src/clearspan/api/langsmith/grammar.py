"""LangSmith's filters → expressions about one span (contract: filter language).

    filter        about the run itself
    trace_filter  about the root run of its trace
    tree_filter   about any run of its trace

Operators: and, or, not, eq, neq, gt, gte, lt, lte, in, like, search, has, exists.

Missing values. A comparison never holds for a missing value; `eq(x, null)` does. `neq(x, v)` means not(eq(x, v)), so it
holds for a run without x; so does every not(…).

Pairs. In one and(…) a condition on `metadata_value` is about the entry that the `metadata_key` condition before it
names (or the first one, if none stands before it): and(eq(metadata_key, "k"), neq(metadata_value, "v")) is a run that
has k with another value than v. A second key begins a second entry. The same goes for feedback_key with feedback_score
and feedback_source, input_key with input_value, output_key with output_value. neq(metadata_key, "k") is a run without
k; it begins no entry. Conditions that stand alone look at any entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NoReturn

from clearspan.api.langsmith.filter_text import Arg, Array, Call, Name, Scalar, parse_text
from clearspan.ingest.run_promotion import KIND_OF_RUN_TYPE, REFERENCE_EXAMPLE_KEY, RUN_TYPE_OF_KIND
from clearspan.model.errors import InvalidFilter
from clearspan.model.ids import normalise_id
from clearspan.model.span import KINDS
from clearspan.query.ast import Condition, Expr, Group, Not, RootSpan, SomeEntry, SomeSpan
from clearspan.query.fields import IS_ROOT, RUN_ID, SPAN_TEXT, Collection, Field, FieldType, field_named
from clearspan.query.operators import Operator
from clearspan.query.values import is_unicode, make_condition, metadata_text, shown

OPERATORS: Final = (
    "and", "or", "not", "eq", "neq", "gt", "gte", "lt", "lte", "in", "like", "search", "has", "exists",
)  # fmt: skip

_COMPARISONS: Final = {
    "eq": Operator.EQUALS, "gt": Operator.GT, "gte": Operator.GTE, "lt": Operator.LT, "lte": Operator.LTE,
    "in": Operator.IN,
}  # fmt: skip
_OF_NUMBERS: Final = frozenset({"eq", "neq", "gt", "gte", "lt", "lte", "in"})
_OF_TEXT: Final = frozenset({"eq", "neq", "in", "like", "search"})
_OF_IDS: Final = frozenset({"eq", "neq", "in"})
_OF_METADATA: Final = _OF_TEXT | _OF_NUMBERS
_OPERATORS_OF: Final[Mapping[FieldType, frozenset[str]]] = {
    FieldType.TEXT: _OF_TEXT,
    FieldType.ID: _OF_IDS,
    FieldType.METADATA: _OF_METADATA,
    FieldType.BOOL: frozenset({"eq", "neq"}),
}

_PLAIN: Final[Mapping[str, Field]] = {
    "id": RUN_ID,
    "parent_run_id": field_named("parent_run_id"),
    "trace_id": field_named("trace_unique_id"),
    "thread_id": field_named("span_thread_id"),
    "name": field_named("span_name"),
    "status": field_named("span_status"),
    "start_time": field_named("span_start_time"),
    "end_time": field_named("span_end_time"),
    "latency": field_named("span_latency"),
    "first_token_time": field_named("time_to_first_token"),  # seconds after the start
    "total_tokens": field_named("span_total_tokens"),
    "prompt_tokens": field_named("prompt_tokens"),
    "completion_tokens": field_named("completion_tokens"),
    "total_cost": field_named("cost"),
    "is_root": IS_ROOT,
}
_IN_SECONDS: Final = frozenset({"latency", "first_token_time"})


@dataclass(frozen=True, slots=True)
class _EntryField:
    field: Field
    is_key: bool = False


_OF_ENTRIES: Final[Mapping[str, _EntryField]] = {
    "tags": _EntryField(field_named("tag")),
    "metadata_key": _EntryField(field_named("metadata_key"), True),
    "metadata_value": _EntryField(field_named("metadata_value")),
    "feedback_key": _EntryField(field_named("annotation_name"), True),
    "feedback_score": _EntryField(field_named("annotation_score")),
    "feedback_source": _EntryField(field_named("annotation_source")),
    "input_key": _EntryField(field_named("input_key"), True),
    "input_value": _EntryField(field_named("input_value")),
    "output_key": _EntryField(field_named("output_key"), True),
    "output_value": _EntryField(field_named("output_value")),
}
_WHOLE: Final = {"inputs": field_named("span_input"), "outputs": field_named("span_output")}
"""Only for `search` and `like`."""

FIELDS: Final = tuple(
    sorted((*_PLAIN, *_OF_ENTRIES, *_WHOLE, "error", "execution_order", "metadata", "reference_example", "run_type"))
)
"""What a filter may name."""

_NOT_KEPT: Final = frozenset({"prompt_cost", "completion_cost"})
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ns|us|µs|ms|s|m|min|h|d)?\s*", re.ASCII)
_UNIT_S: Final = {
    "ns": "1e-9", "us": "1e-6", "µs": "1e-6", "ms": "1e-3", "s": "1", "m": "60", "min": "60", "h": "3600", "d": "86400",
}  # fmt: skip
_DURATION_CHARS_MAX: Final = 40
_RUN_STATUS: Final = field_named("span_status")
_LOG_TYPE: Final = field_named("log_type")
_TEXT_TYPES: Final = frozenset({FieldType.TEXT, FieldType.ID, FieldType.METADATA})


def parse_filters(
    filter: str | None = None, trace_filter: str | None = None, tree_filter: str | None = None
) -> Expr | None:
    """The three filters of a request as one expression about a run; None: there is none.

    Raises:
        InvalidFilter: the message names what is wrong and what is allowed, `.fields` the filter.
    Cost: O(length).
    """
    parts: list[Expr] = []
    if filter is not None:
        parts.append(parse_filter(filter, "filter"))
    if trace_filter is not None:
        parts.append(RootSpan(parse_filter(trace_filter, "trace_filter")))
    if tree_filter is not None:
        parts.append(SomeSpan(parse_filter(tree_filter, "tree_filter")))
    if len(parts) > 1:
        return Group("AND", tuple(parts))
    return parts[0] if parts else None


def parse_filter(text: str, param: str = "filter") -> Expr:
    """One filter as an expression about one run; see parse_filters."""
    return _Reader(param).expr(parse_text(text, param))


@dataclass
class _Entry:
    """A collection's entry while an and(…) is read."""

    conditions: list[Condition] = field(default_factory=list)
    has_key: bool = False


@dataclass(frozen=True, slots=True)
class _OnEntry:
    """A comparison about an entry, before it is known which."""

    about: _EntryField
    condition: Condition  # that holds for the entry, negations included
    alone: Expr  # what it means by itself
    pairs: bool


class _Reader:
    """Translates one filter."""

    def __init__(self, param: str) -> None:
        self._param = param

    def expr(self, call: Arg) -> Expr:
        """What a call says about one run."""
        if not isinstance(call, Call):
            what = f"the field `{call.word[:100]}`" if isinstance(call, Name) else "a value"
            self._refuse(f"an operator is needed, not {what}; allowed: {', '.join(OPERATORS)}")
        found = self._call(call)
        return found.alone if isinstance(found, _OnEntry) else found

    def _call(self, call: Call) -> Expr | _OnEntry:
        operator = call.operator.lower()
        match operator:
            case "and":
                return self._and(call)
            case "or":
                return Group("OR", tuple([self.expr(arg) for arg in self._some(call)]))
            case "not":
                if len(call.args) != 1:
                    self._refuse(f"not takes one operator, {len(call.args)} were given")
                return Not(self.expr(call.args[0]))
            case "has" | "exists":
                return self._has(operator, call)
            case "search" if len(call.args) == 1:
                return self._condition("search", SPAN_TEXT, Operator.ICONTAINS, [self._text(operator, call.args[0])])
            case _ if operator in OPERATORS:
                name, value = self._two(operator, call)
                return self._comparison(operator, name, value)
        self._refuse(f"unknown operator `{call.operator[:100]}`; allowed: {', '.join(OPERATORS)}")

    def _some(self, call: Call) -> tuple[Arg, ...]:
        if not call.args:
            self._refuse(f"{call.operator.lower()}() is empty")
        return call.args

    def _and(self, call: Call) -> Expr:
        found = [self._call(arg) if isinstance(arg, Call) else self.expr(arg) for arg in self._some(call)]
        parts: list[Expr] = []
        entries: dict[Collection, list[_Entry]] = {}
        for each in found:
            if not isinstance(each, _OnEntry):
                parts.append(each)
            elif not each.pairs:
                parts.append(each.alone)
            else:
                collection = each.about.field.collection
                assert collection is not None
                mine = entries.setdefault(collection, [_Entry()])
                if each.about.is_key and mine[-1].has_key:
                    mine.append(_Entry())
                mine[-1].has_key |= each.about.is_key
                mine[-1].conditions.append(each.condition)
        for collection, mine in entries.items():
            parts += [_entry(collection, each.conditions) for each in mine]
        return Group("AND", tuple(parts)) if len(parts) > 1 else parts[0]

    def _two(self, operator: str, call: Call) -> tuple[str, Arg]:
        if len(call.args) != 2 or not isinstance(call.args[0], Name):
            self._refuse(
                f"{operator} takes a field and a value, as in {operator}(name, …); fields: {', '.join(FIELDS)}"
            )
        value = call.args[1]
        if isinstance(value, Name | Call):
            word = value.word if isinstance(value, Name) else f"{value.operator}(…)"
            self._refuse(f"`{word[:100]}` is not a value; texts stand in quotes")
        return call.args[0].word, value

    def _comparison(self, operator: str, name: str, value: Arg) -> Expr | _OnEntry:
        special: Mapping[str, Callable[[str, Arg], Expr | _OnEntry]] = {
            "error": self._error,
            "execution_order": self._execution_order,
            "reference_example": self._reference_example,
            "run_type": self._run_type,
        }
        if name in special:
            return special[name](operator, value)
        if name in _OF_ENTRIES:
            return self._on_entry(operator, name, _OF_ENTRIES[name], value)
        if name in _WHOLE:
            self._check_operator(operator, name, frozenset({"search", "like"}))
            return self._positive(operator, name, _WHOLE[name], value)
        if name in _NOT_KEPT:
            self._refuse(f"`{name}` is not kept apart from `total_cost`; fields: {', '.join(FIELDS)}")
        if name not in _PLAIN:
            hint = '; write has(metadata, …), exists(metadata, "key") or metadata_key' if name == "metadata" else ""
            self._refuse(f"unknown field `{name[:100]}`{hint}; fields: {', '.join(FIELDS)}")
        about = _PLAIN[name]
        self._check_operator(operator, name, _OPERATORS_OF.get(about.type, _OF_NUMBERS))
        if value is None:
            return self._null(operator, name, about)
        if about == IS_ROOT and value in (False, "false"):
            return Not(self._comparison(operator, name, True))  # type: ignore[arg-type]
        positive = self._positive("eq" if operator == "neq" else operator, name, about, value)
        return Not(positive) if operator == "neq" else positive

    def _positive(self, operator: str, name: str, about: Field, value: Arg) -> Condition:
        """A comparison that is no negation."""
        if operator == "search":
            return self._condition(name, about, Operator.ICONTAINS, [self._text(operator, value)])
        if operator == "like":
            return self._like(name, about, self._text(operator, value))
        if operator == "in":
            if not isinstance(value, Array):
                self._refuse(f'in takes a list, as in in({name}, ["a", "b"])')
            values: list[Scalar] = [self._scalar(item) for item in value.items]
        else:
            values = [self._scalar(value)]
        plain = [self._in_unit(name, about, each) for each in values]
        return self._condition(name, about, _COMPARISONS[operator], plain)

    def _null(self, operator: str, name: str, about: Field) -> Condition:
        if operator not in ("eq", "neq"):
            self._refuse(f"{operator} takes no null; eq({name}, null) and neq({name}, null) do")
        return Condition(about, Operator.IS_NULL if operator == "eq" else Operator.IS_NOT_NULL)

    def _like(self, name: str, about: Field, pattern: str) -> Condition:
        """`%` at either end is a test that needs no pattern."""
        inner = pattern.strip("%")
        if not inner or "%" in inner or "%%" in pattern:
            return Condition(about, Operator.LIKE, (pattern,))
        starts, ends = not pattern.startswith("%"), not pattern.endswith("%")
        operator = {
            (True, True): Operator.EQUALS,
            (True, False): Operator.STARTSWITH,
            (False, True): Operator.ENDSWITH,
            (False, False): Operator.CONTAINS,
        }[starts, ends]
        return Condition(about, operator, (inner,))

    def _on_entry(self, operator: str, name: str, about: _EntryField, value: Arg) -> _OnEntry:
        collection = about.field.collection
        assert collection is not None
        allowed = _OPERATORS_OF.get(about.field.type, _OF_NUMBERS)
        self._check_operator(operator, name, allowed | {"has"} if name == "tags" else allowed)
        pairs = collection is not Collection.TAGS and not (about.is_key and operator == "neq")
        if value is None:
            if not about.field.nullable:
                self._refuse(f"`{name}` is never null; ask for what it is, or for a run without it by not(…)")
            found = self._null(operator, name, about.field)
            return _OnEntry(about, found, _entry(collection, [found]), pairs)
        positive = self._positive("eq" if operator in ("neq", "has") else operator, name, about.field, value)
        if operator != "neq":
            return _OnEntry(about, positive, _entry(collection, [positive]), pairs)
        negative = Condition(positive.field, Operator.NOT, positive.values)
        return _OnEntry(about, negative, Not(_entry(collection, [positive])), pairs)

    def _error(self, operator: str, value: Arg) -> Expr:
        self._check_operator(operator, "error", _OF_TEXT)
        if value is None or isinstance(value, bool):
            if operator not in ("eq", "neq"):
                self._refuse(f"{operator} takes no null; eq(error, null) and neq(error, null) do")
            wants_error = (operator == "neq") is (value is None or value is False)
            return Condition(_RUN_STATUS, Operator.EQUALS if wants_error else Operator.NOT, ("error",))
        about = field_named("span_error")
        if operator == "neq":
            return Not(self._positive("eq", "error", about, value))
        return self._positive(operator, "error", about, value)

    def _execution_order(self, operator: str, value: Arg) -> Expr:
        if operator != "eq" or isinstance(value, bool) or value not in (Decimal(1), "1"):
            self._refuse("execution_order can only be asked for by eq(execution_order, 1), which means the root run")
        return Condition(IS_ROOT, Operator.EQUALS, (True,))

    def _reference_example(self, operator: str, value: Arg) -> Expr:
        self._check_operator(operator, "reference_example", _OF_IDS)
        key = Condition(field_named("metadata_key"), Operator.EQUALS, (REFERENCE_EXAMPLE_KEY,))
        has = SomeEntry(Collection.METADATA, key)
        if value is None and operator in ("eq", "neq"):
            return Not(has) if operator == "eq" else has
        spellings: list[str] = []
        for item in value.items if isinstance(value, Array) else (value,):
            spellings += _spellings(self._text(operator, item))
        if not spellings:
            self._refuse("in takes a list of ids")
        found = Condition(field_named("metadata_value"), Operator.IN, tuple(spellings))
        entry = _entry(Collection.METADATA, [key, found])
        return Not(entry) if operator == "neq" else entry

    def _run_type(self, operator: str, value: Arg) -> Expr:
        self._check_operator(operator, "run_type", _OF_IDS)
        if operator == "in" and not isinstance(value, Array):
            self._refuse('in takes a list, as in in(run_type, ["llm", "tool"])')
        items = value.items if isinstance(value, Array) and operator == "in" else (value,)
        kinds: set[str] = set()
        for item in items:
            kinds |= self._kinds(self._text(operator, item).lower())
        if not kinds:
            self._refuse("the list of values is empty")
        found = Condition(_LOG_TYPE, Operator.IN, tuple(sorted(kinds)))
        return Not(found) if operator == "neq" else found

    def _kinds(self, run_type: str) -> set[str]:
        """The kinds of span that are shown as a run type."""
        if run_type not in KIND_OF_RUN_TYPE:
            self._refuse(f"{shown(run_type)} is not a run_type; allowed: {', '.join(KIND_OF_RUN_TYPE)}")
        kinds = {kind for kind in KINDS if RUN_TYPE_OF_KIND.get(kind, "chain") == run_type}
        return kinds | {KIND_OF_RUN_TYPE[run_type]}

    def _has(self, operator: str, call: Call) -> Expr:
        name, value = self._two(operator, call)
        if name == "tags" and operator == "has":
            return self._on_entry("has", name, _OF_ENTRIES[name], value).alone
        if name != "metadata":
            allowed = "tags and metadata" if operator == "has" else "metadata"
            self._refuse(f"{operator} takes {allowed}, not `{name[:100]}`")
        text = self._text(operator, value)
        if operator == "exists":
            key = self._condition(name, field_named("metadata_key"), Operator.EQUALS, [text])
            return _entry(Collection.METADATA, [key])
        try:
            wanted = json.loads(text)
        except (ValueError, RecursionError):
            wanted = None
        if not isinstance(wanted, dict) or not wanted:
            self._refuse('has(metadata, …) takes an object as JSON text, as in has(metadata, \'{"key": "value"}\')')
        entries: list[Expr] = [self._pair(str(key), each) for key, each in wanted.items()]
        return Group("AND", tuple(entries)) if len(entries) > 1 else entries[0]

    def _pair(self, key: str, value: object) -> Expr:
        try:
            text = metadata_text(value)
        except ValueError as error:
            self._refuse(f"has(metadata, …): {error}")
        return _entry(
            Collection.METADATA,
            [
                self._condition("metadata", field_named("metadata_key"), Operator.EQUALS, [key]),
                self._condition("metadata", field_named("metadata_value"), Operator.EQUALS, [text]),
            ],
        )

    def _check_operator(self, operator: str, name: str, allowed: frozenset[str]) -> None:
        if operator not in allowed:
            words = ", ".join(each for each in OPERATORS if each in allowed)
            self._refuse(f"{operator} does not fit the field `{name}`; allowed: {words}")

    def _in_unit(self, name: str, about: Field, value: Scalar) -> object:
        """A value as make_condition takes it."""
        if value is None:
            self._refuse(f"a list takes no null; ask for it by eq({name}, null)")
        if name in _IN_SECONDS and isinstance(value, str):
            found = _DURATION.fullmatch(value) if len(value) <= _DURATION_CHARS_MAX else None
            if found is None:
                self._refuse(f'{shown(value)} is not a duration; write seconds or a unit, as in 2.5 or "500ms"')
            return Decimal(found[1]) * Decimal(_UNIT_S[found[2] or "s"])
        if about.name == "annotation_score" and isinstance(value, bool):
            return int(value)
        if about.type in _TEXT_TYPES and isinstance(value, Decimal):
            return _number_text(value) if about.type is FieldType.METADATA else value
        return value

    def _condition(self, name: str, about: Field, operator: Operator, values: Sequence[object]) -> Condition:
        try:
            return make_condition(name, about, operator, values)
        except InvalidFilter as error:
            raise InvalidFilter(f"`{self._param}`: {error}", fields=(self._param,)) from None

    def _scalar(self, value: Arg) -> Scalar:
        if isinstance(value, Array | Call | Name):
            self._refuse("a single value is needed: a text in quotes, a number, true, false or null")
        return value

    def _text(self, operator: str, value: Arg) -> str:
        if not isinstance(value, str) or not is_unicode(value) or (operator != "eq" and not value):
            self._refuse(f"{operator} takes a text in quotes here")
        return value

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidFilter(f"`{self._param}`: {why}", fields=(self._param,))


def _entry(collection: Collection, conditions: Sequence[Condition]) -> SomeEntry:
    return SomeEntry(collection, Group("AND", tuple(conditions)) if len(conditions) > 1 else conditions[0])


def _number_text(value: Decimal) -> object:
    """A number as metadata keeps it: a whole one without a point, another as the shortest float that it is."""
    return int(value) if value == value.to_integral_value() and abs(value) < 10**18 else float(value)


def _spellings(text: str) -> list[str]:
    """An id as clients write it: senders keep their own spelling, with dashes or without."""
    try:
        plain = normalise_id(text)
    except ValueError:
        return [text]
    dashed = f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"
    return list(dict.fromkeys((text, plain, dashed))) if len(plain) == 32 else [text]
