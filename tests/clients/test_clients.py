"""Released client libraries, each in an environment of its own, against a live server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from clearspan.model.usage import usd_from_pico
from clearspan.testing.live import LIVE_KEY, Live, start_server, stop_server

HERE = Path(__file__).resolve().parent


def load(name: str) -> Any:
    """A module beside this file; the folder is no package, since programs in it have the names of none."""
    spec = importlib.util.spec_from_file_location(f"clients_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ensure_venv = load("venvs").ensure_venv
support = load("conftest")
run_program = support.run_program
long = pytest.mark.long


@pytest.mark.parametrize("version", ["0.1.49", pytest.param("0.1.47", marks=long)])
def test_respan_api(live: Live, version: str) -> None:
    python = ensure_venv(f"respan-api-{version}")
    seen = run_program(python, "run_respan_api.py", CLEARSPAN_URL=live.url, CLEARSPAN_KEY=LIVE_KEY)
    ids, otlp = [f"life-{n}" for n in range(4)], "0af7651916cd43dd8448eb211c80319c"
    assert seen["ingest_message"] == "Successfully ingested 4 spans"
    assert seen["partial_success"] is None
    assert seen["listed"] == sorted([*ids, otlp])
    assert seen["listed_count"] == 5
    assert len(seen["page"]) == 2
    assert seen["page_links"] == [True, True]
    assert seen["past"] == [6, []]
    assert seen["found"] == ["user-2"]
    assert seen["found_item"]["name"] == "support"
    assert seen["found_item"]["metadata"] == {"plan": "pro"}
    assert seen["tree"] == [["chat gpt-4o-mini", "chat", "gpt-4o-mini", 11]]
    assert seen["llm_call_count"] == 1
    assert seen["shared"] == ["life-0", True, False]
    assert seen["public"] == ["life-0", None, {}, "because"]
    assert seen["public_after_unshare"] == 404
    assert seen["none_matched"][0] == 0
    assert "nothing was deleted" in seen["none_matched"][1]
    assert seen["bulk"] == [3, 0, [], 3, "Successfully deleted 3 traces"]
    assert seen["again"][0] == 0
    assert seen["deleted_one"] == "Successfully deleted trace life-2"
    assert "nothing was deleted" in seen["unknown"]
    assert seen["left"] == sorted(["life-3", otlp])
    assert seen["statuses"] == {"wrong_key": 401, "unknown_field": 400, "page_size": 400, "deleted": 404}


@long
@pytest.mark.parametrize("version", ["0.1.0", "0.1.20"])
def test_old_respan_api(live: Live, version: str) -> None:
    python = ensure_venv(f"respan-api-{version}")
    seen = run_program(python, "run_respan_api_old.py", CLEARSPAN_URL=live.url, CLEARSPAN_KEY=LIVE_KEY)
    if version != "0.1.0":
        assert (seen["any_of"], seen["all_of"]) == (["a", "b"], [])
    else:
        assert seen["summary"]["total_traces"] == 3
        assert seen["summary"]["total_cost"] == usd_from_pico(502 * 10**9)
        assert seen["summary"]["error_count"] == 1
    assert seen["bulk"] == [2, "Successfully deleted 2 traces"]
    assert seen["left"] == "b"
    assert live.traces() == []


@pytest.mark.parametrize(
    ("path", "compression"), [("/v1/traces", "none"), ("/api/v2/traces", "gzip"), ("/v2/traces", "deflate")]
)
def test_stock_exporter(shared_live: Live, path: str, compression: str) -> None:
    live = shared_live
    seen = run_program(
        ensure_venv("otlp-http-1.45.2"),
        "run_otlp_http.py",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=live.url + path,
        OTEL_EXPORTER_OTLP_HEADERS=f"Authorization=Bearer {LIVE_KEY}",
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        TRACE_NAME="checkout",
    )
    assert seen["flushed"] is True
    trace = live.trace(seen["trace_id"])
    assert (trace["name"], trace["span_count"], trace["error_count"]) == ("checkout", 3, 1)
    assert (trace["customer_identifier"], trace["total_tokens"]) == ("user-1", 1229)
    assert trace["total_cost"] == pytest.approx(1187 * 0.15e-6 + 42 * 0.6e-6)
    (root,) = trace["span_tree"]
    assert [child["span_name"] for child in root["children"]] == ["chat gpt-4o-mini", "broken"]
    assert root["children"][1]["status"] == "error"


@pytest.mark.parametrize("compression", [{}, {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}])
def test_stock_exporter_over_grpc(tmp_path: Path, compression: dict[str, str]) -> None:
    live = start_server(tmp_path / "data", "--grpc-port", "0")
    try:
        seen = run_program(
            ensure_venv("otlp-grpc-1.45.2"),
            "run_otlp_http.py",
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://{live.grpc}",
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {LIVE_KEY}",
            TRACE_NAME="checkout",
            PROJECT_NAME="shop-project",
            **compression,
        )
        assert seen["flushed"] is True
        trace = live.trace(seen["trace_id"])
        assert (trace["name"], trace["span_count"], trace["error_count"]) == ("checkout", 3, 1)
        assert [each["name"] for each in live.http.get("/sessions").json()] == ["shop-project", "default"]
    finally:
        stop_server(live)


def test_respan_tracing(shared_live: Live, model_url: str) -> None:
    live = shared_live
    run_program(
        ensure_venv("respan-tracing-2.24.0"),
        "run_respan_tracing.py",
        RESPAN_BASE_URL=f"{live.url}/api",
        RESPAN_API_KEY=LIVE_KEY,
        OPENAI_BASE_URL=model_url,
    )
    (trace,) = live.traces(name={"value": ["weather_flow"]})
    assert (trace["span_count"], trace["llm_call_count"]) == (5, 1)
    assert (trace["total_prompt_tokens"], trace["total_completion_tokens"]) == (11, 3)
    assert trace["customer_identifier"] == "user-1"
    assert trace["metadata"] == {"plan": "pro", "n": "3"}
    (root,) = live.trace(trace["id"])["span_tree"]
    names = {root["span_name"], *(child["span_name"] for child in root["children"])}
    assert names == {"weather_flow", "plan", "helper"}
    call = next(child for child in root["children"] if child["span_name"] == "helper")["children"][0]
    assert (call["log_type"], call["model"]) == ("chat", "gpt-4o-mini")
    assert "weather?" in call["input"]
    assert "21 degrees" in call["output"]


@long
def test_respan_ai(live: Live, model_url: str) -> None:
    run_program(
        ensure_venv("respan-ai-4.2.4"),
        "run_respan_ai.py",
        RESPAN_BASE_URL=f"{live.url}/api",
        RESPAN_API_KEY=LIVE_KEY,
        OPENAI_BASE_URL=model_url,
    )
    (trace,) = live.traces()
    assert (trace["span_count"], trace["llm_call_count"], trace["model"]) == (1, 1, "gpt-4o-mini")
    assert trace["total_tokens"] == 14


@long
def test_keywordsai_tracing(live: Live) -> None:
    run_program(
        ensure_venv("keywordsai-tracing-0.0.59"),
        "run_keywordsai_tracing.py",
        KEYWORDSAI_BASE_URL=f"{live.url}/api",
        KEYWORDSAI_API_KEY=LIVE_KEY,
    )
    (trace,) = live.traces()
    assert (trace["name"], trace["span_count"]) == ("old_flow", 2)
    assert trace["customer_identifier"] == "user-7"
    assert trace["metadata"]["plan"] == "pro"
