"""Comparing experiments over HTTP: figures of every measure, and the items, regressions first.

Everything is read and worked out anew for each request; nothing of it is kept, so what was deleted is gone from it.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.native import inputs
from clearspan.api.native.comparison_views import Compared, Texts, comparison_json
from clearspan.api.native.deletions import json_reply
from clearspan.api.native.views import Json
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.annotation_configs import Direction as Said
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.comparison import Direction, ItemComparison, Verdict, compare
from clearspan.experiments.pairing import RESULTS_MAX, normal_key, read_side
from clearspan.experiments.quiet import settled
from clearspan.experiments.results import Results, StoreReader
from clearspan.model.errors import Conflict, InvalidInput, NotFound
from clearspan.model.trace import Scope, Window
from clearspan.query.ast import Condition
from clearspan.query.fields import field_named
from clearspan.query.operators import Operator
from clearspan.query.page import NEWEST_FIRST, PAGE_SIZE_MAX, OffsetPage

EXPERIMENTS_MAX: Final = 10
EVALUATORS_MAX: Final = 50
PREVIEW_DEFAULT, PREVIEW_MAX = 200, 10_000
_CURSOR: Final = "comparisons"
_LISTS: Final = frozenset({"experiments", "evaluator"})
_KNOWN: Final = _LISTS | {"verdict", "preview_length", "limit", "cursor"}


class _Asked(NamedTuple):
    """What a request asks for."""

    experiments: tuple[str, ...]
    evaluators: tuple[str, ...]
    verdict: Verdict | None
    preview_length: int
    limit: int
    offset: int


@requires(Permission.READ)
async def compare_experiments(request: Request) -> Response:
    """Two or more experiments on one dataset, the first of them the baseline, item by item: regressions first.

    For every score, for cost and for latency: the mean of each experiment, and its mean difference from the baseline
    over the items that both have a value of, with a bootstrap interval and how many items those are. What is missing is
    counted on each side and never taken for zero.
    """
    services, principal = services_of(request), principal_of(request)
    asked = _read(request.query_params)
    return json_reply(await services.reads.run(_compared, services, principal, asked))


def _read(query: QueryParams) -> _Asked:
    inputs.check_query(QueryParams([pair for pair in query.multi_items() if pair[0] not in _LISTS]), _KNOWN)
    experiments, evaluators = query.getlist("experiments"), query.getlist("evaluator")
    if not 2 <= len(experiments) <= EXPERIMENTS_MAX:
        raise InvalidInput(
            f"experiments must be given two to {EXPERIMENTS_MAX} times: the baseline first.", fields=("experiments",)
        )
    if len(evaluators) > EVALUATORS_MAX:
        raise InvalidInput(f"evaluator may be given {EVALUATORS_MAX} times at most.", fields=("evaluator",))
    given = dict(query)
    verdict = inputs.read_word(given, "verdict", Verdict, Verdict.REGRESSED) if given.get("verdict") else None
    preview = inputs.read_number(query, "preview_length", PREVIEW_DEFAULT, most=PREVIEW_MAX)
    offset = inputs.read_cursor(query, _CURSOR, int) or 0
    return _Asked(
        tuple(experiments), tuple(evaluators), verdict, preview or 0, inputs.read_limit(query), max(offset, 0)
    )


def _compared(services: Services, principal: Principal, asked: _Asked) -> Json:
    experiments = _find(services, principal, asked.experiments)
    results = Results(
        cast(StoreReader, services.reader),
        seconds_max=services.settings.read_seconds_max,
        monotonic_s=services.clock.monotonic_s,
    )
    scopes = [_scope(principal, each) for each in experiments]
    sides, room = [], RESULTS_MAX
    for scope in scopes:
        sides.append(read_side(cast(StoreReader, services.reader), scope, room=room))
        room -= len(sides[-1].keys) + sides[-1].without_key
    evaluators = [_score_name(services, principal, each) for each in asked.evaluators]
    compared = compare(
        sides,
        directions=_directions(services, principal),
        evaluators=evaluators or None,
        items=_items(services, principal, experiments),
    )
    wanted = compared.items.places(asked.verdict)
    page = [compared.items[at] for at in wanted[asked.offset : asked.offset + asked.limit]]
    more = asked.offset + asked.limit < len(wanted)
    texts = _texts(results, scopes, page) if asked.preview_length else {}
    told = Compared(experiments, compared, page, texts, asked.preview_length)
    return comparison_json(told) | {
        "next_cursor": inputs.render_cursor(_CURSOR, asked.offset + asked.limit) if more else None
    }


# ---- what the Catalog says -------------------------------------------------------------------------------------------


def _find(services: Services, principal: Principal, ids: tuple[str, ...]) -> list[Experiment]:
    """The experiments of those ids, each another one, all on one dataset.

    Raises:
        NotFound: one is not there, or not the key's; which of the two is not told.
        InvalidInput: one is named twice.
        Conflict: they are on different datasets (`different_datasets`).
    """
    found: list[Experiment] = []
    for each in ids:
        experiment = services.catalog.experiments.find(principal.org_id, each)
        is_ours = experiment is not None and (
            not principal.bound or experiment.project_id in principal.known_project_ids
        )
        if experiment is None or not is_ours:
            raise NotFound("There is no such experiment.", code="experiment_not_found", fields=("experiments",))
        found.append(settled(cast(StoreReader, services.reader), experiment, services.clock.now_ns()))
    if len({each.project_id for each in found}) < len(found):
        raise InvalidInput("An experiment is given twice.", code="same_experiment", fields=("experiments",))
    if len({each.dataset_uuid for each in found}) > 1:
        raise Conflict(
            "The experiments are on different datasets: no item of one is an item of the other.",
            code="different_datasets",
            fields=("experiments",),
        )
    return found


def _scope(principal: Principal, experiment: Experiment) -> Scope:
    return principal.scope_for_read()._replace(project_ids=(experiment.project_id,))


def _directions(services: Services, principal: Principal) -> dict[str, Direction]:
    """Which end of a score is the good one, where a config of annotations says it."""
    configs = services.catalog.annotation_configs.of_organisation(principal.org_id)
    return {
        each.name: Direction(each.definition.direction.value)
        for each in configs
        if each.definition.direction is not Said.NONE
    }


def _score_name(services: Services, principal: Principal, asked: str) -> str:
    """Under which name the scores are: of an evaluator's id or slug the slug, of anything else itself."""
    found = services.catalog.evaluators.find(principal.org_id, asked)
    return asked if found is None else found.slug


def _items(services: Services, principal: Principal, experiments: list[Experiment]) -> set[str]:
    """Keys of the items that the experiments are about: of the dataset as each of them began, or as it is now.

    A key that is bound to projects or to an environment learns nothing of datasets: it is told of items with
    results only.
    """
    if not principal.is_whole:
        return set()
    dataset = services.catalog.datasets.find(principal.org_id, experiments[0].dataset_uuid)
    if dataset is None:
        return set()
    times = {each.version_ns if each.managed else None for each in experiments}
    return {
        normal_key(item_id)
        for as_of_ns in times
        for item_id in services.items.list_ids(dataset, as_of_ns=as_of_ns, limit=RESULTS_MAX)
    }


# ---- what a page shows of results ------------------------------------------------------------------------------------


def _texts(results: Results, scopes: list[Scope], page: list[ItemComparison]) -> dict[tuple[int, str], Texts]:
    """(number of the experiment, trace id) → input and output of the first result of each item on the page."""
    found: dict[tuple[int, str], Texts] = {}
    for number, scope in enumerate(scopes):
        ids = tuple(each.sides[number].trace_ids[0] for each in page if each.sides[number] is not None)  # type: ignore[union-attr]
        if not ids:
            continue
        where = Condition(field_named("trace_unique_id"), Operator.IN, ids)
        shown = results.page(scope, where, Window(), NEWEST_FIRST, OffsetPage(1, PAGE_SIZE_MAX))
        found |= {
            (number, each.row.summary.trace_id): Texts(each.input, each.output, each.status, each.error)
            for each in shown.results
        }
    return found
