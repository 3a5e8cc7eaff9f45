"""The deletion side of the in-memory store: hide, hold, cancel, purge, settle on plain dictionaries."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from clearspan.model.annotation import Annotation
from clearspan.model.errors import Conflict
from clearspan.model.runs import run_ids_of_trace, spellings_of
from clearspan.model.trace import Scope, Window
from clearspan.proof.manifest import manifest_leaf
from clearspan.query.ast import Expr
from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.memory_annotation_deleting import MemoryAnnotationDeletions, leaves_of_annotations
from clearspan.store.memory_annotations import MemoryAnnotations
from clearspan.store.memory_span_deleting import SpanCutting
from clearspan.store.memory_trace import TARGETS, Trace, selected, without_metadata
from clearspan.store.port import (
    SETTLE_ROWS_MAX,
    SUMMARIES_MAX,
    Breakdown,
    DeletionKind,
    DeletionProgress,
    HideOutcome,
    HoldOutcome,
    HoldRow,
    PlannedTrace,
    TraceRow,
    child_id_of,
)
from clearspan.store.span_deletion import any_span, parse_name, render_name
from clearspan.store.tombstone import manifest_salt_of, tombstone_key

_NOTHING = HideOutcome(0, 0, 0, 0)


@dataclass
class Deletion:
    """One deletion as it stands."""

    outcome: HideOutcome
    request: bytes | None
    salt: bytes
    manifest: list[PlannedTrace]
    parent_id: str | None = None
    is_waiting: bool = False
    cancelled: bool = False
    settled: bool = False
    late_refused: int = 0
    batches: list[tuple[dict[str, int], bool]] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    annotations: list[PlannedAnnotation] | None = None  # the manifest of one of annotations
    kind: DeletionKind = DeletionKind.TRACES


@dataclass
class _Judged:
    """A manifest, line by line, as the hide transaction finds it."""

    hit: list[PlannedTrace] = field(default_factory=list)
    held: list[PlannedTrace] = field(default_factory=list)
    no_longer_matching: int = 0
    absent: int = 0

    @property
    def outcome(self) -> HideOutcome:
        return HideOutcome(len(self.hit), self.no_longer_matching, self.absent, len(self.held))


class DeletingMemory(MemoryAnnotationDeletions):
    """port.DeletionStore over dictionaries; store/memory.py adds writing and reading."""

    def __init__(self, tombstone_secret: bytes) -> None:
        self._secret = tombstone_secret
        self._lock = threading.RLock()
        self._traces: dict[int, Trace] = {}
        self._pk_of: dict[tuple[int, str], int] = {}
        self._hidden: dict[int, str] = {}  # trace_pk → deletion_id
        self._annotations = MemoryAnnotations(self._traces, self._hidden)
        self._next_pk = 1
        self._spans = SpanCutting(self._traces, self._pk_of, self._annotations, self._new_pk)
        self._tombstones: dict[bytes, str] = {}  # key → deletion_id
        self._deletions: dict[str, Deletion] = {}
        self._holds: dict[str, HoldRow] = {}
        self._previews: dict[bytes, tuple[bytes, int]] = {}  # key → (body, expires_ns)
        self._notes: dict[str, tuple[bytes, bytes]] = {}

    def _new_pk(self) -> int:
        self._next_pk += 1
        return self._next_pk - 1

    def _is_visible(self, trace_pk: int) -> bool:
        return trace_pk in self._traces and trace_pk not in self._hidden

    def _matching(self, scope: Scope, where: Expr | None, window: Window) -> Iterator[Trace]:
        for trace in self._traces.values():
            said = self._said_of(trace.trace_pk)
            if self._is_visible(trace.trace_pk) and selected(trace, scope, where, window, said):
                yield trace

    def _said_of(self, trace_pk: int) -> list[Annotation]:
        return [row.annotation for row in self._annotations.by_traces([trace_pk]).get(trace_pk, [])]

    # -- planning ---------------------------------------------------------------------------------------------

    def plan(
        self, scope: Scope, where: Expr | None, window: Window, *, received_before_ns: int, limit: int
    ) -> list[PlannedTrace]:
        with self._lock:
            found = [
                PlannedTrace(trace.trace_pk, trace.project_id, trace.trace_id)
                for trace in self._matching(scope, where, window)
                if trace.received_ns < received_before_ns
            ]
        return sorted(found)[: limit + 1]

    def plan_ids(self, scope: Scope, trace_ids: Sequence[str], window: Window) -> list[PlannedTrace]:
        with self._lock:
            return sorted(
                PlannedTrace(trace.trace_pk, trace.project_id, trace.trace_id)
                for trace in self._matching(scope, None, window)
                if trace.trace_id in trace_ids
            )

    def plan_spans(self, scope: Scope, names: Sequence[str]) -> list[PlannedTrace]:
        with self._lock:
            return sorted(
                PlannedTrace(trace.trace_pk, trace.project_id, render_name(trace.trace_id, span_id))
                for trace in self._matching(scope, None, Window())
                for span_id in trace.spans
                if span_id in names or render_name(trace.trace_id, span_id) in names
            )

    def count_spans(self, scope: Scope) -> int:
        with self._lock:
            return sum(len(trace.spans) for trace in self._matching(scope, None, Window()))

    def naming(self, scope: Scope, trace_pks: Sequence[int], keys: Sequence[str], *, limit: int) -> list[PlannedTrace]:
        with self._lock:
            given = [self._traces[pk] for pk in trace_pks if pk in self._traces]
            found = self._naming(scope, {run_id for trace in given for run_id in _run_ids(trace)}, keys)
        return sorted(line for line in found if line.trace_pk not in trace_pks)[: limit + 1]

    def naming_runs(
        self, scope: Scope, run_ids: Sequence[str], keys: Sequence[str], *, limit: int
    ) -> list[PlannedTrace]:
        with self._lock:
            return sorted(self._naming(scope, run_ids, keys))[: limit + 1]

    def _naming(self, scope: Scope, run_ids: Iterable[str], keys: Sequence[str]) -> list[PlannedTrace]:
        named = {text for run_id in run_ids for text in spellings_of(run_id)}
        return [
            PlannedTrace(trace.trace_pk, trace.project_id, trace.trace_id)
            for trace in self._matching(scope, None, Window())
            if any(key in keys and value in named for key, value in trace.summary.metadata_all)
        ]

    def purge_metadata(self, traces: Sequence[PlannedTrace], key: str) -> int:
        with self._lock:
            visible = [line.trace_pk for line in traces if self._is_visible(line.trace_pk)]
            new = [without_metadata(self._traces[pk], key) for pk in visible if not self._is_held(pk)]
            changed = [trace for trace in new if trace is not self._traces[trace.trace_pk]]
            self._traces.update({trace.trace_pk: trace for trace in changed})
        return len(changed)

    def count_visible(self, scope: Scope) -> int:
        with self._lock:
            return sum(1 for _ in self._matching(scope, None, Window()))

    def count_targets(self, trace_pks: Sequence[int]) -> dict[str, int]:
        with self._lock:
            return self._count(trace_pks)

    def count_held(self, trace_pks: Sequence[int]) -> dict[str, int]:
        with self._lock:
            counts = Counter(hold.hold_id for pk in set(trace_pks) for hold in self._holds_on(pk))
        return dict(counts)

    def held_among(self, trace_pks: Sequence[int]) -> int:
        with self._lock:
            return sum(self._is_held(pk) for pk in set(trace_pks))

    def summaries(self, trace_pks: Sequence[int]) -> list[TraceRow]:
        with self._lock:
            return [self._traces[pk].row for pk in trace_pks[:SUMMARIES_MAX] if self._is_visible(pk)]

    def breakdown(self, trace_pks: Sequence[int]) -> Breakdown:
        with self._lock:
            traces = [self._traces[pk] for pk in set(trace_pks) if self._is_visible(pk)]
        days = Counter(_day_of(trace.summary.start_ns) for trace in traces)
        return Breakdown(dict(days), dict(Counter(trace.project_id for trace in traces)))

    # -- hiding -----------------------------------------------------------------------------------------------

    def hide(
        self,
        deletion_id: str,
        scope: Scope,
        where: Expr | None,
        window: Window,
        manifest: Sequence[PlannedTrace],
        request: bytes,
        *,
        manifest_salt: bytes = b"",
        exact: bool = False,
        preview_key: bytes | None = None,
    ) -> HideOutcome:
        with self._lock:
            if deletion_id in self._deletions:
                return self._deletions[deletion_id].outcome
            if preview_key is not None and preview_key not in self._previews:
                raise Conflict("This plan was used before, or is not known.", code="plan_used_or_unknown")
            judged = self._judge(manifest, scope, where, window)
            if exact and (judged.absent or judged.no_longer_matching):
                raise Conflict("The planned traces have changed; nothing was deleted.", code="plan_mismatch")
            if preview_key is not None:
                del self._previews[preview_key]
            salt = manifest_salt or manifest_salt_of(self._secret, deletion_id)
            kind = DeletionKind.SPANS if any_span(manifest) else DeletionKind.TRACES
            hit, held = self._spans.cut(judged.hit, time.time_ns()), self._spans.number(judged.held)
            self._deletions[deletion_id] = Deletion(judged.outcome, request, salt, sorted(hit), kind=kind)
            self._mark(deletion_id, hit)
            self._hand_over(deletion_id, held)
            return judged.outcome

    def hide_child(self, deletion_id: str, scope: Scope, where: Expr | None, window: Window) -> HideOutcome | None:
        with self._lock:
            child = self._known(deletion_id)
            if child.cancelled:
                raise Conflict("This deletion was cancelled.", code="cancelled")
            if not child.is_waiting:
                return child.outcome
            if self._has_more(child.parent_id):
                return None
            judged = self._judge(child.manifest, scope, where, window, mine=deletion_id)
            if judged.held and not judged.hit:
                return None
            mine = [line for line in judged.hit if self._hidden.get(line.trace_pk) == deletion_id]
            hit = mine + self._spans.cut([line for line in judged.hit if line not in mine], time.time_ns())
            child.is_waiting = False
            child.outcome = judged.outcome
            child.manifest = sorted(hit)
            self._mark(deletion_id, hit)
            self._hand_over(deletion_id, judged.held)
            return judged.outcome

    def _judge(
        self, manifest: Iterable[PlannedTrace], scope: Scope, where: Expr | None, window: Window, mine: str = ""
    ) -> _Judged:
        """What becomes of each line now; lines that the deletion `mine` hid already are its own."""
        judged = _Judged()
        for each in manifest:
            is_mine = bool(mine) and self._hidden.get(each.trace_pk) == mine
            line = each
            if any_span([each]) and not is_mine:  # a span that is still in its trace is what the trace is
                whole = self._spans.find(each)
                line = PlannedTrace(-1 if whole is None else whole.trace_pk, each.project_id, "")
            if not is_mine and not self._is_visible(line.trace_pk):
                judged.absent += 1
            elif not is_mine and not self._still_matches(line, scope, where, window):
                judged.no_longer_matching += 1
            else:
                (judged.held if self._is_held(line.trace_pk) else judged.hit).append(each)
        return judged

    def _still_matches(self, line: PlannedTrace, scope: Scope, where: Expr | None, window: Window) -> bool:
        trace = self._traces[line.trace_pk]  # a trace that moved to another project is no longer the one planned
        said = self._said_of(line.trace_pk)
        return trace.project_id == line.project_id and selected(trace, scope, where, window, said)

    def _mark(self, deletion_id: str, lines: Iterable[PlannedTrace]) -> None:
        for line in lines:
            self._hidden[line.trace_pk] = deletion_id
            self._tombstones[tombstone_key(self._secret, line.project_id, line.trace_id)] = deletion_id

    def _hand_over(self, deletion_id: str, lines: Sequence[PlannedTrace]) -> None:
        """Put what a hold keeps into the waiting child; marks and tombstones that it has already go with it."""
        if not lines:
            return
        child_id, parent = child_id_of(deletion_id), self._deletions[deletion_id]
        if child_id not in self._deletions:
            salt = manifest_salt_of(self._secret, child_id)
            self._deletions[child_id] = Deletion(
                _NOTHING, parent.request, salt, [], deletion_id, is_waiting=True, kind=parent.kind
            )
        child = self._deletions[child_id]
        child.manifest = sorted({*child.manifest, *lines})
        self._mark(child_id, [line for line in lines if self._hidden.get(line.trace_pk) == deletion_id])

    def cancel(self, deletion_id: str) -> int:
        with self._lock:
            deletion = self._known(deletion_id)
            if deletion.cancelled:
                return 0
            if deletion.batches or deletion.settled:
                raise Conflict("Erasure has begun; it cannot be undone.", code="purge_begun")
            if deletion.is_waiting and self._has_more(deletion.parent_id):
                raise Conflict("Its parent deletion is not finished.", code="parent_unfinished")
            self._check_whole(deletion_id)
            freed = self._cancel(deletion_id)
            child = self._deletions.get(child_id_of(deletion_id))
            if child is not None and child.is_waiting:
                freed += self._cancel(child_id_of(deletion_id))
            return freed

    def _cancel(self, deletion_id: str) -> int:
        deletion = self._deletions[deletion_id]
        if deletion.annotations is not None:
            deletion.request, deletion.annotations, deletion.cancelled, deletion.is_waiting = None, [], True, False
            return self._cancel_annotations(deletion_id)
        freed = [pk for pk, by in self._hidden.items() if by == deletion_id]
        spans = [line for line in deletion.manifest if line.trace_pk in freed and any_span([line])]
        for pk in freed:
            del self._hidden[pk]
        self._tombstones = {key: by for key, by in self._tombstones.items() if by != deletion_id}
        deletion.request, deletion.manifest, deletion.cancelled, deletion.is_waiting = None, [], True, False
        self._spans.put_back(spans, time.time_ns())
        return len(freed)

    def _check_whole(self, deletion_id: str) -> None:
        """Raises Conflict if the trace of a span that was cut out was deleted meanwhile."""
        for each in (deletion_id, child_id_of(deletion_id)):
            for line in self._deletions[each].manifest if each in self._deletions else ():
                name = parse_name(line.trace_id)
                if (
                    name is not None
                    and self._hidden.get(line.trace_pk) == each
                    and self.find_tombstone(line.project_id, name.trace_id) is not None
                ):
                    raise Conflict(
                        "The trace of a span was deleted meanwhile; it cannot be undone.", code="trace_deleted"
                    )

    # -- erasing ----------------------------------------------------------------------------------------------

    def progress(self, deletion_id: str) -> DeletionProgress | None:
        with self._lock:
            deletion = self._deletions.get(deletion_id)
            if deletion is None:
                return None
            purged: Counter[str] = Counter()
            for counts, _ in deletion.batches:
                purged.update(counts)
            child_id = child_id_of(deletion_id)
            return DeletionProgress(
                outcome=deletion.outcome,
                request=deletion.request,
                batches=len(deletion.batches),
                more=self._has_more(deletion_id),
                purged=dict(purged),
                settled=deletion.settled,
                late_refused=deletion.late_refused,
                cancelled=deletion.cancelled,
                child_id=child_id if child_id in self._deletions else None,
                held_traces=deletion.outcome.held,
                manifest_salt=deletion.salt,
                is_waiting=deletion.is_waiting,
                kind=deletion.kind,
            )

    def manifest(self, deletion_id: str) -> list[PlannedTrace]:
        with self._lock:
            deletion = self._deletions.get(deletion_id)
            return [] if deletion is None or deletion.settled else list(deletion.manifest)

    def leaves(self, deletion_id: str) -> list[bytes]:
        with self._lock:
            deletion = self._known(deletion_id)
            return list(deletion.leaves) if deletion.settled else _leaves(deletion)

    def purge_batch(self, deletion_id: str, batch_no: int, *, rows_max: int) -> tuple[dict[str, int], bool]:
        with self._lock:
            deletion = self._known(deletion_id)
            if deletion.cancelled or deletion.is_waiting:
                raise Conflict("This deletion has nothing to purge.", code="cancelled" if deletion.cancelled else None)
            if batch_no < len(deletion.batches):
                return deletion.batches[batch_no]
            if batch_no != len(deletion.batches):
                raise ValueError(f"purge batch {batch_no} cannot follow {len(deletion.batches)} batches")
            if deletion.annotations is not None:
                gone = self._purge_annotations(deletion_id, deletion, rows_max)
                deletion.batches.append((gone, self._has_more(deletion_id)))
                return deletion.batches[-1]
            self._move_held(deletion_id, deletion)
            counts: Counter[str] = Counter()
            for trace_pk in [pk for pk, by in self._hidden.items() if by == deletion_id]:
                rows = self._count([trace_pk])
                if counts and counts.total() + sum(rows.values()) > rows_max:
                    break
                counts.update(rows)
                self._annotations.purge([trace_pk])
                trace = self._traces.pop(trace_pk)
                del self._pk_of[trace.project_id, trace.trace_id]
                del self._hidden[trace_pk]
            deletion.batches.append((dict(counts), self._has_more(deletion_id)))
            return deletion.batches[-1]

    def _move_held(self, deletion_id: str, deletion: Deletion) -> None:
        held = [
            line
            for line in deletion.manifest
            if self._hidden.get(line.trace_pk) == deletion_id and self._is_held(line.trace_pk)
        ]
        self._hand_over(deletion_id, held)
        deletion.manifest = sorted(set(deletion.manifest) - set(held))
        hidden, no_longer_matching, absent, kept = deletion.outcome
        deletion.outcome = HideOutcome(hidden - len(held), no_longer_matching, absent, kept + len(held))

    def purge_survivors(self, deletion_id: str, above: int, *, rows_max: int) -> tuple[dict[str, int], int | None]:
        del rows_max  # nothing here is long
        with self._lock:
            deletion = self._known(deletion_id)
            if deletion.cancelled or deletion.is_waiting or self._has_more(deletion_id):
                raise ValueError("the purge of that deletion is not finished")
            if deletion.annotations is not None:
                free = [line for line in deletion.annotations if not self._holders(line.row_no)]
                gone = sum(self._annotations.remove(line.row_no) for line in free)
                deletion.batches += [({"annotation": gone}, False)] if gone else []
                return ({"annotation": gone} if gone else {}), None
            left = [pk for pk, *_ in deletion.manifest if pk > above and not self._is_held(pk)]
            counts = Counter({name: count for name, count in self._count(left).items() if count})
            self._annotations.purge(left)
            for trace_pk in left:
                trace = self._traces.pop(trace_pk, None)
                if trace is not None:
                    self._pk_of.pop((trace.project_id, trace.trace_id), None)
            if counts:
                deletion.batches.append((dict(counts), False))
            return dict(counts), None

    def settle(self, deletion_id: str, *, rows_max: int = SETTLE_ROWS_MAX) -> None:
        del rows_max  # nothing here is long
        with self._lock:
            deletion = self._known(deletion_id)
            if deletion.cancelled or deletion.is_waiting or self._has_more(deletion_id):
                raise ValueError("the purge of that deletion is not finished")
            if not deletion.settled:
                deletion.leaves = _leaves(deletion)
            deletion.request = None
            deletion.settled = True

    def remaining(self, deletion_id: str) -> dict[str, int | None]:
        with self._lock:
            deletion = self._known(deletion_id)
            counts: dict[str, int | None] = {**self._count([line.trace_pk for line in deletion.manifest])}
            if deletion.annotations is not None:
                counts["annotation"] = self._count_annotations(deletion.annotations)
            return counts

    def _has_more(self, deletion_id: str | None) -> bool:
        deletion = None if deletion_id is None else self._deletions.get(deletion_id)
        if deletion is None or deletion.is_waiting:
            return False
        return deletion_id in self._hidden.values() or deletion_id in self._annotations.hidden_by.values()

    def _new_deletion(self, deletion_id: str, request: bytes | None, salt: bytes, parent_id: str | None) -> Deletion:
        """One of annotations, still empty."""
        salt = salt or manifest_salt_of(self._secret, deletion_id)
        made = self._deletions[deletion_id] = Deletion(
            _NOTHING, request, salt, [], parent_id, annotations=[], kind=DeletionKind.ANNOTATIONS
        )
        return made

    def _known(self, deletion_id: str) -> Deletion:
        if deletion_id not in self._deletions:
            raise ValueError("no such deletion in the store")
        return self._deletions[deletion_id]

    def _count(self, trace_pks: Iterable[int]) -> dict[str, int]:
        counts = Counter(dict.fromkeys(TARGETS, 0))
        pks = list(trace_pks)
        for trace_pk in pks:
            if trace_pk in self._traces:
                counts.update(self._traces[trace_pk].target_counts())
        counts["annotation"] = self._annotations.count(pks)
        return dict(counts)

    # -- holds ------------------------------------------------------------------------------------------------

    def add_hold(self, hold: HoldRow) -> HoldOutcome:
        with self._lock:
            kept = self._holds.setdefault(hold.hold_id, hold)
            covered = [] if kept.released_ns is not None else [pk for pk in self._traces if self._covers(kept, pk)]
            visible = sum(self._is_visible(pk) for pk in covered)
            return HoldOutcome(visible, len(covered) - visible)

    def release_hold(self, hold_id: str, released_ns: int) -> bool:
        with self._lock:
            hold = self._holds.get(hold_id)
            if hold is None or hold.released_ns is not None:
                return False
            self._holds[hold_id] = hold._replace(
                scope=Scope(hold.scope.project_ids),
                where=None,
                trace_ids=None,
                window=Window(),
                reason=None,
                released_ns=released_ns,
            )
            return True

    def holds(self, org_id: int | None, released: bool = False) -> list[HoldRow]:
        with self._lock:
            found = [
                hold
                for hold in self._holds.values()
                if org_id in (None, hold.org_id) and (released or hold.released_ns is None)
            ]
        return sorted(found, key=lambda hold: (hold.created_ns, hold.hold_id))

    def get_hold(self, hold_id: str) -> HoldRow | None:
        with self._lock:
            return self._holds.get(hold_id)

    def _covers(self, hold: HoldRow, trace_pk: int) -> bool:
        trace = self._traces[trace_pk]
        whole = self._spans.whole_of(trace)
        name = parse_name(trace.trace_id)
        trace_id = trace.trace_id if name is None else name.trace_id
        if whole is not None and self._covers(hold, whole.trace_pk):
            return True
        return (
            hold.released_ns is None
            and (hold.trace_ids is None or trace_id in hold.trace_ids)
            and selected(trace, hold.scope, hold.where, hold.window, self._said_of(trace.trace_pk))
        )

    def _holds_on(self, trace_pk: int) -> Iterator[HoldRow]:
        if trace_pk in self._traces:
            yield from (hold for hold in self._holds.values() if self._covers(hold, trace_pk))

    def _is_held(self, trace_pk: int) -> bool:
        return any(True for _ in self._holds_on(trace_pk))

    # -- previews, tombstones, notes --------------------------------------------------------------------------

    def save_preview(self, key: bytes, body: bytes, expires_ns: int) -> None:
        with self._lock:
            if key in self._previews:
                raise ValueError("that preview is stored already")
            self._previews[key] = (body, expires_ns)

    def get_preview(self, key: bytes) -> bytes | None:
        with self._lock:
            return self._previews.get(key, (None,))[0]

    def preview_keys(self) -> list[bytes]:
        with self._lock:
            return sorted(self._previews)

    def void_preview(self, key: bytes) -> bool:
        with self._lock:
            body, expires_ns = self._previews.get(key, (b"", 0))
            if body:
                self._previews[key] = (b"", expires_ns)
            return bool(body)

    def sweep_previews(self, now_ns: int) -> int:
        with self._lock:
            left = {key: each for key, each in self._previews.items() if each[1] > now_ns}
            swept = len(self._previews) - len(left)
            self._previews = left
            return swept

    def tombstones(self, deletion_id: str, after: bytes, limit: int) -> list[bytes]:
        with self._lock:
            return sorted(key for key, by in self._tombstones.items() if by == deletion_id and key > after)[:limit]

    def find_tombstone(self, project_id: int, trace_id: str) -> str | None:
        with self._lock:
            return self._tombstones.get(tombstone_key(self._secret, project_id, trace_id))

    def lift_tombstone(self, project_id: int, trace_id: str) -> str | None:
        with self._lock:
            if (project_id, trace_id) in self._pk_of and self.find_tombstone(project_id, trace_id) is not None:
                raise Conflict("That trace is still being erased.", code="still_erasing")
            return self._tombstones.pop(tombstone_key(self._secret, project_id, trace_id), None)

    def put_note(self, ref: str, salt: bytes, body: bytes) -> None:
        with self._lock:
            self._notes.setdefault(ref, (salt, body))

    def get_note(self, ref: str) -> tuple[bytes, bytes] | None:
        with self._lock:
            return self._notes.get(ref)

    def erase_note(self, ref: str) -> bool:
        with self._lock:
            return self._notes.pop(ref, None) is not None

    def make_room(self) -> bool:
        return False


def _leaves(deletion: Deletion) -> list[bytes]:
    if deletion.annotations is not None:
        return leaves_of_annotations(deletion.salt, deletion.annotations)
    return sorted(manifest_leaf(deletion.salt, line.project_id, line.trace_id) for line in deletion.manifest)


def _day_of(start_ns: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days=start_ns // 86_400_000_000_000))


def _run_ids(trace: Trace) -> set[str]:
    return run_ids_of_trace(trace.trace_id, trace.spans, trace.summary.root_span_id)
