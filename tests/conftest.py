"""What every test of this folder may use."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["promises.plugin"]

# Both measure the wall clock: on a machine that is busy they fail tests that nothing is wrong with.
settings.register_profile("long", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time, so that what passed yesterday passes today; the long runs draw new ones.
settings.register_profile("default", settings.get_profile("long"), derandomize=True)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "not long":
        settings.load_profile("long")
