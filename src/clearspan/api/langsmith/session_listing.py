"""Which sessions a list asks for, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import QueryParams

from clearspan.api.langsmith.inputs import Json, query_object, query_time, read_count, read_switch, read_uuids
from clearspan.catalog import Project
from clearspan.model.errors import InvalidInput

LIMIT_MAX: Final = 100
STATS_SORT_MAX: Final = 200
"""Most sessions that are put in order by a figure: each costs a read over all its runs."""
BY_STATS: Final = frozenset({"last_run_start_time", "latency_p50", "latency_p99", "error_rate", "feedback"})
_NOT_HERE: Final = ("filter", "stats_filter")


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A list of sessions, as asked for. None and empty: any."""

    uuids: tuple[str, ...]
    name: str | None
    name_contains: str | None
    reference_datasets: tuple[str, ...]
    reference_free: bool | None
    metadata: Json
    dataset_version: str | None
    tag_value_ids: frozenset[str]
    sort_by: str
    is_descending: bool
    feedback_key: str | None
    feedback_map: str
    offset: int
    limit: int
    with_stats: bool
    stats_since_ns: int | None
    stats_select: frozenset[str]

    def wants(self, project: Project) -> bool:
        """Whether a project is one of those asked for."""
        extra = (project.extra or {}).get("metadata")
        metadata = extra if isinstance(extra, dict) else {}
        return (
            (not self.uuids or project.uuid in self.uuids)
            and (self.name is None or project.name == self.name)
            and (self.name_contains is None or self.name_contains.casefold() in project.name.casefold())
            and (not self.reference_datasets or project.reference_dataset_id in self.reference_datasets)
            and (self.reference_free is None or self.reference_free is (project.reference_dataset_id is None))
            and all(key in metadata and metadata[key] == value for key, value in self.metadata.items())
            and (self.dataset_version is None or metadata.get("dataset_version") == self.dataset_version)
            and self.tag_value_ids <= set((project.options or {}).get("tag_value_ids") or ())
        )

    def selected(self, stats: Json) -> Json:
        """The figures that were asked for."""
        return {key: value for key, value in stats.items() if not self.stats_select or key in self.stats_select}

    def sorted(self, found: list[Project], stats_of: Callable[[Project], Json]) -> list[Project]:
        """The projects in order; those without the figure come last.

        Raises:
            InvalidInput: too many to ask each for its figures.
        """
        if self.sort_by in BY_STATS and len(found) > STATS_SORT_MAX:
            raise InvalidInput(
                f"sort_by={self.sort_by} puts at most {STATS_SORT_MAX} sessions in order, and {len(found)} match: "
                "narrow the list.",
                fields=("sort_by",),
            )
        keyed = [(self._figure(each, stats_of), each) for each in found]
        known = [(key, each) for key, each in keyed if key is not None]
        known.sort(key=lambda pair: (pair[0], pair[1].id), reverse=self.is_descending)
        return [each for _, each in known] + [each for key, each in keyed if key is None]

    def _figure(self, project: Project, stats_of: Callable[[Project], Json]) -> Any:
        if self.sort_by == "name":
            return project.name
        if self.sort_by == "start_time":
            return project.created_at_ns if project.start_ns is None else project.start_ns
        stats = stats_of(project)
        if self.sort_by == "feedback":
            return (stats[self.feedback_map].get(self.feedback_key) or {}).get("avg")
        return stats[self.sort_by]


def parse_session_query(query: QueryParams) -> SessionQuery:
    """The parameters of a list. Raises InvalidInput, naming the parameter."""
    for name in _NOT_HERE:
        if query.get(name):  # to answer as if it were not there would show what it excludes
            raise InvalidInput(f"{name} is not available for sessions here.", fields=(name,))
    sort_by = query.get("sort_by") or "start_time"
    if sort_by not in BY_STATS | {"name", "start_time"}:
        known = ", ".join(sorted(BY_STATS | {"name", "start_time"}))
        raise InvalidInput(f"sort_by is one of {known}.", fields=("sort_by",))
    if sort_by == "feedback" and not query.get("sort_by_feedback_key"):
        raise InvalidInput("sort_by=feedback needs sort_by_feedback_key.", fields=("sort_by_feedback_key",))
    is_free = read_switch(query, "reference_free")
    return SessionQuery(
        uuids=tuple(read_uuids(query, "id")),
        name=query.get("name") or None,
        name_contains=query.get("name_contains") or None,
        reference_datasets=tuple(read_uuids(query, "reference_dataset")),
        reference_free=is_free if query.get("reference_free") else None,
        metadata=query_object(query, "metadata") or {},
        dataset_version=query.get("dataset_version") or None,
        tag_value_ids=frozenset(query.getlist("tag_value_id")),
        sort_by=sort_by,
        is_descending=read_switch(query, "sort_by_desc", True),
        feedback_key=query.get("sort_by_feedback_key"),
        feedback_map="session_feedback_stats"
        if query.get("sort_by_feedback_source") == "session"
        else "feedback_stats",
        offset=read_count(query, "offset", 0),
        limit=read_count(query, "limit", LIMIT_MAX, least=1, most=LIMIT_MAX),
        with_stats=read_switch(query, "include_stats"),
        stats_since_ns=query_time(query, "stats_start_time"),
        stats_select=frozenset(query.getlist("stats_select")),
    )
