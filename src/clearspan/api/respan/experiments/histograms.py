"""How the scores of one evaluator are spread over the traces of an experiment."""

from __future__ import annotations

from typing import Final

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, requires
from clearspan.api.respan.convert import Json
from clearspan.api.respan.experiments.requests import Asked, read_asked
from clearspan.api.respan.experiments.views import render_histogram, type_of
from clearspan.api.respan.traces import json_response
from clearspan.experiments.histogram import BINS_DEFAULT, BINS_MAX, Histogram, number_bins, truth_bins, word_bins
from clearspan.experiments.results import sample_of, words_said
from clearspan.experiments.score_types import ScoreType
from clearspan.model.errors import InvalidInput
from clearspan.store.figures import ScoreColumn

_NUMBERS: Final = frozenset({ScoreType.NUMERICAL, ScoreType.PERCENTAGE})


@requires(Permission.READ)
async def score_histogram(request: Request) -> Response:
    """Bins of the scores that one evaluator gave: of numbers `bins` of them, of true and false two, of words one each.

    `evaluator_id` is an evaluator's id or slug, `id:grader` for one of its graders, or the key of feedback. A POST may
    carry filters; 0.1.47 sends none.
    """
    query = request.query_params
    evaluator_id = query.get("evaluator_id") or query.get("evaluator_slug")
    if not evaluator_id:
        raise InvalidInput("evaluator_id is required.", fields=("evaluator_id",))
    bins = _bins(query.get("bins"))
    asked = await read_asked(request)
    return json_response(await asked.services.reads.run(_histogram, asked, evaluator_id, bins), asked.window)


def _bins(text: str | None) -> int:
    if text is None or text == "":
        return BINS_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= BINS_MAX):
        raise InvalidInput(f"bins is a whole number from 1 to {BINS_MAX}.", fields=("bins",))
    return int(text)


def _histogram(asked: Asked, evaluator_id: str, bins: int) -> Json:
    name = asked.evaluators.score_name(evaluator_id)
    question = asked.scope, asked.where, asked.window.window, name
    column = asked.results.scores(*question)
    sample = None if column is None else sample_of(column)
    evaluator = asked.evaluators.of_score(name, sample.evaluator_id if sample else None)
    kind = ScoreType.NUMERICAL if sample is None else type_of(sample, evaluator)
    if kind not in _NUMBERS and kind is not ScoreType.BOOLEAN:
        column = asked.results.scores(*question, in_words=True)
    found = number_bins([], bins) if column is None else binned(kind, column, bins)
    told: Json = render_histogram(found, evaluator_id, name, evaluator)
    return told | {"score_value_type": str(kind) if sample is not None else None}


def binned(kind: ScoreType, column: ScoreColumn, bins: int) -> Histogram:
    """The histogram of scores of one kind; those that do not fit it are counted as unbinned.

    Args:
        column: in words, unless the kind is of numbers or true and false.
    """
    numbers = column.scores[~np.isnan(column.scores)].tolist()
    if kind is ScoreType.BOOLEAN:
        found = truth_bins([number != 0 for number in numbers])
    elif kind in _NUMBERS:
        found = number_bins(numbers, bins)
    else:
        assert column.said_nos is not None
        words = [words_said(said) for said in column.said]
        is_known = np.array([bool(each) for each in words], bool)[column.said_nos]
        values = column.scores[is_known]
        found = word_bins([words[no] for no in column.said_nos[is_known].tolist()], values[~np.isnan(values)].tolist())
    return found._replace(total=len(column.scores), unbinned=len(column.scores) - found.total)
