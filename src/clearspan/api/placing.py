"""Projects that requests name, whatever the dialect: found, or made within what the key may do."""

from __future__ import annotations

from typing import NamedTuple

from clearspan.api.services import Services
from clearspan.catalog.principal import Principal
from clearspan.ingest.run_promotion import run_uuid
from clearspan.model.errors import ClearspanError, InvalidInput, NotFound


class Session(NamedTuple):
    """How a span or run names its project: by UUID (32 hex digits), which counts first, or by name."""

    uuid: str | None = None
    name: str | None = None


class Projects:
    """The projects of one request; each is looked up once."""

    def __init__(self, services: Services, principal: Principal, default_name: str | None = None) -> None:
        """
        Args:
            default_name: the project of what names none; None: the key's own default.
        """
        self._catalog = services.catalog
        self._principal = principal
        self._default = Session(None, default_name)
        self._found: dict[Session, int | ClearspanError] = {}

    def of(self, session: Session) -> int:
        """The number of the project, made if it is named and new.

        Raises:
            NotPermitted: the key is bound to others. NotFound: there is none of that UUID. InvalidInput: no such name
            can be.
        Cost: about 1 µs for a name written to lately, about 0.3 ms else.
        """
        if session == Session():
            session = self._default
        found = self._found.get(session)
        if found is None:
            try:
                found = self._look_up(session)
            except ClearspanError as error:
                found = error
            self._found[session] = found
        if isinstance(found, ClearspanError):
            raise found
        return found

    def _look_up(self, session: Session) -> int:
        if session.uuid is None:
            return self._catalog.project_for_ingest(self._principal, session.name).id
        try:
            uuid = run_uuid(session.uuid, "session_id")
        except InvalidInput as error:
            raise InvalidInput(error.message, fields=("session_id",)) from None
        project = self._catalog.find_project_uuid(self._principal.org_id, uuid)
        if project is None or project.id not in self._principal.project_ids:
            raise NotFound("There is no such project.", fields=("session_id",))
        return project.id
