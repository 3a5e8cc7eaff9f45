"""Projects as clients make, change and remove them; links to runs; configs of annotations."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from clearspan.catalog import Catalog, ConfigDefinition, KeyScope, Organisation, Principal, ProjectSettings
from clearspan.catalog.annotation_configs import Category, ConfigType, Direction
from clearspan.catalog.projects import FRESH_S, JSON_BYTES_MAX, ProjectState, uuid_of
from clearspan.catalog.tables import project as project_table
from clearspan.catalog.tables import run_share
from clearspan.model.errors import Conflict, InvalidInput, NotFound, NotPermitted
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog

TOKEN, OTHER_TOKEN = "6e51d59cb844428b953948b8a87bd433", "0e51d59cb844428b953948b8a87bd430"
TRACE = "01a2003e8a757cbeb35cd903258c4c13"


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


def key_of(catalog: Catalog, org: Organisation, *project_ids: int) -> tuple[str, Principal]:
    made = catalog.create_key(org.id, name="k", scopes=list(KeyScope), project_ids=project_ids or None)
    return made.secret, catalog.authenticate(made.secret)


def test_a_project_keeps_what_is_said_of_it(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    settings = ProjectSettings(
        description="d", extra={"metadata": {"k": "v"}}, options={"num_examples": 3}, start_ns=5, trace_tier="longlived"
    )
    made = catalog.create_project(org.id, "chat", uuid=TRACE, settings=settings)
    assert (made.uuid, made.extra, made.options, made.start_ns) == (
        TRACE, {"metadata": {"k": "v"}}, {"num_examples": 3}, 5,
    )  # fmt: skip
    clock.advance(7)
    changed = catalog.update_project(org.id, made.id, settings=ProjectSettings(description="new", end_ns=9))
    assert changed == made._replace(description="new", end_ns=9, updated_at_ns=clock.now_ns())
    assert catalog.find_project_uuid(org.id, TRACE) == changed
    assert catalog.update_project(org.id, made.id, name="talk").name == "talk"
    assert catalog.find_project(org.id, "chat") is None


def test_names_and_uuids_are_unique_in_an_organisation_only(catalog: Catalog, org: Organisation) -> None:
    other = catalog.create_organisation("Other")
    catalog.create_project(org.id, "chat", uuid=TRACE)
    assert catalog.create_project(other.id, "chat", uuid=TRACE).uuid == TRACE
    for name, uuid in (("chat", None), ("talk", TRACE)):
        with pytest.raises(Conflict):
            catalog.create_project(org.id, name, uuid=uuid)
    with pytest.raises(NotFound):
        catalog.update_project(other.id, 1, name="stolen")


@pytest.mark.parametrize(
    "bad",
    [
        {"uuid": "x"},
        {"uuid": TRACE.upper()},
        {"settings": ProjectSettings(extra={"n": 2**70})},
        {"settings": ProjectSettings(extra={"n": "x" * JSON_BYTES_MAX})},
        {"settings": ProjectSettings(description="x" * 10_001)},
        {"settings": ProjectSettings(reference_dataset_id="set")},
    ],
)
def test_what_cannot_be_stored_is_refused(catalog: Catalog, org: Organisation, bad: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        catalog.create_project(org.id, "p", **bad)  # type: ignore[arg-type]
    assert catalog.find_project(org.id, "p") is None


def test_a_write_by_name_makes_the_project_once(catalog: Catalog, org: Organisation) -> None:
    _, who = key_of(catalog, org)
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda: made.append(catalog.project_for_ingest(who, "burst").id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert [each.name for each in catalog.projects(org.id)] == ["default", "burst"]


def test_a_write_by_name_comes_from_memory(
    catalog: Catalog, org: Organisation, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, who = key_of(catalog, org)
    first = catalog.project_for_ingest(who, "chat")
    catalog.project_for_ingest(who, "chat")
    with monkeypatch.context() as patch:
        patch.setattr(catalog.database, "read", lambda: pytest.fail("the file was asked"))
        clock.advance(FRESH_S * 0.9)
        assert catalog.project_for_ingest(who, "chat") == first
    catalog.update_project(org.id, first.id, name="talk")
    assert catalog.project_for_ingest(who, "chat").id != first.id, "a change in this process counts at once"


def test_a_bound_key_makes_no_project_and_learns_of_none(catalog: Catalog, org: Organisation) -> None:
    mine, theirs = (catalog.create_project(org.id, name) for name in ("mine", "theirs"))
    _, who = key_of(catalog, org, mine.id)
    assert catalog.project_for_ingest(who, "mine") == mine
    assert catalog.project_for_ingest(who, None) == mine, "without a name: the key's default"
    texts = set()
    for name in ("theirs", "unheard-of"):
        with pytest.raises(NotPermitted) as refused:
            catalog.project_for_ingest(who, name)
        texts.add(str(refused.value))
    assert len(texts) == 1
    assert theirs in catalog.projects(org.id)
    assert catalog.find_project(org.id, "unheard-of") is None
    with pytest.raises(InvalidInput):
        catalog.project_for_ingest(key_of(catalog, org)[1], "a\0b")


def test_a_project_that_leaves_is_in_no_list_and_its_name_is_free(catalog: Catalog, org: Organisation) -> None:
    secret, _ = key_of(catalog, org)
    old = catalog.create_project(org.id, "chat", uuid=TRACE, settings=ProjectSettings(description="needle"))
    left = catalog.project_leaves(old.id, "del_1")
    assert (left.state, left.left_name, left.deletion_id) == (ProjectState.LEAVING, "chat", "del_1")
    assert [each.name for each in catalog.projects(org.id)] == ["default"]
    assert catalog.find_project(org.id, "chat") is None
    assert catalog.find_project_uuid(org.id, TRACE) is None
    who = catalog.authenticate(secret)
    assert old.id not in who.project_ids
    assert old.id in who.known_project_ids
    with pytest.raises(NotFound):
        catalog.update_project(org.id, old.id, name="back")
    new = catalog.project_for_ingest(who, "chat")
    assert new.id > old.id
    back = catalog.project_comes_back(old.id)
    assert back.name == f"chat ({old.public_id})"
    assert (back.state, back.description, back.uuid) == (ProjectState.LIVE, "needle", TRACE)


def test_of_a_project_that_is_gone_only_numbers_are_left(catalog: Catalog, org: Organisation, tmp_path: Path) -> None:
    settings = ProjectSettings(description="needle-1", extra={"metadata": {"needle-2": 1}}, options={"needle-3": 1})
    old = catalog.create_project(org.id, "needle-name", uuid=TRACE, settings=settings)
    catalog.erase_project(old.id)
    assert catalog.find_project(org.id, "needle-name") == old, "only one that is leaving can be erased"
    catalog.project_leaves(old.id, "del_1")
    catalog.erase_project(old.id)
    assert catalog.project_comes_back(old.id).state is ProjectState.GONE
    with catalog.database.read() as db:
        row = db.execute(select(project_table).where(project_table.c.id == old.id)).one()._asdict()
    assert {name for name, value in row.items() if value is not None} == {
        "id", "public_id", "org_id", "name", "created_at_ns", "uuid", "state", "updated_at_ns", "deletion_id",
        "purpose",
    }  # fmt: skip
    assert row["name"] == row["public_id"]
    assert catalog.create_project(org.id, "needle-name", uuid=TRACE).id > old.id
    catalog.project_leaves(catalog.find_project(org.id, "needle-name").id, "del_2")  # type: ignore[union-attr]
    catalog.erase_project(old.id + 1)
    assert catalog.checkpoint()
    assert b"needle" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_projects_under_removal_are_listed_for_whoever_looks_after_them(
    catalog: Catalog, org: Organisation, clock: FixedClock
) -> None:
    first, second = (catalog.create_project(org.id, name) for name in ("a", "b"))
    for each in (first, second):
        catalog.project_leaves(each.id, "del_1")
    catalog.erase_project(first.id)
    since = clock.now_ns() - 1
    assert [each.id for each in catalog.removed_projects(gone_after_ns=since)] == [first.id, second.id]
    assert [each.id for each in catalog.removed_projects(gone_after_ns=clock.now_ns())] == [second.id]


# Links


def test_a_link_opens_by_its_token_and_is_told_by_its_trace(catalog: Catalog, org: Organisation) -> None:
    [default] = catalog.projects(org.id)
    assert catalog.run_shares.create(org.id, default.id, TRACE, TOKEN) == TOKEN
    assert catalog.run_shares.create(org.id, default.id, TRACE, OTHER_TOKEN) == TOKEN, "a trace has one link"
    found = catalog.run_shares.find(TOKEN)
    assert found is not None
    assert (found.org_id, found.org_public_id, found.project_id, found.trace_id) == (
        org.id, org.public_id, default.id, TRACE,
    )  # fmt: skip
    assert catalog.run_shares.token_of(default.id, TRACE) == TOKEN
    assert catalog.run_shares.find(OTHER_TOKEN) is None
    assert catalog.run_shares.links_of(default.id, ["t0", TRACE]) == [(TRACE, TOKEN, found.created_at_ns)]
    assert catalog.run_shares.projects_that_share([default.id, 99]) == {default.id: 1}
    with pytest.raises(Conflict):
        catalog.run_shares.create(org.id, default.id, "another", TOKEN)
    assert catalog.run_shares.remove(default.id, TRACE)
    assert not catalog.run_shares.remove(default.id, TRACE)
    assert catalog.run_shares.find(TOKEN) is None


def test_a_link_needs_a_token_that_cannot_be_guessed_and_a_project_of_ones_own(
    catalog: Catalog, org: Organisation
) -> None:
    other = catalog.create_organisation("Other")
    [default] = catalog.projects(org.id)
    for token in ("", "1", TOKEN.upper(), TOKEN[:-1]):
        with pytest.raises(InvalidInput):
            catalog.run_shares.create(org.id, default.id, TRACE, token)
    with pytest.raises(NotFound):
        catalog.run_shares.create(other.id, default.id, TRACE, TOKEN)


def test_the_file_tells_neither_token_nor_trace(catalog: Catalog, org: Organisation, tmp_path: Path) -> None:
    [default] = catalog.projects(org.id)
    catalog.run_shares.create(org.id, default.id, TRACE, TOKEN)
    catalog.checkpoint()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for word in (TOKEN, TRACE):
        assert word.encode() not in held
        assert bytes.fromhex(word) not in held
    with catalog.database.read() as db:
        row = db.execute(select(run_share)).one()
    assert row.token_key != row.trace_key


def test_a_link_into_a_project_that_leaves_is_dead(catalog: Catalog, org: Organisation) -> None:
    chat = catalog.create_project(org.id, "chat")
    catalog.run_shares.create(org.id, chat.id, TRACE, TOKEN)
    catalog.set_share(org.id, chat.id, TRACE, public=True)
    catalog.project_leaves(chat.id, "del_1")
    assert catalog.run_shares.find(TOKEN) is None
    assert catalog.find_share(org.public_id, TRACE) == []
    catalog.project_comes_back(chat.id)
    assert catalog.run_shares.find(TOKEN) is not None


# Configs of annotations


def test_a_config_is_made_found_changed_and_removed(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    configs, other = catalog.annotation_configs, catalog.create_organisation("Other")
    labels = (Category("good", 1.0), Category("bad", None))
    made = configs.create(
        org.id, "tone", ConfigDefinition(ConfigType.CATEGORICAL, Direction.MAXIMIZE, categories=labels)
    )
    assert configs.get(org.id, "tone") == made
    assert made.definition.categories == labels
    [initial] = configs.of_organisation(other.id)
    assert (initial.name, initial.definition.type) == ("user_feedback", ConfigType.CATEGORICAL)
    with pytest.raises(Conflict):
        configs.create(org.id, "tone", made.definition)
    assert configs.create(other.id, "tone", made.definition).id != made.id
    clock.advance(1)
    changed = configs.replace(org.id, made.id, ConfigDefinition(ConfigType.CONTINUOUS, lower_bound=0, upper_bound=1))
    assert (changed.definition.upper_bound, changed.created_at_ns) == (1.0, made.created_at_ns)
    assert changed.updated_at_ns == clock.now_ns()
    for act in (
        lambda: configs.replace(other.id, made.id, made.definition),
        lambda: configs.delete(other.id, made.id),
        lambda: configs.get(org.id, "nothing"),
    ):
        with pytest.raises(NotFound):
            act()
    configs.delete(org.id, made.id)
    assert [each.name for each in configs.of_organisation(org.id)] == ["user_feedback"]


@pytest.mark.parametrize(
    "bad",
    [
        ConfigDefinition(ConfigType.CATEGORICAL),
        ConfigDefinition(ConfigType.CONTINUOUS, lower_bound=1, upper_bound=1),
        ConfigDefinition(ConfigType.CONTINUOUS, lower_bound=float("nan")),
        ConfigDefinition(ConfigType.FREEFORM, categories=(Category("a", 1),)),
        ConfigDefinition(ConfigType.CATEGORICAL, categories=(Category(None, None),)),
        ConfigDefinition(ConfigType.CATEGORICAL, categories=(Category("x" * 1001, 1),)),
        ConfigDefinition(ConfigType.CATEGORICAL, categories=(Category("x", 1),) * 1001),
        ConfigDefinition(ConfigType.FREEFORM, description="x" * 10_001),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(catalog: Catalog, org: Organisation, bad: ConfigDefinition) -> None:
    with pytest.raises(InvalidInput):
        catalog.annotation_configs.create(org.id, "n", bad)


def test_a_project_shows_the_configs_it_is_given(catalog: Catalog, org: Organisation) -> None:
    configs, other = catalog.annotation_configs, catalog.create_organisation("Other")
    [default], [foreign] = catalog.projects(org.id), catalog.projects(other.id)
    a, b = (configs.create(org.id, name, ConfigDefinition(ConfigType.FREEFORM)) for name in "ab")
    configs.assign(org.id, default.id, [a.id])
    configs.assign(org.id, default.id, [a.id, b.id])
    assert configs.of_project(org.id, default.id) == [a, b]
    configs.assign(org.id, default.id, [b.id], only_these=True)
    assert configs.of_project(org.id, default.id) == [b]
    for org_id, project_id, config_id in (
        (org.id, foreign.id, a.id),
        (org.id, default.id, 99),
        (other.id, foreign.id, a.id),
    ):
        with pytest.raises(NotFound):
            configs.assign(org_id, project_id, [config_id])
    assert not configs.unassign(other.id, default.id, b.id)
    assert configs.unassign(org.id, default.id, b.id)
    assert not configs.unassign(org.id, default.id, b.id)
    configs.assign(org.id, default.id, [a.id])
    configs.delete(org.id, a.id)
    assert configs.of_project(org.id, default.id) == []


def test_uuids_come_from_public_ids(catalog: Catalog, org: Organisation) -> None:
    [default] = catalog.projects(org.id)
    assert default.uuid == uuid_of(default.public_id)
    assert len(default.uuid) == 32
