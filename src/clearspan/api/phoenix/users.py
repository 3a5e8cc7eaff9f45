"""Phoenix's users. People sign in with keys here: a password is taken and thrown away, and no mail is sent."""

from __future__ import annotations

from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.phoenix.conventions import (
    AnyLimit,
    Body,
    Query,
    Refused,
    Text,
    data_reply,
    no_content,
    page_reply,
    phoenix,
    read_object,
    read_query,
    render_time,
)
from clearspan.api.phoenix.cursors import parse_cursor, render_cursor
from clearspan.api.phoenix.globalids import USER, payload_of, render
from clearspan.api.services import Services, services_of
from clearspan.catalog.principal import Principal
from clearspan.catalog.users import Role, User
from clearspan.model.errors import Conflict, InvalidInput, NotFound, NotPermitted

LIMITED_KEYS: Final = "A key that is limited to projects or an environment manages no users and no keys."
NOT_DELETED: Final = "Cannot delete the default admin or system user"
PAGE_MAX: Final = 1000
_ORDER: Final = "users"


class Page(Query):
    """A page of users or keys."""

    cursor: str | None = None
    limit: AnyLimit = 100


class NewUser(Body):
    """Who is to be made."""

    email: Text
    username: Text
    role: Literal["SYSTEM", "ADMIN", "MEMBER", "VIEWER"]
    auth_method: Literal["LOCAL"] = "LOCAL"
    password: str | None = None


class CreateUser(Body):
    """The body of POST /v1/users."""

    user: NewUser
    send_welcome_email: bool = True


@requires(Permission.READ)
async def current_user(request: Request) -> Response:
    """The user whom the key acts for; a machine's key acts for nobody."""
    services, principal = services_of(request), principal_of(request)
    if principal.user_id is None:
        return data_reply({"auth_method": "ANONYMOUS"})
    user = await services.reads.run(services.catalog.users.get, principal.org_id, principal.user_id)
    return data_reply(user_view(user))


@requires(Permission.ADMIN)
async def list_users(request: Request) -> Response:
    """The organisation's users, newest first."""
    services, principal = services_of(request), manager_of(request)
    asked = read_query(request, Page)
    users = await services.reads.run(services.catalog.users.every, principal.org_id)
    rows, following = page_of([(each.id, user_view(each)) for each in users], asked, _ORDER)
    return page_reply(rows, following)


@requires(Permission.ADMIN)
async def create_user(request: Request) -> Response:
    """A new user, whose role bounds what keys made for them may do."""
    services, principal = services_of(request), manager_of(request)
    asked = (await read_object(request, CreateUser)).user
    if asked.role == "SYSTEM":
        raise Refused(400, "Cannot create users with SYSTEM role")
    return data_reply(await services.reads.run(_create, services, principal, asked), 201)


@requires(Permission.ADMIN)
async def delete_user(request: Request) -> Response:
    """Remove a user, and revoke every key that acts for them."""
    services, principal = services_of(request), manager_of(request)
    given: str = request.path_params["user_id"]
    public_id = payload_of(given, USER)
    if public_id is None:
        raise Refused(422, f"Invalid User GlobalID format: {given}")
    try:
        await services.reads.run(services.catalog.users.remove, principal.org_id, public_id)
    except NotFound:
        raise Refused(404, "User not found") from None
    except NotPermitted:
        raise Refused(403, NOT_DELETED) from None
    return no_content()


def manager_of(request: Request) -> Principal:
    """Who asks, if the key may manage users and keys. Raises Refused: what it made could do more than itself."""
    principal = principal_of(request)
    if principal.bound or principal.environment is not None:
        raise Refused(403, LIMITED_KEYS)
    return principal


def user_view(user: User) -> dict[str, Any]:
    """A user as Phoenix shows one."""
    made = render_time(user.created_at_ns)
    return {
        "id": render(USER, user.public_id),
        "created_at": made,
        "updated_at": made,
        "email": user.email,
        "username": user.name,
        "role": "ADMIN" if user.role is Role.OWNER else user.role.value.upper(),
        "auth_method": "LOCAL",
        "password_needs_reset": False,
    }


def page_of(rows: list[tuple[int, dict[str, Any]]], asked: Page, order: str) -> tuple[list[dict[str, Any]], str | None]:
    """(one page of (number, row), the cursor of the next). Raises Refused for a cursor of another list."""
    if asked.cursor is not None:
        first = parse_cursor(asked.cursor, order, int)
        if first is None:
            raise Refused(422, f"Invalid cursor format: {asked.cursor}")
        rows = [row for row in rows if row[0] <= int(first[0] or 0)]
    limit = min(asked.limit, PAGE_MAX)
    following = render_cursor(order, rows[limit][0]) if len(rows) > limit else None
    return [row for _, row in rows[:limit]], following


def _create(services: Services, principal: Principal, asked: NewUser) -> dict[str, Any]:
    try:
        made = services.catalog.users.create(
            principal.org_id, asked.username, asked.email, Role(asked.role.lower())
        )  # fmt: skip
    except Conflict as error:
        raise Refused(409, f"{'Email' if 'email' in error.fields else 'Username'} already exists") from None
    except InvalidInput as error:
        raise Refused(422, error.message) from None
    return user_view(made)


ROUTES: Final = (
    phoenix("GET", "/user", current_user),
    phoenix("GET", "/users", list_users),
    phoenix("POST", "/users", create_user),
    phoenix("DELETE", "/users/{user_id}", delete_user),
)
