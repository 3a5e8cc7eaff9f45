"""respan-api 0.1.47: every method of `evaluators` and `scores` that the server offers, in the order of a life.

Environment: CLEARSPAN_URL, CLEARSPAN_KEY. Prints one JSON object of what the client understood.
"""

import datetime as dt
import json
import os

from respan import RespanClient
from respan.core.api_error import ApiError
from respan.evaluators import CreateEvaluatorRequestLlmConfig, CreateEvaluatorRequestScoreConfig

URL, KEY = os.environ["CLEARSPAN_URL"], os.environ["CLEARSPAN_KEY"]
NOW = dt.datetime.now(dt.UTC)
PAGES_MAX = 50  # whoever follows this client's pager asks until a page is empty


def status_of(call) -> int:
    try:
        call()
    except ApiError as error:
        return error.status_code or 0
    return 200


def span(trace_id: str, span_id: str, parent: str | None = None) -> dict:
    return {
        "trace_unique_id": trace_id,
        "span_unique_id": span_id,
        "span_parent_id": parent,
        "span_name": "answer",
        "log_type": "workflow",
        "start_time": (NOW - dt.timedelta(minutes=2)).isoformat(),
        "timestamp": (NOW - dt.timedelta(minutes=1)).isoformat(),
    }


def define(client: RespanClient) -> dict:
    evaluators = client.evaluators
    made = evaluators.create_evaluator(
        name="Response Quality",
        evaluator_slug="response_quality",
        type="llm",
        score_value_type="numerical",
        eval_class="keywordsai_custom_llm",
        score_config=CreateEvaluatorRequestScoreConfig(min_score=1.0, max_score=5.0),
        passing_conditions={"primary_score": {"operator": "gte", "value": 3}},
        llm_config=CreateEvaluatorRequestLlmConfig(
            model="gpt-4o-mini",
            evaluator_definition="Rate the quality.\n<input>{{input}}</input>\n<output>{{output}}</output>",
            scoring_rubric="1=Poor, 5=Excellent",
        ),
    )
    evaluators.create_evaluator(name="By hand", type="human", score_value_type="boolean")
    evaluators.create_evaluator(name="Code of mine", type="code", score_value_type="json")
    read = evaluators.retrieve_evaluator(made.id)
    changed = evaluators.update_evaluator(made.id, description="told", llm_config={"temperature": 0.5})
    replaced = evaluators.replace_evaluator(made.id, name="Quality", type="human", score_value_type="numerical")
    pages = []
    for page in range(1, PAGES_MAX):
        found = evaluators.list_evaluators(page=page, page_size=2, sort_by="name")
        if not found.results:
            break
        pages.append([each.name for each in found.results])
    return {
        "made": [made.name, made.evaluator_slug, made.type, made.score_config.max_score, made.llm_config.model],
        "read": read.dict() == made.dict(),
        "changed": [changed.description, changed.llm_config.temperature, changed.llm_config.model],
        "replaced": [replaced.name, replaced.type, replaced.llm_config, replaced.evaluator_slug],
        "pages": pages,
        "humans": evaluators.get_filtered_evaluators_summary(filters={"type": {"value": ["human"]}}).total_count,
        "id": made.id,
    }


def main() -> dict:
    client = RespanClient(base_url=URL, authorization=f"Bearer {KEY}", respan_api_key=KEY)
    client.traces.create_trace_legacy(request=[span("t1", "t1-root"), span("t1", "t1-child", "t1-root")])
    seen = define(client)
    scores = client.scores

    one = scores.create_score(evaluator_slug="response_quality", log_id="t1", timestamp=NOW, numerical_value=4.5)
    again = scores.create_score(evaluator_id=seen.pop("id"), log_id="t1", numerical_value=2, explanation="weak")
    child = scores.create_span_score("t1-child", evaluator_slug="by_hand", boolean_value=True)
    typed = scores.create_score(evaluator_slug="code_of_mine", log_id="t1", json_value='{"a": 1}', scorer="ci")
    updated = scores.update_score(one.id, numerical_value=4.8, string_value="Updated assessment")
    replaced = scores.replace_score(one.id, evaluator_slug="response_quality", log_id="t1", numerical_value=3)
    of_child = scores.update_span_score("t1-child", child.id, boolean_value=False)
    listed = [
        [each.evaluator_slug for each in scores.filter_scores(page=page, page_size=2).results] for page in (1, 2, 3)
    ]
    seen |= {
        "scored": [one.numerical_value, one.type, one.evaluator_name, one.log_id],
        "again": [again.id == one.id, again.numerical_value, again.explanation],
        "child": [child.boolean_value, child.log_id, of_child.boolean_value],
        "typed": [typed.json_value, typed.scorer],
        "updated": [updated.numerical_value, updated.explanation, updated.evaluator["name"]],
        "replaced_score": [replaced.numerical_value, replaced.explanation],
        "retrieved": scores.retrieve_score(one.id).numerical_value,
        "of_span": scores.retrieve_span_score("t1-child", child.id).boolean_value,
        "listed": listed,
        "of_trace": len(scores.list_span_scores("t1").results),
        "filtered": len(scores.filter_scores(filters={"scorer": {"operator": "=", "value": ["ci"]}}).results),
    }
    scores.delete_score(one.id)
    scores.delete_span_score("t1-child", child.id)
    client.evaluators.delete_evaluator("by_hand")
    seen["left"] = [each.id == typed.id for each in scores.filter_scores().results]
    seen["statuses"] = {
        "gone": status_of(lambda: scores.retrieve_score(one.id)),
        "no_evaluator": status_of(
            lambda: scores.create_score(evaluator_slug="by_hand", log_id="t1", boolean_value=True)
        ),
        "wrong_type": status_of(
            lambda: scores.create_score(evaluator_slug="response_quality", log_id="t1", boolean_value=True)
        ),
        "code": status_of(
            lambda: client.evaluators.create_evaluator(
                name="c", type="code", code_config={"eval_code_snippet": "def main(x): return 1"}
            )
        ),
    }
    return seen


print(json.dumps(main()))
