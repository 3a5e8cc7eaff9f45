"""What every test of this folder may use."""

from __future__ import annotations

pytest_plugins = ["promises.plugin"]
