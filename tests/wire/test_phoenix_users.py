"""Phoenix's users and keys: whom keys act for, what a key may make, and what removing a user takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clearspan.api.phoenix import globalids
from clearspan.catalog import KeyScope
from clearspan.catalog.users import Role
from clearspan.testing.wire import OWNER_KEY, Wire, open_wire

GONE = "Only admin or system users can perform this action."


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """Nothing here touches the store."""
    with ExitStack() as stack:
        yield open_wire(stack, tmp_path / "data", "memory")


def new_user(wire: Wire, name: str, role: str = "MEMBER", **rest: Any) -> Any:
    told = {"email": f"{name}@example.com", "username": name, "role": role, "auth_method": "LOCAL", "password": "pw-1"}
    return wire.post("/v1/users", {"user": told | rest, "send_welcome_email": False})


def new_key(wire: Wire, user_id: str | None = None, *, key: str = OWNER_KEY, **rest: Any) -> Any:
    path = "/v1/system/api_keys" if user_id is None else "/v1/user/api_keys"
    data = {"name": "k"} | rest | ({} if user_id is None else {"user_id": user_id})
    return wire.post(path, {"data": data}, key=key)


def test_a_user_is_made_listed_and_shown(wire: Wire) -> None:
    made = new_user(wire, "ann")
    assert made.status_code == 201
    told = made.json()["data"]
    assert told == {
        "id": told["id"], "created_at": told["created_at"], "updated_at": told["created_at"],
        "email": "ann@example.com", "username": "ann", "role": "MEMBER", "auth_method": "LOCAL",
        "password_needs_reset": False,
    }  # fmt: skip
    assert globalids.parse(told["id"]) == ("User", wire.catalog.users.every(wire.catalog.first_org.id)[0].public_id)
    listed = wire.get("/v1/users").json()
    assert [each["username"] for each in listed["data"]] == ["ann", "owner"]
    assert listed["next_cursor"] is None
    assert wire.get("/v1/user").json()["data"]["role"] == "ADMIN"


def test_no_password_is_kept(wire: Wire) -> None:
    new_user(wire, "ann", password="needle-in-a-password")
    assert b"needle-in-a-password" not in b"".join(path.read_bytes() for path in wire.data.iterdir() if path.is_file())


def test_users_come_in_pages(wire: Wire) -> None:
    for name in ("a", "b", "c"):
        new_user(wire, name)
    seen, cursor = [], ""
    while True:
        page = wire.get(f"/v1/users?limit=1{cursor}").json()
        seen += [each["username"] for each in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = "&cursor=" + page["next_cursor"].replace("=", "%3D").replace("+", "%2B")
    assert seen == ["c", "b", "a", "owner"]
    bad = wire.get("/v1/users?cursor=garbage")
    assert (bad.status_code, bad.text) == (422, "Invalid cursor format: garbage")


def test_what_a_user_may_not_be(wire: Wire) -> None:
    new_user(wire, "ann")
    for answer, status, text in (
        (new_user(wire, "ann", email="other@example.com"), 409, "Username already exists"),
        (new_user(wire, "other", email="ANN@example.com"), 409, "Email already exists"),
        (new_user(wire, "root", "SYSTEM"), 400, "Cannot create users with SYSTEM role"),
        (new_user(wire, "bob", email="no address"), 422, "That is no e-mail address."),
    ):
        assert (answer.status_code, answer.text) == (status, text)
    assert new_user(wire, "bob", "KING").json()["detail"][0]["loc"] == ["body", "user", "role"]
    assert new_user(wire, "").json()["detail"][0]["type"] == "string_too_short"


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        ("ADMIN", set(KeyScope)),
        ("MEMBER", {KeyScope.INGEST, KeyScope.READ, KeyScope.ANNOTATE, KeyScope.DELETE}),
        ("VIEWER", {KeyScope.READ}),
    ],
)
def test_a_users_key_may_what_the_role_may_and_is_shown_once(wire: Wire, role: str, scopes: set[KeyScope]) -> None:
    user = new_user(wire, "ann", role).json()["data"]
    made = new_key(wire, user["id"], description="laptop", expires_at="2100-01-01T00:00:00Z")
    assert made.status_code == 201
    told = made.json()["data"]
    assert set(told) == {"id", "name", "created_at", "description", "expires_at", "key"}
    principal = wire.catalog.authenticate(told["key"])
    assert principal.scopes == scopes
    assert wire.get("/v1/user", key=told["key"]).json()["data"] == user
    mine = wire.get("/v1/user/api_keys", key=told["key"]).json()["data"]
    assert mine == [{name: value for name, value in told.items() if name != "key"}]
    everyones = wire.get("/v1/users/api_keys").json()["data"]
    assert everyones[0]["user"] == {"id": user["id"], "username": "ann", "email": "ann@example.com"}
    assert told["key"] not in wire.get("/v1/users/api_keys").text


def test_a_viewers_key_only_reads(wire: Wire) -> None:
    user = new_user(wire, "eve", "VIEWER").json()["data"]
    key = new_key(wire, user["id"]).json()["data"]["key"]
    for method, path in (("POST", "/v1/users"), ("DELETE", "/v1/users/x"), ("POST", "/v1/system/api_keys")):
        answer = wire.send(method, path, {}, key=key)
        assert (answer.status_code, answer.text) == (403, "Viewers cannot perform this action.")
    assert wire.get("/v1/users", key=key).text == GONE


def test_a_system_key_acts_for_nobody(wire: Wire) -> None:
    made = new_key(wire).json()["data"]
    assert globalids.parse(made["id"])[0] == "SystemApiKey"  # type: ignore[index]
    assert wire.get("/v1/user", key=made["key"]).json() == {"data": {"auth_method": "ANONYMOUS"}}
    listed = wire.get("/v1/system/api_keys").json()["data"]
    assert listed == [{name: made[name] for name in ("id", "name", "created_at")}]
    assert wire.send("DELETE", f"/v1/user/api_keys/{made['id']}").status_code == 422
    gone = wire.send("DELETE", f"/v1/system/api_keys/{made['id']}")
    assert (gone.status_code, gone.content, gone.headers.get("content-type")) == (204, b"", None)
    assert wire.get("/v1/projects", key=made["key"]).status_code == 401
    again = wire.send("DELETE", f"/v1/system/api_keys/{made['id']}")
    assert (again.status_code, again.text) == (404, "System API key not found")
    assert wire.get("/v1/system/api_keys").json() == {"data": []}


def test_a_key_makes_none_that_can_do_more(wire: Wire) -> None:
    keeper = wire.key(KeyScope.ADMIN, KeyScope.READ)
    member = new_user(wire, "ann").json()["data"]["id"]
    made = new_key(wire, member, key=keeper).json()["data"]["key"]
    assert wire.catalog.authenticate(made).scopes == {KeyScope.READ}
    assert wire.catalog.authenticate(new_key(wire, key=keeper).json()["data"]["key"]).scopes == {
        KeyScope.ADMIN, KeyScope.READ,
    }  # fmt: skip
    nothing = new_key(wire, member, key=wire.key(KeyScope.ADMIN))
    assert nothing.status_code == 403
    mine = wire.catalog.create_project(wire.catalog.first_org.id, "mine")
    for limited in (wire.key(*KeyScope, project_ids=[mine.id]), wire.key(*KeyScope, environment="test")):
        for method, path in (("GET", "/v1/users"), ("POST", "/v1/users"), ("POST", "/v1/system/api_keys")):
            answer = wire.send(method, path, {"data": {"name": "k"}}, key=limited)
            assert answer.status_code == 403, (method, path)
            assert "limited to projects or an environment" in answer.text


def test_removing_a_user_revokes_their_keys_at_once(wire: Wire) -> None:
    user = new_user(wire, "ann").json()["data"]["id"]
    keys = [new_key(wire, user).json()["data"]["key"] for _ in range(2)]
    assert all(wire.get("/v1/user", key=key).status_code == 200 for key in keys)
    assert wire.send("DELETE", f"/v1/users/{user}").status_code == 204
    for key in keys:
        answer = wire.get("/v1/user", key=key)
        assert (answer.status_code, answer.text) == (401, "Invalid token")
    again = wire.send("DELETE", f"/v1/users/{user}")
    assert (again.status_code, again.text) == (404, "User not found")
    assert "ann" not in wire.get("/v1/users").text
    assert not wire.catalog.checkpoint() or b"ann@example.com" not in (wire.data / "catalog.db").read_bytes()
    assert new_user(wire, "ann").status_code == 201


def test_the_owner_stays(wire: Wire) -> None:
    owner = wire.get("/v1/user").json()["data"]["id"]
    answer = wire.send("DELETE", f"/v1/users/{owner}")
    assert (answer.status_code, answer.text) == (403, "Cannot delete the default admin or system user")
    assert wire.send("DELETE", "/v1/users/nobody").text == "Invalid User GlobalID format: nobody"


def test_tenants_do_not_meet(wire: Wire) -> None:
    other = wire.catalog.create_organisation("other")
    theirs = wire.key(*KeyScope, org_id=other.id)
    user = wire.catalog.users.create(wire.catalog.first_org.id, "ann", "ann@example.com", Role.MEMBER)
    system = new_key(wire).json()["data"]["id"]
    assert wire.get("/v1/users", key=theirs).json()["data"] == []
    assert wire.get("/v1/system/api_keys", key=theirs).text.count(system) == 0
    gid = globalids.render("User", user.public_id)
    assert wire.send("DELETE", f"/v1/users/{gid}", key=theirs).status_code == 404
    assert new_key(wire, gid, key=theirs).status_code == 404
    assert wire.send("DELETE", f"/v1/system/api_keys/{system}", key=theirs).status_code == 404
    assert wire.catalog.users.create(other.id, "ann", "ann@example.com", Role.MEMBER).name == "ann"
