from __future__ import annotations

import numpy as np
import pytest

from model_export.errors import ExportError
from model_export.exit_codes import CODES, ExitCode, exit_code_of
from model_export.graphs.measure import Metrics, coarse
from model_export.variants import golden


def test_golden_rows_are_clear_of_every_class_and_repeatable() -> None:
    labels = np.sort(np.arange(400) % 10)
    probabilities = np.full((400, 10), 0.01)
    probabilities[np.arange(400), labels] = 0.91
    unclear = np.arange(400) % 2 == 0
    probabilities[unclear] = 0.1
    rows = golden.choose_rows({"x": np.zeros((400, 4), np.float32)}, probabilities, labels)
    assert len(rows) == golden.CASES
    assert not unclear[rows].any()
    assert set(labels[rows]) == set(range(10))
    again = golden.choose_rows({"x": np.zeros((400, 4), np.float32)}, probabilities, labels)
    assert rows.tolist() == again.tolist()


def test_large_inputs_get_fewer_golden_cases() -> None:
    labels, probabilities = np.zeros(50, dtype=np.int64), np.tile([0.9, 0.1], (50, 1))
    image = np.broadcast_to(np.float32(0), (50, 3, 224, 224))
    assert len(golden.choose_rows({"x": image}, probabilities, labels)) == 6
    huge = np.broadcast_to(np.float32(0), (50, 3, 1024, 1024))
    assert len(golden.choose_rows({"x": huge}, probabilities, labels)) == golden.FEWEST


@pytest.mark.parametrize(
    ("value", "step"), [(0.014, 0.01), (0.015, 0.02), (0.9, 1.0), (1.0, 1.0), (3.4, 5.0), (700.0, 500.0), (0.0, 0.0)]
)
def test_latency_is_kept_coarse(value: float, step: float) -> None:
    assert coarse(value) == step


def test_metrics_for_the_package_are_rounded_and_leave_out_what_was_not_measured() -> None:
    assert Metrics(0.987654, 1000, None).for_package() == {"accuracy": 0.9877, "size_bytes": 1000}
    assert Metrics(0.5, 1000, 0.0123).for_package()["latency_ms"] == 0.01


def test_every_error_has_a_number_of_its_own() -> None:
    def leaves(kind: type[ExportError]) -> list[type[ExportError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    kinds = leaves(ExportError)[1:]
    codes = {kind: exit_code_of(kind("message")) for kind in kinds}
    assert len(set(codes.values())) == len(kinds) == len(CODES)
    assert set(codes.values()) == set(ExitCode) - {ExitCode.OK, ExitCode.INTERNAL}
