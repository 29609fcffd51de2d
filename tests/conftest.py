"""What holds for every test: property tests have no clock, since a speed is never a test; programs that a test starts
run without certificates and signatures, unless it is about those."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("edgeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeloop")

os.environ["CLOUD_HUB_INSECURE"] = os.environ["EDGE_AGENT_INSECURE"] = "true"
