"""What holds for every test: property tests have no clock, since a speed is never a test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("edgeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeloop")
