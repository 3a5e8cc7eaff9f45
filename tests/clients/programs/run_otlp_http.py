"""The stock OpenTelemetry SDK with its OTLP exporter, configured by the standard variables only.

Environment: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, _HEADERS, _COMPRESSION, _PROTOCOL (grpc; else HTTP); TRACE_NAME;
PROJECT_NAME, perhaps. Prints the trace id.
"""

import json
import os

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import StatusCode

if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

about = {"service.name": "shop"}
if "PROJECT_NAME" in os.environ:
    about["openinference.project.name"] = os.environ["PROJECT_NAME"]
provider = TracerProvider(resource=Resource.create(about))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("test")

with tracer.start_as_current_span(os.environ["TRACE_NAME"], attributes={"user.id": "user-1"}) as root:
    trace_id = format(root.get_span_context().trace_id, "032x")
    with tracer.start_as_current_span("chat gpt-4o-mini") as span:
        span.set_attribute("gen_ai.operation.name", "chat")
        span.set_attribute("gen_ai.request.model", "gpt-4o-mini")
        span.set_attribute("gen_ai.usage.input_tokens", 1187)
        span.set_attribute("gen_ai.usage.output_tokens", 42)
    with tracer.start_as_current_span("broken") as span:
        span.record_exception(ValueError("no such order"))
        span.set_status(StatusCode.ERROR, "no such order")
flushed = provider.force_flush()
provider.shutdown()
print(json.dumps({"trace_id": trace_id, "flushed": flushed}))
