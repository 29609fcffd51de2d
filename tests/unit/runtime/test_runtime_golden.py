"""Golden cases: what is held against nothing has not been held against anything."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.runtime.golden import judge


@pytest.mark.parametrize("role", ["label", "probabilities", "other"])
def test_outputs_without_elements_reproduce_no_reference(role: str) -> None:
    nothing, something = {"out": np.zeros((0, 3), np.float32)}, {"out": np.ones((2, 3), np.float32)}
    assert judge("fp32", {"out": role}, something, something).ok
    report = judge("fp32", {"out": role}, nothing, nothing)
    assert not report.ok and "output out differs" in report.reason
