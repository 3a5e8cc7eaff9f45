"""What a forked server need not read and make again; imported by the process that they are forked from."""

from __future__ import annotations

import clearspan.cli.serve  # noqa: F401
from clearspan.api.app import _every_route

_every_route()
