"""What every test of this folder may use."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["promises.plugin"]

# Both measure the wall clock: on a machine that is busy they fail tests that nothing is wrong with.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
