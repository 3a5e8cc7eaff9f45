"""`condition_policy`: a closed filter on one item, in the shape that Respan's filters have.

    {"output": {"operator": "icontains", "value": ["sorry"]}, "scores__exact": {"operator": "gte", "value": 0.5}}

All fields must hold; a field may have a list of conditions. Fields are `input`, `output` and `expected_output` (each
with a dotted path behind it, `output.answer`), `metadata__<key>` and `scores__<evaluator>`; the vendor's prefix
`event.` is understood. Operators and their treatment of missing values are those of query/operators.py. Numbers and
texts that are numbers compare as numbers under lt … gte; a comparison that cannot be made does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from clearspan.experiments.templates import MISSING, as_text, look_up
from clearspan.model.errors import InvalidInput
from clearspan.query.operators import EQUALITY, NEGATIONS, ORDER, PRESENCE, Operator, parse_operator

CHECKS_MAX: Final = 50
_ROOTS: Final = ("input", "output", "expected_output", "metadata", "scores")
_OPERATORS: Final = frozenset(Operator) - {Operator.FULL_TEXT_SEARCH, Operator.LIKE}


@dataclass(frozen=True, slots=True)
class Check:
    """One condition.

    Attributes:
        path: what is looked at, `output.answer`.
        values: what it is compared with; empty for tests of presence.
    """

    path: str
    operator: Operator
    values: tuple[Any, ...]

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether it holds for an item; `facts` has a member for each root that is there."""
        found = look_up(facts, self.path)
        is_missing = found is MISSING or found is None
        match self.operator:
            case Operator.IS_NULL:
                return is_missing
            case Operator.IS_NOT_NULL:
                return not is_missing
            case Operator.EMPTY:
                return is_missing or found == ""
            case Operator.NOT_EMPTY:
                return not (is_missing or found == "")
        if is_missing:
            return False
        positive = NEGATIONS.get(self.operator)
        if positive is not None:
            return not any(_compare(positive, found, value) for value in self.values)
        return any(_compare(self.operator, found, value) for value in self.values)


def parse_policy(policy: Any) -> tuple[Check, ...]:
    """The checks of a condition_policy.

    Raises:
        InvalidInput: `fields` holds the key inside the policy, the message what is wrong with it.
    """
    if not isinstance(policy, dict) or not policy:
        raise InvalidInput("must be an object with at least one field")
    checks = [check for field, said in policy.items() for check in _parse_field(str(field), said)]
    if len(checks) > CHECKS_MAX:
        raise InvalidInput(f"has more than {CHECKS_MAX} conditions")
    return tuple(checks)


def _parse_field(field: str, said: Any) -> list[Check]:
    path = field.removeprefix("event.").replace("__", ".", 1)
    root, _, rest = path.partition(".")
    if root not in _ROOTS or (root in ("metadata", "scores") and not rest):
        known = "input, output, expected_output, metadata__<key>, scores__<evaluator>"
        raise InvalidInput(f"is not known (allowed: {known})", fields=(field[:100],))
    return [_parse_check(field[:100], path, each) for each in (said if isinstance(said, list) else [said])]


def _parse_check(field: str, path: str, said: Any) -> Check:
    if not isinstance(said, dict) or not said.keys() <= {"operator", "value"}:
        raise InvalidInput("must be an object with operator and value", fields=(field,))
    word = said.get("operator")
    operator = parse_operator(word) if word is None or isinstance(word, str) else None
    if operator not in _OPERATORS:
        raise InvalidInput("has an operator that is not known", fields=(field, "operator"))
    value = said.get("value")
    values = tuple(value) if isinstance(value, list) else (value,)
    if operator in PRESENCE:
        turned = operator is Operator.IS_NULL and values[:1] == (False,)
        return Check(path, Operator.IS_NOT_NULL if turned else operator, ())
    if not values or not all(isinstance(each, str | int | float) for each in values):
        raise InvalidInput("must hold texts, numbers or truth values", fields=(field, "value"))
    if operator not in EQUALITY and len(values) > 1:
        raise InvalidInput("takes one value with this operator", fields=(field, "value"))
    return Check(path, operator, values)


def _compare(operator: Operator, found: Any, wanted: Any) -> bool:
    """A positive operator on a value that is there."""
    if operator in (Operator.EQUALS, Operator.IN):
        return _equal(found, wanted)
    if operator in ORDER:
        left, right = _number(found), _number(wanted)
        return left is not None and right is not None and _ordered(operator, left, right)
    text, other = as_text(found), as_text(wanted)
    match operator:
        case Operator.CONTAINS:
            return other in text
        case Operator.ICONTAINS:
            return other.casefold() in text.casefold()
        case Operator.IEXACT:
            return other.casefold() == text.casefold()
        case Operator.STARTSWITH:
            return text.startswith(other)
        case _:
            assert operator is Operator.ENDSWITH, "every other operator was dealt with"
            return text.endswith(other)


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) is not isinstance(wanted, bool):
        return False
    return bool(found == wanted)


def _ordered(operator: Operator, left: Decimal, right: Decimal) -> bool:
    match operator:
        case Operator.LT:
            return left < right
        case Operator.LTE:
            return left <= right
        case Operator.GT:
            return left > right
        case _:
            return left >= right


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def hold(checks: Sequence[Check], facts: Mapping[str, Any]) -> bool:
    """Whether every check holds."""
    return all(check.holds(facts) for check in checks)
