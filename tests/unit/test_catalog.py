"""The catalog: tenants apart, keys that expire and are revoked, shares without names, a ledger that only grows."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from clearspan.catalog import Catalog, KeyScope, NewKey, Organisation, Share, jobs, ledger
from clearspan.catalog import access as access_module
from clearspan.catalog.access import FRESH_S
from clearspan.catalog.ledger import NO_HASH, check_chain
from clearspan.catalog.tables import api_key, app_user, share
from clearspan.model.clock import SystemIds
from clearspan.model.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, NotPermitted, StoreDamaged
from clearspan.model.trace import Scope
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def catalog(tmp_path: Path, clock: FixedClock) -> Iterator[Catalog]:
    lay_catalog(tmp_path)
    with Catalog.open(tmp_path, clock=clock, ids=CountingIds()) as opened:
        yield opened


@pytest.fixture
def org(catalog: Catalog) -> Organisation:
    return catalog.first_org


def make_key(catalog: Catalog, org: Organisation, **bounds: object) -> NewKey:
    return catalog.create_key(org.id, **({"name": "test"} | bounds))  # type: ignore[arg-type]


# Tenants


def test_a_fresh_catalog_has_one_organisation_with_a_default_project_and_an_owner(
    catalog: Catalog, org: Organisation
) -> None:
    assert [each.name for each in catalog.projects(org.id)] == ["default"]
    with catalog.database.read() as db:
        assert [tuple(row) for row in db.execute(select(app_user.c.name, app_user.c.role))] == [("owner", "owner")]
    assert not catalog.has_valid_key()
    assert len(catalog.tombstone_secret) == 32


def test_opening_again_changes_nothing(tmp_path: Path, catalog: Catalog, org: Organisation) -> None:
    with Catalog.open(tmp_path) as again:
        assert again.organisations() == [org]
        assert again.instance_id == catalog.instance_id
        assert again.tombstone_secret == catalog.tombstone_secret
        assert again.projects(org.id) == catalog.projects(org.id)


def test_a_project_name_is_taken_once_in_each_organisation(catalog: Catalog, org: Organisation) -> None:
    other = catalog.create_organisation("Other")
    mine, theirs = catalog.create_project(org.id, "chat"), catalog.create_project(other.id, "chat")
    assert mine.id != theirs.id
    with pytest.raises(Conflict):
        catalog.create_project(org.id, "chat")
    assert catalog.find_project(org.id, "chat") == mine
    assert catalog.find_project(other.id, "chat") == theirs
    assert catalog.find_project(org.id, "nothing") is None
    assert [each.name for each in catalog.projects(org.id)] == ["default", "chat"]


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\nb", "\ud800", "x" * 256])
def test_a_name_that_is_none_is_refused(catalog: Catalog, org: Organisation, name: str) -> None:
    with pytest.raises(InvalidInput):
        catalog.create_project(org.id, name)
    with pytest.raises(InvalidInput):
        make_key(catalog, org, name=name)


def test_a_project_number_is_never_used_again(catalog: Catalog, org: Organisation) -> None:
    last = catalog.create_project(org.id, "short-lived")
    with catalog.database.write() as db:
        db.execute(text("DELETE FROM project WHERE id = :id"), {"id": last.id})
    assert catalog.create_project(org.id, "next").id > last.id


def test_an_organisation_never_looks_like_a_path_segment(catalog: Catalog) -> None:
    for each in (catalog.first_org, catalog.create_organisation("v1"), catalog.create_organisation("traces")):
        assert each.public_id.startswith("org_")
        assert len(each.public_id) == 36


# Keys


def test_a_key_is_stored_as_its_hash_alone(catalog: Catalog, org: Organisation, tmp_path: Path) -> None:
    made = make_key(catalog, org)
    with catalog.database.read() as db:
        row = db.execute(select(api_key)).one()
    assert row.digest == hashlib.sha256(made.secret.encode()).digest()
    assert row.prefix == made.secret[: len("cs_12345678")]
    assert made.secret not in repr(made)
    catalog.checkpoint()
    secret_part = made.secret.rsplit("_", 1)[0].encode() + b"_"
    for path in tmp_path.iterdir():
        assert secret_part not in path.read_bytes(), path.name


def test_keys_are_random_and_of_one_form() -> None:
    ids = SystemIds()
    made = {access_module.render_key(ids.token_bytes(4), ids.token_bytes(32)) for _ in range(100)}
    assert len(made) == 100
    assert all(access_module.prefix_of(key) == key[:11] and len(key) == 55 for key in made)


def test_a_valid_key_names_its_principal(catalog: Catalog, org: Organisation) -> None:
    made = make_key(catalog, org, scopes=[KeyScope.READ, KeyScope.INGEST])
    who = catalog.authenticate(made.secret)
    assert (who.org_id, who.org_public_id, who.org_name) == (org.id, org.public_id, org.name)
    assert (who.key_id, who.key_name, who.scopes) == (made.key.public_id, "test", {"read", "ingest"})
    assert not who.bound
    who.require(KeyScope.READ)
    with pytest.raises(NotPermitted, match="`delete`"):
        who.require(KeyScope.DELETE)


@pytest.mark.parametrize("change", ["", "x", " "])
def test_a_wrong_key_is_refused(catalog: Catalog, org: Organisation, change: str) -> None:
    secret = make_key(catalog, org).secret
    wrong = change and (secret[:-1] + ("A" if secret[-1] != "A" else "B") if change == "x" else secret + change)
    with pytest.raises(NotAuthenticated):
        catalog.authenticate(wrong)
    with pytest.raises(NotAuthenticated):
        catalog.authenticate("k" * 10_000_000)
    catalog.authenticate(secret)


def test_digests_are_compared_in_constant_time(
    catalog: Catalog, org: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def compare(left: bytes, right: bytes) -> bool:
        seen.append((left, right))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr(access_module, "hmac", SimpleNamespace(compare_digest=compare))
    secret = make_key(catalog, org).secret
    with pytest.raises(NotAuthenticated):
        catalog.authenticate(secret[:-1] + ("A" if secret[-1] != "A" else "B"))
    assert len(seen) == 1, "the prefix finds the row, compare_digest judges it"
    assert seen[0][0] == hashlib.sha256(secret.encode()).digest()


def test_an_expired_key_is_refused_at_its_very_time(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    made = make_key(catalog, org, expires_at_ns=clock.now_ns() + HOUR_NS)
    catalog.authenticate(made.secret)
    clock.advance(3600)
    with pytest.raises(NotAuthenticated):
        catalog.authenticate(made.secret)
    with pytest.raises(InvalidInput):
        make_key(catalog, org, expires_at_ns=clock.now_ns())


def test_a_revoked_key_is_refused_at_once(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    made, other = make_key(catalog, org), make_key(catalog, org)
    catalog.authenticate(made.secret)
    first = catalog.revoke_key(org.id, made.key.public_id)
    with pytest.raises(NotAuthenticated):
        catalog.authenticate(made.secret)
    clock.advance(1)
    assert catalog.revoke_key(org.id, made.key.prefix) == first, "revoking again keeps the first time"
    assert catalog.authenticate(other.secret).key_id == other.key.public_id
    with pytest.raises(NotFound):
        catalog.revoke_key(org.id, made.secret)


def test_a_key_revoked_by_another_process_is_refused_soon(
    tmp_path: Path, catalog: Catalog, org: Organisation, clock: FixedClock
) -> None:
    made = make_key(catalog, org)
    catalog.authenticate(made.secret)
    with Catalog.open(tmp_path, clock=clock) as command:
        command.revoke_key(org.id, made.key.public_id)
    clock.advance(FRESH_S)
    assert FRESH_S < 5
    with pytest.raises(NotAuthenticated):
        catalog.authenticate(made.secret)


def test_answers_come_from_memory_between_look_ups(
    catalog: Catalog, org: Organisation, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_key(catalog, org)
    first = catalog.authenticate(made.secret)
    monkeypatch.setattr(catalog.database, "read", lambda: pytest.fail("the file was asked"))
    clock.advance(FRESH_S * 0.9)
    assert catalog.authenticate(made.secret) is first
    assert catalog.was_seen(made.secret)
    assert not catalog.was_seen("cs_00000000_" + "A" * 43)


def test_a_new_project_is_open_to_unbound_keys_at_once(catalog: Catalog, org: Organisation) -> None:
    [default] = catalog.projects(org.id)
    free = make_key(catalog, org)
    bound = make_key(catalog, org, project_ids=[default.id])
    assert catalog.authenticate(free.secret).project_ids == (default.id,)
    chat = catalog.create_project(org.id, "chat")
    assert catalog.authenticate(free.secret).project_ids == (default.id, chat.id)
    assert catalog.authenticate(bound.secret).project_ids == (default.id,)


def test_writes_go_to_the_named_project_or_the_default(catalog: Catalog, org: Organisation) -> None:
    [default] = catalog.projects(org.id)
    chat, code = (catalog.create_project(org.id, name) for name in ("chat", "code"))
    free = catalog.authenticate(make_key(catalog, org).secret)
    assert free.project_for_write() == default.id
    assert free.project_for_write(code.id) == code.id
    bound = catalog.authenticate(make_key(catalog, org, project_ids=[code.id, chat.id]).secret)
    assert bound.project_for_write() == chat.id, "without the default: the oldest"
    with pytest.raises(NotPermitted):
        bound.project_for_write(default.id)


def test_an_environment_binds_reads_and_writes(catalog: Catalog, org: Organisation) -> None:
    staging = catalog.authenticate(make_key(catalog, org, environment="staging").secret)
    ids = staging.project_ids
    assert staging.scope_for_read() == staging.scope_for_read("staging") == Scope(ids, "staging")
    with pytest.raises(NotPermitted, match="staging"):
        staging.scope_for_read("production")
    assert staging.environment_for_write("production") == "staging"
    free = catalog.authenticate(make_key(catalog, org).secret)
    assert free.scope_for_read() == Scope(ids, None)
    assert free.scope_for_read("production") == Scope(ids, "production")
    assert free.environment_for_write("production") == "production"
    assert free.environment_for_write(None) is None


@pytest.mark.parametrize("environment", ["", "x" * 65, "a\nb"])
def test_an_environment_that_is_none_is_refused(catalog: Catalog, org: Organisation, environment: str) -> None:
    with pytest.raises(InvalidInput):
        make_key(catalog, org, environment=environment)


def test_a_key_needs_scopes_and_projects_of_its_own(catalog: Catalog, org: Organisation) -> None:
    foreign = catalog.projects(catalog.create_organisation("Other").id)[0]
    for bounds in ({"scopes": []}, {"project_ids": []}, {"project_ids": [foreign.id]}, {"project_ids": [999]}):
        with pytest.raises(InvalidInput):
            make_key(catalog, org, **bounds)


def test_tenants_do_not_see_each_other(catalog: Catalog, org: Organisation) -> None:
    other = catalog.create_organisation("Other")
    mine, theirs = make_key(catalog, org), make_key(catalog, other)
    assert [key.public_id for key in catalog.list_keys(org.id)] == [mine.key.public_id]
    with pytest.raises(NotFound):
        catalog.revoke_key(org.id, theirs.key.public_id)
    with pytest.raises(NotFound):
        catalog.revoke_key(org.id, theirs.key.prefix)
    who = catalog.authenticate(theirs.secret)
    assert who.org_id == other.id
    assert not set(who.project_ids) & {each.id for each in catalog.projects(org.id)}


# The owner's key


def test_the_first_start_makes_an_owner_key_once(catalog: Catalog, tmp_path: Path) -> None:
    made = catalog.ensure_owner_key(None)
    assert made.secret is not None
    assert made.path == tmp_path / "owner-key"
    assert made.path.read_text() == made.secret + "\n"
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert catalog.authenticate(made.secret).scopes == set(KeyScope)
    assert made.secret not in repr(made)
    assert catalog.ensure_owner_key(None) == (None, made.path)


def test_a_configured_key_is_added_and_never_brought_back(catalog: Catalog, org: Organisation) -> None:
    first, second = "the-first-key-123", "the-second-key-123"
    assert catalog.ensure_owner_key(first) == (None, None)
    assert catalog.ensure_owner_key(first) == (None, None)
    assert catalog.ensure_owner_key(second) == (None, None)
    keys = catalog.list_keys(org.id)
    assert len(keys) == 2
    assert not any(part in key.prefix for key in keys for part in (first[:4], second[:4]))
    catalog.authenticate(first)
    catalog.revoke_key(org.id, catalog.authenticate(second).key_id)
    with pytest.raises(Conflict, match="revoked"):
        catalog.ensure_owner_key(second)


def test_no_owner_key_is_made_beside_other_keys(catalog: Catalog, org: Organisation, tmp_path: Path) -> None:
    key = make_key(catalog, org)
    catalog.revoke_key(org.id, key.key.public_id)
    assert catalog.ensure_owner_key(None) == (None, None)
    assert not (tmp_path / "owner-key").exists()
    assert not catalog.has_valid_key()


# Shares


def test_a_share_is_found_by_organisation_and_trace(catalog: Catalog, org: Organisation) -> None:
    other = catalog.create_organisation("Other")
    [mine], [theirs] = catalog.projects(org.id), catalog.projects(other.id)
    catalog.set_share(org.id, mine.id, "trace-7", public=True, fields=["customer", "metadata"])
    catalog.set_share(other.id, theirs.id, "trace-7", public=True)
    assert catalog.find_share(org.public_id, "trace-7") == [Share(mine.id, ("customer", "metadata"))]
    assert catalog.find_share(other.public_id, "trace-7") == [Share(theirs.id, ())]
    assert catalog.find_share(org.public_id, "trace-8") == []
    assert catalog.find_share("org_" + "0" * 32, "trace-7") == []
    with pytest.raises(NotFound):
        catalog.set_share(org.id, theirs.id, "trace-7", public=False)
    catalog.set_share(org.id, mine.id, "trace-7", public=True, fields=[])
    assert catalog.find_share(org.public_id, "trace-7") == [Share(mine.id, ())]
    catalog.set_share(org.id, mine.id, "trace-7", public=False)
    assert catalog.find_share(org.public_id, "trace-7") == []
    assert catalog.find_share(other.public_id, "trace-7") == [Share(theirs.id, ())]


def test_shares_are_dropped_with_their_traces_in_any_number(catalog: Catalog, org: Organisation) -> None:
    [project] = catalog.projects(org.id)
    chat = catalog.create_project(org.id, "chat")
    for number in range(0, 1000, 50):
        catalog.set_share(org.id, project.id, f"trace-{number}", public=True)
    catalog.set_share(org.id, chat.id, "trace-0", public=True)
    gone = [(project.id, f"trace-{number}") for number in range(1000)]
    assert catalog.count_shares(gone) == 20
    assert catalog.drop_shares(gone) == 20
    assert catalog.drop_shares(gone) == 0
    assert catalog.count_shares(gone) == 0
    assert catalog.find_share(org.public_id, "trace-0") == [Share(chat.id, ())]


def test_no_trace_id_stays_in_the_catalog(catalog: Catalog, org: Organisation, tmp_path: Path) -> None:
    [project] = catalog.projects(org.id)
    catalog.set_share(org.id, project.id, "needle-of-a-trace", public=True)
    with catalog.database.read() as db:
        stored = db.execute(select(share.c.trace_key)).scalar_one()
    assert stored != hashlib.sha256(b"needle-of-a-trace").digest(), "the hash is keyed"
    catalog.checkpoint()
    assert not [path for path in tmp_path.iterdir() if b"needle-of-a-trace" in path.read_bytes()]


# Ledger


def test_the_ledger_is_a_chain(catalog: Catalog, clock: FixedClock) -> None:
    for number, kind in enumerate(("planned", "hidden", "purged")):
        catalog.append_ledger(kind, "del_1", {"traces": number}, org_id=1)
        clock.advance(1)
    entries = catalog.ledger()
    assert [entry.seq for entry in entries] == [0, 1, 2]
    assert entries[0].prev_hash == NO_HASH
    assert entries[2].prev_hash == entries[1].entry_hash
    assert check_chain(entries) == 3
    assert check_chain(catalog.ledger(after_seq=0), seq=1, prev_hash=entries[0].entry_hash) == 2
    canonical = (
        b'{"at_ns":%d,"body":{"traces":0},"deletion_id":"del_1","kind":"planned","org_id":1,"prev_hash":"%s",'
        b'"seq":0,"step":""}' % (entries[0].at_ns, b"00" * 32)
    )
    assert entries[0].entry_hash == hashlib.sha256(b"\0" + canonical).digest(), "an outsider can recompute it"


def test_a_changed_ledger_is_found(catalog: Catalog) -> None:
    for number in range(4):
        catalog.append_ledger("planned", f"del_{number}", {"traces": number})
    entries = catalog.ledger()
    forged = entries[1]._replace(body={"traces": 0})
    for changed in ([entries[0], forged, *entries[2:]], [entries[0], *entries[2:]], [*entries[1::-1], *entries[2:]]):
        with pytest.raises(StoreDamaged):
            check_chain(changed)


def test_a_transition_is_recorded_once(catalog: Catalog, clock: FixedClock) -> None:
    first = catalog.append_ledger("hidden", "del_1", {"traces": 3})
    clock.advance(5)
    assert catalog.append_ledger("hidden", "del_1", {"traces": 3}) == first
    catalog.append_ledger("blocked", "del_1", {}, step="1")
    catalog.append_ledger("blocked", "del_1", {}, step="2")
    assert [(entry.kind, entry.step) for entry in catalog.ledger(deletion_id="del_1")] == [
        ("hidden", ""),
        ("blocked", "1"),
        ("blocked", "2"),
    ]


@pytest.mark.parametrize("sql", ["UPDATE ledger_entry SET body = '{}'", "DELETE FROM ledger_entry"])
def test_the_ledger_only_grows(catalog: Catalog, sql: str) -> None:
    catalog.append_ledger("planned", "del_1", {})
    with pytest.raises(IntegrityError, match="only grows"), catalog.database.write() as db:
        db.execute(text(sql))
    assert len(catalog.ledger()) == 1


@pytest.mark.parametrize(
    "value", ["user@example.com", "Ada Lovelace", "客户", "it's", "a" * 300, 1.5, b"raw", {"a b": 1}, ["x y"]]
)
def test_the_catalog_takes_no_free_text(catalog: Catalog, value: object) -> None:
    with pytest.raises(ValueError, match="catalog takes no"):
        catalog.append_ledger("planned", "del_1", {"value": value})
    with pytest.raises(ValueError, match="catalog takes no"), catalog.database.write() as db:
        jobs.create(db, 0, "job_1", "deletion", {"value": value})


def test_all_entries_of_a_deletion_are_read_however_many(catalog: Catalog) -> None:
    with catalog.database.write() as db:
        for number in range(1100):
            ledger.append(db, 5, "deletion", "del_1", {}, step=str(number))
        assert ledger.entries(db, deletion_id="del_1")[-1].step == "1099"
