"""Where the runs of a request go: their traces, from what is stored, and their projects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from clearspan.api.placing import Projects, Session
from clearspan.api.services import Services
from clearspan.catalog.principal import Principal
from clearspan.ingest.langsmith import (
    DecodedRun,
    DecodedRuns,
    Placement,
    RunSource,
    decode_runs,
    run_fields,
)
from clearspan.ingest.payload import CODEC_LANGSMITH_RUN, decode_record
from clearspan.ingest.run_parts import RunOperation
from clearspan.model.errors import Overloaded, ReadTooSlow
from clearspan.model.runs import run_id_of
from clearspan.store.spans import SpanReader, SpanRow

T = TypeVar("T")
Known = dict[str, Placement | None]
"""Run id → where that run is stored; None: nowhere."""


class PlacedRuns(NamedTuple):
    """The runs of a request with what is known of where they are."""

    decoded: DecodedRuns
    known: Known


async def place_runs(
    services: Services,
    principal: Principal,
    decode: Callable[[Known], tuple[DecodedRuns, set[str]]],
    first: tuple[DecodedRuns, set[str]],
) -> PlacedRuns:
    """Look up what runs do not say themselves, and decode them again with it.

    Args:
        decode: decodes with what is known, and tells which runs it would like to know more about.
        first: what it gave with nothing known.
    """
    known: Known = {}
    decoded, wanted = first
    while wanted - known.keys():
        known |= await _find(services, principal, wanted - known.keys())
        decoded, wanted = decode(known)
    return PlacedRuns(decoded, known)


def decode_with(
    messages: Iterable[RunOperation], source: RunSource, known: Known, more: Iterable[str] = ()
) -> tuple[DecodedRuns, set[str]]:
    """(the runs, the runs that should be looked up before this is final).

    Args:
        more: runs of which something else came without the run.
    """
    wanted: set[str] = set()

    def find(run_id: str) -> Placement | None:
        wanted.add(run_id)
        return known.get(run_id)

    decoded = decode_runs(messages, source, find)
    here = {run.run_id for run in decoded.runs}
    wanted |= {run_id for run_id in more if run_id not in here}
    named = {run.trace_id for run in decoded.runs if _names_project(run)}
    for run in decoded.runs:
        if run.trace_id not in named:
            wanted |= {run.run_id, run.trace_id}
    return decoded, wanted


def sessions_of(runs: Iterable[DecodedRun]) -> dict[str, Session]:
    """Trace id → the project that some run of the request names for it."""
    return {run.trace_id: _session_of(run) for run in runs if _names_project(run)}


def project_of(run: DecodedRun, projects: Projects, sessions: dict[str, Session], known: Known) -> int:
    """The project of one run: what it names, else what its trace's other runs name, else where it or its trace is
    stored, else the default. Raises as Projects.of."""
    session = _session_of(run)
    if not _names_project(run):
        session = sessions.get(run.trace_id, session)
        if session != Session():
            return projects.of(session)
        for place in (known.get(run.run_id), known.get(run.trace_id)):
            if place is not None and place.project_id is not None:
                return place.project_id
    return projects.of(session)


def _names_project(run: DecodedRun) -> bool:
    return run.session_id is not None or run.session_name is not None


def _session_of(run: DecodedRun) -> Session:
    return Session(run.session_id, run.session_name)


async def look_up(services: Services, find: Callable[..., T], *args: Any) -> T:
    """A read that a write needs, in a reader's thread: what is not there may take a while not to find.

    Raises:
        Overloaded: it took too long. Clients send again what gets a 503, and drop for good what gets the 400 of a read.
    """
    try:
        return await services.reads.run(find, *args)
    except ReadTooSlow as error:
        raise Overloaded("Finding what this belongs to took too long; send it again.") from error


async def _find(services: Services, principal: Principal, run_ids: set[str]) -> Known:
    reader = cast(SpanReader, services.reader)
    rows = await look_up(services, reader.find_spans, principal.scope_for_read(), sorted(run_ids))
    found: Known = dict.fromkeys(run_ids)
    for row in rows:
        trace_id, span_id = row.trace.summary.trace_id, row.detail.span.span_id
        names = {span_id, trace_id, run_id_of(trace_id, span_id, False)}
        found |= dict.fromkeys(names & run_ids, _placement(row))
    return found


def _placement(row: SpanRow) -> Placement:
    record = decode_record(row.detail.record)
    dotted: str | None = None
    if record.codec == CODEC_LANGSMITH_RUN:
        raw = run_fields(record.raw).get("dotted_order")
        value = None if raw is None else msgspec.json.decode(raw)
        dotted = value if isinstance(value, str) else None
    return Placement(row.trace.summary.trace_id, dotted, row.trace.project_id)
