"""Whether an item's values have the form that its dataset asks for (JSON Schema)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jsonschema import exceptions
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from clearspan.model.errors import InvalidInput

_NOWHERE: Final[Registry[Any]] = Registry()  # else a `$ref` to an address would be fetched from there
_PLACES_MAX: Final = 3


def check_schema(schema: Mapping[str, Any] | None, name: str) -> None:
    """Refuse a text that is no JSON Schema of a draft that is known.

    Raises:
        InvalidInput: with where it is wrong.
    """
    if schema is None:
        return
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except exceptions.SchemaError as error:
        raise InvalidInput(f"{name} is not a JSON Schema: {_place(error)}.", fields=(name,)) from None


class SchemaCheck:
    """Checks values against a dataset's two schemas, each prepared once.

    Schemas are the operator's own; a `$ref` may point within the schema only.
    """

    def __init__(self, inputs: Mapping[str, Any] | None, outputs: Mapping[str, Any] | None) -> None:
        self._validators = {
            name: _validator(schema)
            for name, schema in (("inputs", inputs), ("outputs", outputs))
            if schema is not None
        }

    def check(self, inputs: Any, outputs: Any, where: str) -> None:
        """Refuse values that do not have the form. Outputs that are not there have any form.

        Args:
            where: which item, for the message.
        Raises:
            InvalidInput: the first places that are wrong, by path and rule; never what stands there.
        """
        for name, value in (("inputs", inputs), ("outputs", outputs)):
            validator = self._validators.get(name)
            if validator is None or (name == "outputs" and value is None):
                continue
            try:
                errors = [error for error, _ in zip(validator.iter_errors(value), range(_PLACES_MAX), strict=False)]
            except (Unresolvable, RecursionError) as error:
                text = f"{where}: the schema of {name} cannot be applied: {type(error).__name__}."
                raise InvalidInput(text, code="schema_unusable", fields=(name,)) from None
            if errors:
                places = "; ".join(map(_place, errors))
                text = f"{where}: {name} does not fit the dataset's schema: {places}."
                raise InvalidInput(text, code="schema_mismatch", fields=(name,))


def _validator(schema: Mapping[str, Any]) -> Validator:
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, registry=_NOWHERE)


def _place(error: exceptions._Error) -> str:
    path = "/".join(str(each) for each in error.absolute_path)
    return f"at /{path[:200]}, rule {error.validator!r}"
