"""respan-tracing's decorators, and an OpenAI call made through its instrumentation.

Environment: RESPAN_BASE_URL (ends in /api), RESPAN_API_KEY, OPENAI_BASE_URL. Prints one JSON object.
"""

import json
import os

from openai import OpenAI
from respan_instrumentation_openai import OpenAIInstrumentor
from respan_tracing import RespanTelemetry, task, tool, workflow
from respan_tracing.decorators import agent

telemetry = RespanTelemetry(app_name="shop", is_batching_enabled=True)
OpenAIInstrumentor().activate()
client = OpenAI(api_key="none", base_url=os.environ["OPENAI_BASE_URL"], max_retries=0)


@tool(name="lookup")
def lookup(city: str) -> dict:
    return {"city": city, "temp": 21}


@task(name="plan")
def plan(question: str) -> str:
    return json.dumps(lookup("Paris"))


@agent(name="helper")
def helper(question: str) -> str:
    answer = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": question}], max_tokens=16
    )
    return answer.choices[0].message.content or ""


@workflow(name="weather_flow")
def weather_flow(question: str) -> str:
    with_params = telemetry.get_client()
    if with_params is not None:
        with_params.update_current_span(
            respan_params={"customer_identifier": "user-1", "metadata": {"plan": "pro", "n": 3}}
        )
    return plan(question) + helper(question)


result = weather_flow("weather?")
telemetry.flush()
print(json.dumps({"result": result}))
