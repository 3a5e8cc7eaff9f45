"""Operations of the dialect whose bodies are described as objects and no further."""

from __future__ import annotations

import re
from typing import Any, Final

from clearspan.api.routing import Endpoint, RestRoute

_TAG: Final = "respan"
_OBJECT: Final = {"content": {"application/json": {"schema": {"type": "object"}}}}


def operation(
    method: str, path: str, endpoint: Endpoint, status: str = "200", *, also: tuple[str, ...] = (), **more: Any
) -> RestRoute:
    """One operation; `also` are methods besides, which the description leaves out."""
    names = re.findall(r"\{(\w+)\}", path)
    openapi: dict[str, Any] = {
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {status: {"description": "Success.", **({} if status == "204" else _OBJECT)}},
    }
    if method in ("POST", "PATCH"):
        openapi["requestBody"] = {"required": False, **_OBJECT}
    return RestRoute((method, *also), path, endpoint, _TAG, openapi=openapi, **more)
