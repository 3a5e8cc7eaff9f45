"""Datasets, evaluators and experiments in the Catalog: their projects, their names, their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from clearspan.catalog import (
    Catalog,
    DatasetSettings,
    ExperimentDefinition,
    ExperimentStatus,
    KeyScope,
    Organisation,
    ProjectPurpose,
    ProjectSettings,
    ProjectState,
    SourcePolicy,
)
from clearspan.model.errors import Conflict, InvalidInput, NotFound
from clearspan.model.trace import Scope
from clearspan.testing.clock import CountingIds, FixedClock
from clearspan.testing.empty import lay_catalog

UUID, OTHER = "6e51d59cb844428b953948b8a87bd433", "0e51d59cb844428b953948b8a87bd430"


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


def definition(name: str = "e", **more: object) -> ExperimentDefinition:
    return ExperimentDefinition(name, UUID, [{"type": "duplicate", "config": {}}], 7)._replace(**more)  # type: ignore[arg-type]


# Datasets


def test_a_dataset_keeps_what_is_said_of_it(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    settings = DatasetSettings("d", "chat", {"k": 1}, {"type": "object"}, None, [{"path": ["x"]}], SourcePolicy.REDACT)
    made = catalog.datasets.create(org.id, "golden", uuid=UUID, settings=settings)
    assert made == catalog.datasets.find(org.id, UUID) == catalog.datasets.find_name(org.id, "golden")
    assert (made.extra, made.transformations, made.outputs_schema) == ({"k": 1}, [{"path": ["x"]}], None)
    clock.advance(3)
    changed = catalog.datasets.update(org.id, UUID, name="gold", settings=DatasetSettings(tags={"prod": 5}))
    assert changed == made._replace(name="gold", tags={"prod": 5}, updated_at_ns=clock.now_ns())
    clock.advance(3)
    catalog.datasets.touch(org.id, UUID)
    touched = changed._replace(updated_at_ns=clock.now_ns())
    assert catalog.datasets.listed(org.id) == [touched]
    assert catalog.datasets.of_projects([1, made.project_id, 99]) == {made.project_id: touched}
    assert catalog.datasets.policies(org.id) == {made.project_id: SourcePolicy.REDACT}
    other = catalog.create_organisation("Other")
    assert catalog.datasets.listed(other.id) == []
    assert catalog.datasets.policies(other.id) == {}
    assert catalog.datasets.find(other.id, UUID) is None


def test_names_and_uuids_are_unique_in_an_organisation_only(catalog: Catalog, org: Organisation) -> None:
    catalog.datasets.create(org.id, "golden", uuid=UUID)
    second = catalog.datasets.create(org.id, "silver")
    for name, uuid in (("golden", None), ("bronze", UUID)):
        with pytest.raises(Conflict):
            catalog.datasets.create(org.id, name, uuid=uuid)
    with pytest.raises(Conflict):
        catalog.datasets.update(org.id, second.uuid, name="golden")
    assert catalog.datasets.create(catalog.create_organisation("Other").id, "golden", uuid=UUID).uuid == UUID
    with pytest.raises(NotFound):
        catalog.datasets.update(org.id, OTHER, name="x")


@pytest.mark.parametrize(
    ("name", "uuid", "settings"),
    [
        ("", None, DatasetSettings()),
        ("n", "x", DatasetSettings()),
        ("n", None, DatasetSettings(data_type="table")),
        ("n", None, DatasetSettings(extra={"n": 2**70})),
        ("n", None, DatasetSettings(description="x" * 10_001)),
    ],
)
def test_what_cannot_be_stored_is_refused(
    catalog: Catalog, org: Organisation, name: str, uuid: str | None, settings: DatasetSettings
) -> None:
    with pytest.raises(InvalidInput):
        catalog.datasets.create(org.id, name, uuid=uuid, settings=settings)
    assert len(catalog.projects(org.id, purposes=tuple(ProjectPurpose))) == 1, "nor is a project left"


def test_no_list_and_no_name_leads_to_the_project_of_a_dataset(catalog: Catalog, org: Organisation) -> None:
    made = catalog.datasets.create(org.id, "golden", uuid=UUID)
    hidden = catalog.find_project_number(org.id, made.project_id)
    assert hidden is not None
    assert (hidden.name, hidden.purpose) == (f"dataset:{UUID}", ProjectPurpose.DATASET)
    assert [each.name for each in catalog.projects(org.id)] == ["default"]
    assert catalog.find_project(org.id, hidden.name) is None
    assert catalog.find_project_uuid(org.id, hidden.uuid) is None
    with pytest.raises(NotFound):
        catalog.update_project(org.id, hidden.id, name="mine")
    who = catalog.authenticate(catalog.create_key(org.id, name="k").secret)
    with pytest.raises(Conflict):
        catalog.project_for_ingest(who, hidden.name)
    with pytest.raises(InvalidInput):
        catalog.create_key(org.id, name="bound", project_ids=[hidden.id])


def test_a_key_reaches_datasets_for_copies_only(catalog: Catalog, org: Organisation) -> None:
    free = catalog.create_key(org.id, name="free", environment="prod").secret
    bound = catalog.create_key(org.id, name="bound", scopes=list(KeyScope), project_ids=[1]).secret
    assert catalog.authenticate(free).dataset_project_ids == ()
    made = catalog.datasets.create(org.id, "golden")
    who = catalog.authenticate(free)
    assert (who.project_ids, who.dataset_project_ids) == ((1,), (made.project_id,)), "a new dataset counts at once"
    assert who.known_project_ids == (1, made.project_id)
    assert who.scope_for_read() == Scope((1,), "prod")
    assert who.scope_for_copies() == Scope((1, made.project_id), "prod")
    assert catalog.authenticate(bound).scope_for_copies() == Scope((1,))
    catalog.project_leaves(made.project_id, "del_1")
    assert catalog.authenticate(free).removed_project_ids == (made.project_id,)
    assert catalog.authenticate(free).dataset_project_ids == ()


def test_a_dataset_leaves_with_its_project(catalog: Catalog, org: Organisation) -> None:
    made = catalog.datasets.create(org.id, "golden", uuid=UUID)
    for deletion_id in ("del_1", "del_2"):
        catalog.project_leaves(made.project_id, deletion_id)
    assert catalog.datasets.listed(org.id) == []
    assert catalog.datasets.find(org.id, UUID) is None
    with pytest.raises(Conflict):
        catalog.datasets.create(org.id, "another", uuid=UUID)
    catalog.project_comes_back(made.project_id)
    assert catalog.datasets.find(org.id, UUID) == made
    catalog.project_leaves(made.project_id, "del_3")
    new = catalog.datasets.create(org.id, "golden")
    back = catalog.project_comes_back(made.project_id)
    assert {each.name for each in catalog.datasets.listed(org.id)} == {new.name, f"golden ({back.public_id})"}


def test_of_what_is_gone_no_word_stays(catalog: Catalog, org: Organisation, tmp_path: Path) -> None:
    dataset = catalog.datasets.create(
        org.id, "needle-dataset", uuid=UUID, settings=DatasetSettings("needle-said", extra={"needle-extra": 1})
    )
    made = catalog.experiments.create(
        org.id,
        definition("needle-run", public_id="needle-id", description="needle-what", workflow=[{"type": "needle-type"}]),
    )
    for project_id in (dataset.project_id, made.project_id):
        catalog.erase_project(project_id)
    assert catalog.datasets.find(org.id, UUID) == dataset, "only one that is leaving can be erased"
    for project_id in (made.project_id, dataset.project_id):
        catalog.project_leaves(project_id, "del_1")
        assert catalog.experiments.find(org.id, "needle-id") is None
        catalog.erase_project(project_id)
    every = catalog.projects(org.id, states=tuple(ProjectState), purposes=tuple(ProjectPurpose))
    assert [(each.state, each.purpose) for each in every[1:]] == [
        (ProjectState.GONE, ProjectPurpose.DATASET), (ProjectState.GONE, ProjectPurpose.EXPERIMENT),
    ]  # fmt: skip
    assert catalog.checkpoint()
    assert b"needle" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert catalog.datasets.create(org.id, "needle", uuid=UUID).uuid == UUID, "its UUID is free again"


# Evaluators


def test_an_evaluator_is_found_by_id_and_slug(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    said = {"slug": "same", "name": "Same", "kind": "exact", "config": {"strip": True}, "score_type": "boolean"}
    made = catalog.evaluators.create(org.id, **said)  # type: ignore[arg-type]
    dashed = f"{made.uuid[:8]}-{made.uuid[8:12]}-{made.uuid[12:16]}-{made.uuid[16:20]}-{made.uuid[20:]}"
    for name in (made.uuid, dashed, "same"):
        assert catalog.evaluators.find(org.id, name) == made
    assert made.config == {"strip": True}
    with pytest.raises(Conflict):
        catalog.evaluators.create(org.id, **said)  # type: ignore[arg-type]
    twin = catalog.evaluators.create(org.id, **said | {"slug": made.uuid})  # type: ignore[arg-type]
    assert catalog.evaluators.find(org.id, made.uuid) == made, "an id comes before a slug"
    with pytest.raises(Conflict):
        catalog.evaluators.update(org.id, twin.uuid, slug="same")
    clock.advance(2)
    changed = catalog.evaluators.update(org.id, "same", config={}, description="d")
    assert changed == made._replace(config={}, description="d", updated_at_ns=clock.now_ns())
    other = catalog.create_organisation("Other")
    assert catalog.evaluators.find(other.id, "same") is None
    with pytest.raises(NotFound):
        catalog.evaluators.remove(other.id, "same")
    catalog.evaluators.remove(org.id, "same")
    assert catalog.evaluators.listed(org.id) == [twin]


@pytest.mark.parametrize("bad", [{"slug": ""}, {"kind": ""}, {"config": {"n": 2**70}}, {"description": "x" * 10_001}])
def test_an_evaluator_that_cannot_be_stored_is_refused(
    catalog: Catalog, org: Organisation, bad: dict[str, object]
) -> None:
    said = {"slug": "s", "name": "n", "kind": "exact", "config": {}, "score_type": "boolean"}
    with pytest.raises(InvalidInput):
        catalog.evaluators.create(org.id, **said | bad)  # type: ignore[arg-type]


# Experiments


def test_an_experiment_is_a_project_with_a_definition(catalog: Catalog, org: Organisation, clock: FixedClock) -> None:
    with pytest.raises(NotFound):
        catalog.experiments.create(org.id, definition())
    catalog.datasets.create(org.id, "golden", uuid=UUID)
    made = catalog.experiments.create(org.id, definition(public_id="mine", evaluator_ids=[OTHER], tags=["a"]))
    assert (made.status, made.managed, made.evaluator_ids) == (ExperimentStatus.PENDING, True, [OTHER])
    dashed = f"{made.uuid[:8]}-{made.uuid[8:]}"
    for name in ("mine", made.uuid, dashed):
        assert catalog.experiments.find(org.id, name) == made
    project = catalog.find_project_uuid(org.id, made.uuid)
    assert project is not None
    assert (project.purpose, project.reference_dataset_id) == (ProjectPurpose.EXPERIMENT, UUID)
    assert project in catalog.projects(org.id)
    for again in (definition("other", public_id="mine"), definition()):
        with pytest.raises(Conflict):
            catalog.experiments.create(org.id, again)
    changed = catalog.experiments.update(org.id, "mine", name="new", description="d", batch_size=3)
    assert changed == made._replace(name="new", description="d", batch_size=3)
    with pytest.raises(InvalidInput):
        catalog.experiments.update(org.id, "mine", concurrency=0)


def test_the_status_of_an_experiment_moves(catalog: Catalog, org: Organisation) -> None:
    catalog.datasets.create(org.id, "golden", uuid=UUID)
    made = catalog.experiments.create(org.id, definition())
    say = catalog.experiments.set_status
    say(made.project_id, ExperimentStatus.RUNNING, started_at_ns=5)
    say(made.project_id, ExperimentStatus.FAILED, completed_at_ns=9, error_code="llm", error_message="x" * 2000)
    failed = catalog.experiments.of_project(made.project_id)
    assert failed is not None
    assert (failed.started_at_ns, failed.completed_at_ns, failed.error_code) == (5, 9, "llm")
    assert len(failed.error_message or "") == 1000
    say(made.project_id, ExperimentStatus.RUNNING)
    assert catalog.experiments.listed(org.id) == [made._replace(status=ExperimentStatus.RUNNING, started_at_ns=5)]
    say(1, ExperimentStatus.RUNNING)  # no experiment


def test_a_project_that_names_a_dataset_is_an_experiment(catalog: Catalog, org: Organisation) -> None:
    named = ProjectSettings(reference_dataset_id=UUID, start_ns=4, description="d")
    made = catalog.create_project(org.id, "run-1", uuid=OTHER, settings=named)
    later = catalog.create_project(org.id, "run-2")
    assert later.purpose is ProjectPurpose.TRACES
    assert catalog.experiments.find(org.id, later.uuid) is None
    changed = catalog.update_project(org.id, later.id, settings=ProjectSettings(reference_dataset_id=UUID))
    assert (made.purpose, changed.purpose) == (ProjectPurpose.EXPERIMENT,) * 2
    first, _ = catalog.experiments.listed(org.id)
    assert (first.public_id, first.managed, first.status) == (OTHER, False, ExperimentStatus.RUNNING)
    assert (first.workflow, first.started_at_ns, first.description, first.dataset_uuid) == ([], 4, "d", UUID)
    catalog.update_project(org.id, made.id, settings=ProjectSettings(end_ns=8))
    ended = catalog.experiments.update(org.id, OTHER, name="renamed")
    assert (ended.status, ended.completed_at_ns, ended.name) == (ExperimentStatus.COMPLETED, 8, "renamed")
    with pytest.raises(Conflict):
        catalog.experiments.update(org.id, OTHER, batch_size=2)


def test_an_older_file_learns_what_its_projects_are(tmp_path: Path) -> None:
    with Catalog.open(tmp_path, ids=CountingIds()) as catalog:
        catalog.create_project(catalog.first_org.id, "run", settings=ProjectSettings(reference_dataset_id=UUID))
        catalog.checkpoint()
    conn = apsw.Connection(str(tmp_path / "catalog.db"))
    for table in ("experiment", "evaluator", "dataset"):
        conn.execute(f"DROP TABLE {table}")
    conn.execute("ALTER TABLE project DROP COLUMN purpose; UPDATE alembic_version SET version_num = '0004'").fetchall()
    conn.close()
    with Catalog.open(tmp_path) as catalog:
        purposes = {each.name: each.purpose for each in catalog.projects(catalog.first_org.id)}
        assert purposes == {"default": ProjectPurpose.TRACES, "run": ProjectPurpose.EXPERIMENT}
        assert [each.name for each in catalog.experiments.listed(catalog.first_org.id)] == ["run"]
