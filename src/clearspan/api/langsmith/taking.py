"""Taking a request of runs in: from its body to what became of each run, durable.

A client drops a whole batch for good on most statuses from 400 on, so a request fails only when nothing in it could be
stored. What of it could not is named in the answer, counted by reason, and logged without content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import structlog
from starlette.requests import Request

from clearspan.api.auth import principal_of
from clearspan.api.bodies import body_limits
from clearspan.api.intake import encoding_of, ingest_limits, is_large
from clearspan.api.langsmith.feedback import FeedbackOutcome, feedback_write
from clearspan.api.langsmith.placing import (
    Known,
    PlacedRuns,
    decode_with,
    place_runs,
    project_of,
    sessions_of,
)
from clearspan.api.limits import read_body
from clearspan.api.placing import Projects, Session
from clearspan.api.services import Services, services_of
from clearspan.catalog.principal import Principal
from clearspan.ingest.decompress import decompress
from clearspan.ingest.langsmith import DecodedRun, DecodedRuns, RunSource, batch_runs
from clearspan.ingest.run_parts import AttachmentPart, Rejection, RunRequest, shown
from clearspan.model.errors import ClearspanError
from clearspan.model.span import Attachment, TraceBatch
from clearspan.store.port import WriteOutcome

PROJECT_HEADER: Final = "langsmith-project"
NAMED_MAX: Final = 100
"""How many rejections and refusals an answer names."""

_log = structlog.stdlib.get_logger("clearspan.ingest")


class Refusal(NamedTuple):
    """Late data of a deleted trace."""

    trace_id: str  # "" of feedback
    refused_count: int
    deletion_id: str | None


class Taken(NamedTuple):
    """What became of a request of runs; everything that was accepted is on disk."""

    accepted: int  # runs, those that were stored before included
    attachments: int
    feedback: int
    rejections: list[Rejection]
    refusals: list[Refusal]

    @property
    def is_nothing(self) -> bool:
        """Whether all that it brought was rejected. What a tombstone refuses is not: the sender did nothing wrong."""
        return bool(self.rejections) and not (self.accepted or self.attachments or self.feedback or self.refusals)

    def answer(self, message: str) -> dict[str, Any]:
        """The body of the 202."""
        body: dict[str, Any] = {"message": message, "accepted": self.accepted}
        if self.attachments:
            body["attachments_accepted"] = self.attachments
        if self.feedback:
            body["feedback_accepted"] = self.feedback
        if self.rejections:
            body |= {"rejected_count": len(self.rejections), "rejected": named(self.rejections)}
        if self.refusals:
            body["refused_count"] = sum(each.refused_count for each in self.refusals)
            body["refused"] = [each._asdict() for each in self.refusals[:NAMED_MAX]]
        return body


def named(rejections: Sequence[Rejection]) -> list[dict[str, str]]:
    """The first rejections as JSON."""
    return [{key: value for key, value in each._asdict().items() if value} for each in rejections[:NAMED_MAX]]


class _Built(NamedTuple):
    """What is to be written of a request."""

    batches: list[TraceBatch]
    rejections: list[Rejection]


async def take(request: Request, read: Callable[[bytes], RunRequest]) -> Taken:
    """Store what a request brings, as far as it can be stored.

    Raises:
        InvalidPayload, PayloadTooLarge, UnsupportedMedia, RequestTimeout: the body as a whole; nothing was stored.
        Overloaded: the queue or the disk is full; nothing was stored, and sending it again is safe.
    """
    services, principal = services_of(request), principal_of(request)
    encoding = encoding_of(request)
    limits = ingest_limits(services.settings)
    source = RunSource(services.clock.now_ns(), principal.key_id, principal.environment, limits)
    projects = Projects(services, principal, request.headers.get(PROJECT_HEADER))
    with services.gateway.reserve() as reservation:
        body = await read_body(request, body_limits(services.settings), reservation)
        large = is_large(body, encoding)

        def unpack() -> tuple[int, RunRequest, tuple[DecodedRuns, set[str]]]:
            unpacked = decompress(body, encoding, limits)
            found = read(unpacked)
            attached = {each.run_id for each in found.attachments}
            return len(unpacked), found, decode_with(found.operations, source, {}, attached)

        size, found, first = await services.gateway.decode(large, unpack)
        reservation.grow_to(size)
        attached = {each.run_id for each in found.attachments}
        placed = await place_runs(
            services,
            principal,
            lambda known: decode_with(found.operations, source, known, attached),
            first,
        )
        built = await services.gateway.decode(large, lambda: _build(services, found, placed, projects))
        outcomes = await services.gateway.submit(built.batches)
        # After the runs: feedback finds those that came with it.
        feedback = (
            await feedback_write(services, principal, [body for _, body in found.feedback]) if found.feedback else []
        )
    taken = _with_feedback(_told(built, outcomes, [*found.rejections, *built.rejections]), found, feedback)
    _count(services, principal, taken, outcomes)
    return taken


def _build(services: Services, found: RunRequest, placed: PlacedRuns, projects: Projects) -> _Built:
    rejections = [
        Rejection("run", each.run_id, each.reason, "unknown_run" if each.is_unknown else "invalid_payload")
        for each in placed.decoded.rejected
    ]
    by_project, refused_runs = _by_project(placed, projects, rejections)
    batches: list[TraceBatch] = []
    places: dict[str, tuple[int, str]] = {}
    for project_id, runs in by_project.items():
        limits = ingest_limits(services.settings)
        batches += batch_runs(project_id, runs, services.prices, limits).batches
        places |= {run.run_id: (project_id, run.trace_id) for run in runs}
    refused_runs |= {each.run_id for each in placed.decoded.rejected} - places.keys()
    for place, attachments in _attachments(
        services, found.attachments, places, placed.known, projects, refused_runs, rejections
    ).items():
        batches.append(TraceBatch(*place, (), (), {}, b"", tuple(attachments)))
    return _Built(batches, rejections)


def _by_project(
    placed: PlacedRuns, projects: Projects, rejections: list[Rejection]
) -> tuple[dict[int, list[DecodedRun]], set[str]]:
    """(project → its runs, runs whose project they cannot go to)."""
    sessions = sessions_of(placed.decoded.runs)
    by_project: dict[int, list[DecodedRun]] = {}
    refused: set[str] = set()
    for run in placed.decoded.runs:
        try:
            project_id = project_of(run, projects, sessions, placed.known)
        except ClearspanError as error:
            rejections.append(Rejection("run", run.run_id, error.message, error.code))
            refused.add(run.run_id)
        else:
            by_project.setdefault(project_id, []).append(run)
    return by_project, refused


def _attachments(
    services: Services,
    parts: Sequence[AttachmentPart],
    places: dict[str, tuple[int, str]],
    known: Known,
    projects: Projects,
    refused_runs: set[str],
    rejections: list[Rejection],
) -> dict[tuple[int, str], list[Attachment]]:
    """(project, trace, "" when nobody knows it) → its attachments."""
    out: dict[tuple[int, str], list[Attachment]] = {}
    size_max = services.settings.attachment_bytes_max
    for part in parts:
        reason = code = ""
        place = places.get(part.run_id)
        if len(part.data) > size_max:
            reason, code = f"larger than {size_max} bytes", "payload_too_large"
        elif part.run_id in refused_runs:
            reason, code = "its run was rejected", "run_rejected"
        elif place is None:
            stored = known.get(part.run_id)
            try:
                if stored is not None and stored.project_id is not None:
                    place = (stored.project_id, stored.trace_id)
                else:
                    place = (_likely_project(places, projects), "")
            except ClearspanError as error:
                reason, code = error.message, error.code
        if place is None or reason:
            rejections.append(Rejection("attachment", part.run_id, reason, code, part.name))
        else:
            out.setdefault(place, []).append(Attachment(part.run_id, part.name, part.mime_type, part.data))
    return out


def _likely_project(places: dict[str, tuple[int, str]], projects: Projects) -> int:
    """Where an attachment waits for its run: with the other runs of its request, if those are of one project."""
    here = {project_id for project_id, _ in places.values()}
    return here.pop() if len(here) == 1 else projects.of(Session())


def _told(built: _Built, outcomes: Sequence[WriteOutcome], rejections: list[Rejection]) -> Taken:
    stored = [batch for batch, outcome in zip(built.batches, outcomes, strict=True) if not outcome.refused]
    refusals = [
        Refusal(batch.trace_id, outcome.refused, outcome.deletion_id)
        for batch, outcome in zip(built.batches, outcomes, strict=True)
        if outcome.refused
    ]
    runs, attachments = sum(len(each.spans) for each in stored), sum(len(each.attachments) for each in stored)
    # Beside a run that was deleted by itself the others of its trace are stored.
    runs += sum(
        min(outcome.stored, len(batch.spans))
        for batch, outcome in zip(built.batches, outcomes, strict=True)
        if outcome.refused and batch.trace_id
    )
    # Files without a trace are taken or refused one by one.
    attachments += sum(
        len(batch.attachments) - outcome.refused
        for batch, outcome in zip(built.batches, outcomes, strict=True)
        if outcome.refused and not batch.trace_id
    )
    return Taken(runs, attachments, 0, rejections, refusals)


def _with_feedback(taken: Taken, found: RunRequest, outcomes: Sequence[FeedbackOutcome]) -> Taken:
    accepted = 0
    for (name, _), outcome in zip(found.feedback, outcomes, strict=True):
        if outcome.error is not None:
            taken.rejections.append(Rejection("feedback", shown(name), outcome.error.message, outcome.error.code))
        elif outcome.stored is not None and outcome.stored.deletion_id is not None:
            taken.refusals.append(Refusal("", 1, outcome.stored.deletion_id))
        else:
            accepted += 1
    return taken._replace(feedback=accepted)


def _count(services: Services, principal: Principal, taken: Taken, outcomes: Sequence[WriteOutcome]) -> None:
    refused = sum(outcome.refused for outcome in outcomes)
    figures = services.metrics.spans
    figures.labels("accepted").inc(sum(outcome.stored for outcome in outcomes))
    figures.labels("repeated").inc(sum(outcome.repeated for outcome in outcomes))
    figures.labels("refused").inc(refused)
    services.metrics.late_refused.inc(refused)
    if not taken.rejections:
        return
    figures.labels("rejected").inc(sum(each.kind == "run" for each in taken.rejections))
    counts = Counter((each.kind, each.code) for each in taken.rejections)
    for labels, count in counts.items():
        services.metrics.rejections.labels(*labels).inc(count)
    _log.warning(
        "parts of a request were rejected",
        key_id=principal.key_id,
        accepted=taken.accepted,
        rejected={f"{kind}: {code}": count for (kind, code), count in sorted(counts.items())},
    )
