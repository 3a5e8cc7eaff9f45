"""Every budget of design.md section 6 against the real server, over loopback HTTP, in one run.

    python -m bench                     1 M traces, 10 M spans: about 20 GB of OTLP, an hour on two cores
    python -m bench --spans 1000000     smaller
    python -m bench --quick             200,000 spans, a few minutes
    python -m bench --data DIR --keep   keep the data directory, for --skip-ingest later

Prints a table and writes bench/out/results.json and bench/out/results.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import phases, report
from bench.experiments import experiments
from bench.generate import Generator, Plan, compressibility
from bench.langsmith import langsmith
from bench.large_delete import large_delete
from bench.load import LoadResult
from bench.phases import Run
from bench.server import Server, directory_bytes, is_text_index, table_sizes

OUT = Path(__file__).parent / "out"
KEY = "cs_bench_key_0123456789abcdef0123456789abcdef"
QUICK_SPANS = 200_000


def main() -> None:
    options = _options()
    plan = _plan(options)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    data = options.data or Path(tempfile.mkdtemp(prefix="clearspan-bench-"))
    if not options.skip_ingest and data.exists() and any(data.iterdir()):
        sys.exit(f"{data} is not empty; give another directory, or --skip-ingest to measure what it holds")
    machine = report.machine(data)
    console.print(report.machine_line(machine))
    console.print(f"{plan.traces:,} traces, about {int(plan.traces * plan.mean_spans):,} spans; data in {data}")
    began = time.perf_counter()
    facts: dict[str, Any] = {"command": report.command_line("bench"), "machine": machine}
    generator = Generator(plan)
    console.print(f"templates ready after {time.perf_counter() - began:.1f} s")
    run = Run(
        plan, generator, Server(data, OUT / "server.log", KEY), console, options.clients, options.gzip, options.samples
    )
    (OUT / "server.log").unlink(missing_ok=True)
    try:
        _phases(run, options, facts)
    finally:
        run.server.stop()
        _write(run, facts, options.json)
        if not options.keep and options.data is None:
            shutil.rmtree(data, ignore_errors=True)
    console.print(f"whole run {(time.perf_counter() - began) / 60:.1f} min")


def _phases(run: Run, options: argparse.Namespace, facts: dict[str, Any]) -> None:
    wanted = set(options.only.split(",")) if options.only else set()

    def phase(name: str, step: Callable[[], object]) -> None:
        if not wanted or name in wanted:
            run.console.print(f"[bold]{name}[/bold]")
            step()

    facts["compressibility"] = compressibility(run.generator, 300)._asdict()
    run.add(report.value("start-up", "until /readyz, empty store", "s", run.server.start(), 3.0))
    if wanted == {"experiments"}:  # it brings its own load
        phase("experiments", lambda: experiments(run))
        return
    if not options.skip_ingest:
        run.console.print("[bold]ingest[/bold]")
        result = phases.ingest(run)
        facts["ingest"] = result.summary()
        phases.check_counts(run)
        run.server.stop()
        _disk(run, result, facts)
        phases.at_rest(run, run.server.start())
    else:
        run.extra = phases.stored_traces(run) - run.plan.traces
    phase("reads", lambda: phases.traces_by_id(run))
    phase("lists", lambda: phases.lists(run))
    phase("text", lambda: phases.text_search(run))
    phase("small", lambda: phases.small_requests(run))
    phase("langsmith", lambda: langsmith(run))
    phase("experiments", lambda: experiments(run))
    phase("busy", lambda: phases.lists_during_ingest(run, options.busy_seconds))
    phase("deletes", lambda: phases.deletes(run))
    phase("large", lambda: large_delete(run))
    phases.check_counts(run)


def _disk(run: Run, result: LoadResult, facts: dict[str, Any]) -> None:
    """Bytes on disk for each byte of OTLP, with the server stopped and its log checkpointed."""
    files = directory_bytes(run.server.data)
    tables = table_sizes(run.server.data / "traces.db")
    facts["files"], facts["tables"] = files, {name: size._asdict() for name, size in tables.items()}
    for name, size in list(tables.items())[:8]:
        run.console.print(
            f"    {name:24} {size.pages / result.spans:6.0f} B a span, {size.unused / result.spans:.0f} unused"
        )
    text = sum(size.pages for name, size in tables.items() if is_text_index(name))
    text += sum(size for name, size in files.items() if is_text_index(Path(name).name))
    rest = sum(files.values()) - text
    note = f"{rest / result.spans:,.0f} B a span of {result.sent_bytes / result.spans:,.0f} B as sent"
    run.add(report.value("disk", "without text index", "× OTLP", rest / result.sent_bytes, 0.35, note=note))
    note = f"{text / result.spans:,.0f} B a span"
    run.add(report.value("disk", "text index", "× OTLP", text / result.sent_bytes, 0.15, note=note))
    ratio = facts["compressibility"]["trace_ratio"]
    run.add(report.value("disk", "zstd-3 of whole traces alone", "× OTLP", ratio, None, note="how far text compresses"))


def _write(run: Run, facts: dict[str, Any], path: Path) -> None:
    if not run.rows:
        return
    report.print_table(run.console, "Clearspan, budgets of design.md section 6", run.rows)
    report.write_json(path, run.rows, facts)
    head = f"{report.machine_line(facts['machine'])}\n\n`{facts['command']}`\n\n"
    path.with_suffix(".md").write_text(head + report.markdown(run.rows), encoding="utf-8")
    run.console.print(f"written to {path} and {path.with_suffix('.md')}")


def _plan(options: argparse.Namespace) -> Plan:
    spans = QUICK_SPANS if options.quick and options.spans is None else options.spans or 10_000_000
    traces = options.traces or spans // 10
    return Plan(
        traces=traces,
        seed=options.seed,
        templates=options.templates or (400 if options.quick else 2_000),
        batch_spans=options.batch,
        big_every=min(5_000, max(18, traces)),
        giant_spans=20_000 if traces >= 20_000 else 2_000,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spans", type=int, help="about how many spans to send (default 10,000,000)")
    parser.add_argument("--traces", type=int, help="the same as traces; wins over --spans")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SPANS:,} spans and fewer templates")
    parser.add_argument("--clients", type=int, default=4, help="connections of the ingest driver")
    parser.add_argument("--batch", type=int, default=512, help="spans a body")
    parser.add_argument("--gzip", action="store_true", help="send compressed bodies")
    parser.add_argument("--samples", type=int, default=phases.SAMPLES, help="timed requests of each query")
    parser.add_argument("--busy-seconds", type=float, default=300, help="longest ingest beside the lists")
    parser.add_argument("--templates", type=int, help="distinct trace templates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, help="data directory (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep a temporary data directory")
    parser.add_argument("--skip-ingest", action="store_true", help="measure the store already in --data")
    parser.add_argument(
        "--only",
        help="of reads,lists,text,small,langsmith,experiments,busy,deletes,large: only these, after ingest; "
        "experiments alone needs none",
    )
    parser.add_argument("--json", type=Path, default=OUT / "results.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
