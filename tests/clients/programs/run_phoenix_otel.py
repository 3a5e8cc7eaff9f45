"""Traces through `phoenix.otel.register`, configured by its own variables.

Environment: PHOENIX_API_KEY and PHOENIX_COLLECTOR_ENDPOINT; PHOENIX_GRPC_PORT for its default protocol; PROTOCOL,
BATCH, if other than its defaults; PROJECT. Prints the ids.
"""

import json
import os

from opentelemetry.trace import StatusCode
from phoenix.otel import register

provider = register(
    project_name=os.environ["PROJECT"],
    protocol=os.environ.get("PROTOCOL"),
    batch="BATCH" in os.environ,
    set_global_tracer_provider=False,
    verbose=False,
)
tracer = provider.get_tracer("test")
with tracer.start_as_current_span("turn", openinference_span_kind="chain") as root:
    context = root.get_span_context()
    root.set_attribute("session.id", "otel-session")
    root.set_attribute("user.id", "user-1")
    root.set_input("weather?")
    with tracer.start_as_current_span("call", openinference_span_kind="llm") as span:
        span.set_attribute("llm.model_name", "gpt-4o-mini")
        span.set_attribute("llm.token_count.prompt", 11)
        span.set_attribute("llm.token_count.completion", 3)
        span.set_status(StatusCode.OK)
    root.set_output("21 degrees")
    root.set_status(StatusCode.OK)
flushed = provider.force_flush()
provider.shutdown()
ids = {"trace_id": format(context.trace_id, "032x"), "span_id": format(context.span_id, "016x")}
print(json.dumps({**ids, "flushed": flushed}))
