"""The ledger over HTTP: entries, signed tree heads, proofs, keys.

The log is one for the whole installation, as its proofs are. A caller sees the entries of its own organisation in
full; of any other entry the number and the leaf hash alone, which every proof needs and which tells nothing: each
text holds an id and a time of nanoseconds. How many entries there are is known to all.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.native import inputs
from clearspan.api.native.bounds import Bounds, bounds_of, no_such
from clearspan.api.native.deletions import json_reply
from clearspan.api.native.evidence import payload_of
from clearspan.api.native.views import Json, render_ns
from clearspan.api.services import Services, services_of
from clearspan.catalog.ledger import LedgerEntry, text_of
from clearspan.model.errors import InvalidInput, NotFound

_CURSOR: Final = "ledger"


@requires(Permission.READ)
async def list_entries(request: Request) -> Response:
    """Entries in their order, from `from` on; with `deletion_id` those of one deletion.

    `text` is what was hashed: leaf hash = SHA-256(0x00 || text). Entries of others have a null `text`.
    """
    services, query = services_of(request), request.query_params
    inputs.check_query(query, {"from", "deletion_id", "limit", "cursor"})
    limit, after = inputs.read_limit(query), inputs.read_cursor(query, _CURSOR, int)
    start = after if after is not None else (inputs.read_number(query, "from", 0) or 0) - 1
    deletion_id = query.get("deletion_id") or None
    bounds = await services.reads.run(bounds_of, services, principal_of(request))

    def read() -> Json:
        sight = _Sight(services, bounds)
        found = services.catalog.ledger(after_seq=start, limit=limit + 1, deletion_id=deletion_id)
        if deletion_id is not None and (not found or not sight.sees(found[0])):
            raise no_such("deletion")
        page, more = found[:limit], len(found) > limit
        return {
            "data": [entry_json(entry, is_own=sight.sees(entry)) for entry in page],
            "next_cursor": inputs.render_cursor(_CURSOR, page[-1].seq) if more else None,
        }

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def get_head(request: Request) -> Response:
    """The signed tree head of the ledger as it is. Keep one outside: it pins all that came before it."""
    services = services_of(request)
    inputs.check_query(request.query_params)
    jws = await services.reads.run(services.catalog.signed_head)
    said = payload_of(jws)
    return json_reply({"head": jws, **{name: said[name] for name in ("instance", "size", "root", "at")}})


@requires(Permission.READ)
async def get_inclusion(request: Request) -> Response:
    """The proof that entry `index` is among the first `size` (all, if absent)."""
    services, query = services_of(request), request.query_params
    inputs.check_query(query, {"index", "size"})
    index, size = inputs.need_number(query, "index"), inputs.read_number(query, "size")

    def read() -> Json:
        of_size = services.catalog.ledger_size() if size is None else size
        path = services.catalog.inclusion(index, of_size)
        leaf = services.catalog.ledger(after_seq=index - 1, limit=1)[0].entry_hash
        return {
            "index": index,
            "size": of_size,
            "leaf_hash": leaf.hex(),
            "root": services.catalog.ledger_root(of_size).hex(),
            "path": [node.hex() for node in path],
        }

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def get_consistency(request: Request) -> Response:
    """The proof that the ledger of `size` entries (all, if absent) begins with that of the first `from`."""
    services, query = services_of(request), request.query_params
    inputs.check_query(query, {"from", "size"})
    old_size, size = inputs.need_number(query, "from"), inputs.read_number(query, "size")

    def read() -> Json:
        of_size = services.catalog.ledger_size() if size is None else size
        path = services.catalog.consistency(old_size, of_size)
        return {"old_size": old_size, "size": of_size, "path": [node.hex() for node in path]}

    return json_reply(await services.reads.run(read))


@requires(Permission.READ)
async def get_keys(request: Request) -> Response:
    """The public keys of every receipt and head ever signed, as a JWK set; `validity` says when each has signed."""
    services = services_of(request)
    inputs.check_query(request.query_params)
    stored = await services.reads.run(services.catalog.signing_keys)
    validity = {
        each.key_id: {"created_at": render_ns(each.created_at_ns), "retired_at": render_ns(each.retired_at_ns)}
        for each in stored
    }
    return json_reply({"keys": [each.key.jwk() for each in stored], "validity": validity})


@requires(Permission.ADMIN)
async def erase_private(request: Request) -> Response:
    """Erase the private words behind an entry. Its hash in the log, and so every proof, stays as it is."""
    services = services_of(request)
    inputs.check_query(request.query_params)
    text = request.path_params["seq"]
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidInput("The number of an entry is a whole number from 0.", fields=("seq",))
    bounds = await services.reads.run(bounds_of, services, principal_of(request))

    def erase() -> Json:
        found = services.catalog.ledger(after_seq=int(text) - 1, limit=1)
        if (
            not found
            or found[0].seq != int(text)
            or found[0].org_id is None
            or not _Sight(services, bounds).sees(found[0])
        ):
            raise no_such("ledger entry")
        ref = found[0].body.get("private_ref")
        if not isinstance(ref, str):
            raise NotFound("Nothing private belongs to that entry.", code="nothing_private")
        return {"seq": found[0].seq, "erased": services.deleter.erase_note(ref)}

    return json_reply(await services.deletes.run(erase))


def entry_json(entry: LedgerEntry, *, is_own: bool) -> Json:
    """An entry on the wire. Whole numbers of 19 digits are exact in `text` only: not every JSON reader keeps them."""
    told: Json = {"seq": entry.seq, "leaf_hash": entry.entry_hash.hex(), "text": None, "entry": None}
    if is_own:
        told["text"] = text_of(entry).decode()
        told["entry"] = {
            "at": render_ns(entry.at_ns),
            "kind": entry.kind,
            "deletion_id": entry.deletion_id,
            "step": entry.step,
            "body": entry.body,
        }
    return told


class _Sight:
    """Which entries a key may read, remembered for one page."""

    def __init__(self, services: Services, bounds: Bounds) -> None:
        self._services = services
        self._bounds = bounds
        self._deletions: dict[str, bool] = {}

    def sees(self, entry: LedgerEntry) -> bool:
        """Entries of the installation itself (changes of the signing key) are everybody's."""
        if entry.org_id is None:
            return True
        if entry.org_id != self._bounds.principal.org_id:
            return False
        if self._bounds.is_whole:
            return True
        return entry.deletion_id is not None and self._sees_deletion(entry.deletion_id)

    def _sees_deletion(self, subject: str) -> bool:
        if subject not in self._deletions:
            try:
                job = self._services.deleter.status(subject).job
            except NotFound:  # a hold, or another subject that bounded keys are not shown
                self._deletions[subject] = False
            else:
                self._deletions[subject] = self._bounds.sees(job)
        return self._deletions[subject]
