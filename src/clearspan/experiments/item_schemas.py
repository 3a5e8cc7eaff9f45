"""Whether an item's values have the form that its dataset asks for (JSON Schema)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearspan.experiments.schema_check import SchemaTrouble, first_violation
from clearspan.model.errors import InvalidInput


def check_schema(schema: Mapping[str, Any] | None, name: str) -> None:
    """Refuse what is no JSON Schema of a draft that is known.

    Raises:
        InvalidInput: with where it is wrong.
    """
    if schema is None:
        return
    # 0.3 s when first imported, which a server without schemas need not spend.
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(dict(schema))
    except SchemaError as error:
        place = "/".join(str(each) for each in error.absolute_path)[:200]
        text = f"{name} is not a JSON Schema: {error.validator} at /{place}."
        raise InvalidInput(text, code="invalid_schema", fields=(name,)) from None


class SchemaCheck:
    """Checks values against a dataset's two schemas, in bounded time; a `$ref` may point within the schema only."""

    def __init__(self, inputs: Mapping[str, Any] | None, outputs: Mapping[str, Any] | None) -> None:
        self._schemas = {"inputs": inputs, "outputs": outputs}

    def check(self, inputs: Any, outputs: Any, where: str) -> None:
        """Refuse values that do not have the form. Outputs that are not there have any form.

        Args:
            where: which item, for the message.
        Raises:
            InvalidInput: the first place that is wrong, by rule and path; never what stands there.
        """
        for name, value in (("inputs", inputs), ("outputs", outputs)):
            schema = self._schemas[name]
            if schema is None or (name == "outputs" and value is None):
                continue
            try:
                violation = first_violation(schema, value)
            except SchemaTrouble as error:
                text = f"{where}: the schema of {name} cannot be applied: {error}."
                raise InvalidInput(text, code="schema_unusable", fields=(name,)) from None
            if violation is not None:
                text = f"{where}: {name} does not fit the dataset's schema: {violation}."
                raise InvalidInput(text, code="schema_mismatch", fields=(name,))
