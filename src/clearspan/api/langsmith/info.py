"""What LangSmith's clients ask first: what the server can do, and which workspace a key belongs to."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from clearspan.api.auth import Permission, principal_of, requires
from clearspan.api.langsmith.inputs import Json, render_time, uuid_text
from clearspan.api.langsmith.paths import classic
from clearspan.api.langsmith.replies import json_reply
from clearspan.api.services import Services, services_of
from clearspan.catalog import Principal
from clearspan.catalog.projects import uuid_of
from clearspan.settings import Settings

BACKEND_VERSION: Final = "0.18.0"
"""The version of LangSmith's backend whose API this one speaks: clients decide by it what they may call."""
BATCH_OPERATIONS_MAX: Final = 100
BATCH_BYTES_MAX: Final = 20 * 2**20


@requires(Permission.NONE_NEEDED)
async def server_info(request: Request) -> Response:
    """What this server can do. Needs no key, and minds no wrong one: clients ask before anything else."""
    return json_reply(info_of(services_of(request).settings))


@requires(Permission.READ)
async def workspace_settings(request: Request) -> Response:
    """The workspace of the key: its organisation."""
    services, principal = services_of(request), principal_of(request)
    return json_reply(await services.reads.run(_settings, services, principal))


@requires(Permission.READ)
async def list_workspaces(request: Request) -> Response:
    """Every workspace of the key: always one."""
    services, principal = services_of(request), principal_of(request)
    told = await services.reads.run(_settings, services, principal)
    more = {"organization_id": told["id"], "is_personal": False, "is_deleted": False, "read_only": False}
    return json_reply([told | more])


def info_of(settings: Settings) -> Json:
    """The answer of `/info`. `batch_ingest_config` is complete: a client that misses a key of it stops sending."""
    return {
        "version": BACKEND_VERSION,
        "git_sha": None,
        "license_expiration_time": None,
        "batch_ingest_config": {
            "use_multipart_endpoint": True,
            "scale_up_qsize_trigger": 1000,
            "scale_up_nthreads_limit": 16,
            "scale_down_nempty_trigger": 4,
            "size_limit": BATCH_OPERATIONS_MAX,
            # A body grows by the headers of its parts: half of what is taken leaves room for them.
            "size_limit_bytes": min(BATCH_BYTES_MAX, settings.body_bytes_max // 2),
        },
        # Flags of what is not there are left out, which means no.
        "instance_flags": {
            "zstd_compression_enabled": True,
            "gzip_body_enabled": True,
            "dataset_examples_multipart_enabled": True,
            "examples_multipart_enabled": True,
        },
        "customer_info": None,
    }


def tenant_of(principal: Principal) -> str:
    """The UUID of a key's organisation: what clients know as tenant or workspace."""
    return uuid_text(uuid_of(principal.org_public_id))


def _settings(services: Services, principal: Principal) -> Json:
    [mine] = [each for each in services.catalog.organisations() if each.id == principal.org_id]
    return {
        "id": tenant_of(principal),
        "display_name": mine.name,
        "created_at": render_time(mine.created_at_ns),
        "tenant_handle": None,
    }


ROUTES = (
    classic("GET", "/info", server_info),
    classic("GET", "/settings", workspace_settings),
    classic("GET", "/workspaces", list_workspaces),
)
