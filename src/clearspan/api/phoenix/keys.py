"""Phoenix's API keys. Phoenix lets no key make keys, for people sign in there; here a key with the scope `admin` does,
and what it makes can do nothing that it cannot."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.conventions import (
    Body,
    Moment,
    Refused,
    Text,
    bound_ns,
    data_reply,
    no_content,
    page_reply,
    phoenix,
    read_object,
    read_query,
    render_time,
)
from clearspan.api.phoenix.globalids import SYSTEM_KEY, USER, USER_KEY, payload_of, render
from clearspan.api.phoenix.users import Page, manager_of, page_of
from clearspan.api.services import Services, services_of
from clearspan.catalog.principal import Principal
from clearspan.catalog.users import HeldKey
from clearspan.model.errors import InvalidInput, NotFound, NotPermitted

_ORDER: Final = "user_keys"


class KeyData(Body):
    """What a key is to be."""

    name: Text
    description: str | None = None
    expires_at: Moment | None = None
    user_id: str | None = None  # ours: an administrator makes a key for somebody else


class CreateKey(Body):
    """The body of both POST routes."""

    data: KeyData


@requires(Permission.ADMIN)
async def list_system_keys(request: Request) -> Response:
    """The keys that act for no user, newest first."""
    services, principal = services_of(request), manager_of(request)
    keys = await services.reads.run(services.catalog.users.keys, principal.org_id)
    return data_reply([key_view(each) for each in keys if each.user_id is None])


@requires(Permission.ADMIN)
async def create_system_key(request: Request) -> Response:
    """A key that acts for no user, with the scopes of the key that makes it. Its text is in this answer only."""
    services, principal = services_of(request), manager_of(request)
    asked = (await read_object(request, CreateKey)).data
    return data_reply(await services.reads.run(_create, services, principal, asked, None), 201)


@requires(Permission.ADMIN)
async def delete_system_key(request: Request) -> Response:
    """Revoke a key that acts for no user."""
    return await _revoke(request, SYSTEM_KEY, "System API key not found")


@requires(Permission.READ)
async def list_own_keys(request: Request) -> Response:
    """The keys of the user whom the key acts for, newest first."""
    services, principal = services_of(request), principal_of(request)
    keys = await services.reads.run(services.catalog.users.keys, principal.org_id)
    mine = [each for each in keys if each.user_id is not None and each.user_id == principal.user_id]
    return data_reply([key_view(each) for each in mine])


@requires(Permission.ADMIN)
async def list_user_keys(request: Request) -> Response:
    """Every user's keys, newest first, with whom they act for."""
    services, principal = services_of(request), manager_of(request)
    asked = read_query(request, Page)
    keys = await services.reads.run(services.catalog.users.keys, principal.org_id)
    told = [(each.id, key_view(each) | {"user": _holder(each)}) for each in keys if each.user_id is not None]
    rows, following = page_of(told, asked, _ORDER)
    return page_reply(rows, following)


@requires(Permission.ADMIN)
async def create_user_key(request: Request) -> Response:
    """A key for oneself, or for the user of `data.user_id`. Its text is in this answer only."""
    services, principal = services_of(request), manager_of(request)
    asked = (await read_object(request, CreateKey)).data
    user_id = principal.user_id if asked.user_id is None else payload_of(asked.user_id, USER)
    if user_id is None:
        raise Refused(404, "User not found")
    return data_reply(await services.reads.run(_create, services, principal, asked, user_id), 201)


@requires(Permission.ADMIN)
async def delete_user_key(request: Request) -> Response:
    """Revoke a user's key, one's own or another's."""
    return await _revoke(request, USER_KEY, "API key not found")


def key_view(key: HeldKey) -> dict[str, Any]:
    """A key as lists show it: never its text."""
    view: dict[str, Any] = {
        "id": render(SYSTEM_KEY if key.user_id is None else USER_KEY, key.public_id),
        "name": key.name,
        "created_at": render_time(key.created_at_ns),
    }
    if key.description is not None:
        view["description"] = key.description
    if key.expires_at_ns is not None:
        view["expires_at"] = render_time(key.expires_at_ns)
    return view


def _holder(key: HeldKey) -> dict[str, Any]:
    return {"id": render(USER, key.user_id or ""), "username": key.user_name, "email": key.user_email}


def _create(services: Services, principal: Principal, asked: KeyData, user_id: str | None) -> dict[str, Any]:
    users = services.catalog.users
    try:
        made = users.create_key(
            principal, name=asked.name, description=asked.description, expires_at_ns=bound_ns(asked.expires_at),
            user_id=user_id,
        )  # fmt: skip
    except NotFound:
        raise Refused(404, "User not found") from None
    except NotPermitted as error:
        raise Refused(403, error.message) from None
    except InvalidInput as error:
        raise Refused(422, error.message) from None
    [key] = [each for each in users.keys(principal.org_id) if each.public_id == made.key.public_id]
    return key_view(key) | {"key": made.secret}


async def _revoke(request: Request, kind: str, absent: str) -> Response:
    services, principal = services_of(request), manager_of(request)
    given: str = request.path_params["key_id"]
    public_id = payload_of(given, kind)
    if public_id is None:
        raise Refused(422, f"Invalid {kind} GlobalID format: {given}")
    try:
        await services.reads.run(
            services.catalog.users.revoke_key, principal.org_id, public_id, is_machine=kind == SYSTEM_KEY
        )  # fmt: skip
    except NotFound:
        raise Refused(404, absent) from None
    return no_content()


ROUTES: Final = (
    phoenix("GET", "/system/api_keys", list_system_keys),
    phoenix("POST", "/system/api_keys", create_system_key),
    phoenix("DELETE", "/system/api_keys/{key_id}", delete_system_key),
    phoenix("GET", "/user/api_keys", list_own_keys),
    phoenix("POST", "/user/api_keys", create_user_key),
    phoenix("DELETE", "/user/api_keys/{key_id}", delete_user_key),
    phoenix("GET", "/users/api_keys", list_user_keys),
)
