"""What holds for every test: property tests have no clock, since a speed is never a test; programs that a test starts
run without certificates and signatures, unless it is about those."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fresh_environment import pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary

__all__ = ["log_handlers", "pytest_sessionfinish", "pytest_sessionstart", "pytest_terminal_summary"]


@pytest.fixture(autouse=True)
def log_handlers() -> Iterator[None]:
    """A program that runs in the test's own process leaves no handler behind, whose stream is closed by then."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.setLevel(level)
    for handler in [each for each in root.handlers if each not in before and type(each) is logging.StreamHandler]:
        root.removeHandler(handler)


settings.register_profile("edgeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeloop")

os.environ["CLOUD_HUB_INSECURE"] = os.environ["EDGE_AGENT_INSECURE"] = "true"
# Tests that build twice want two builds, and the user's own cache is not theirs.
os.environ["MODEL_EXPORT_CACHE"] = ""
