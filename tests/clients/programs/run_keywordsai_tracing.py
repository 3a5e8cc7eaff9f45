"""keywordsai-tracing, the client's older name: decorators, protobuf to /api/v1/traces.

Environment: KEYWORDSAI_BASE_URL (ends in /api), KEYWORDSAI_API_KEY. Prints one JSON object.
"""

import json

from keywordsai_tracing import KeywordsAITelemetry, get_client, task, workflow

telemetry = KeywordsAITelemetry(app_name="shop", is_batching_enabled=True)


@task(name="plan")
def plan(question: str) -> str:
    return question.upper()


@workflow(name="old_flow")
def old_flow(question: str) -> str:
    get_client().update_current_span(keywordsai_params={"customer_identifier": "user-7", "metadata": {"plan": "pro"}})
    return plan(question)


result = old_flow("weather?")
telemetry.flush()
print(json.dumps({"result": result}))
