"""What a threshold is expected to bring counts the answer that clients get: the better of two, not the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cloud_hub.escalations.gauging import Gauged, gauged
from cloud_hub.escalations.records import EscalationRecord
from cloud_hub.escalations.thresholds import likely_right
from cloud_hub.teachers.port import Busy, Opinion, Outcome, Question
from edgeloop.cascade.policy import EscalationPolicy
from edgeloop.package import Package
from tests.doubles.packages import duller, make_package

POLICY = EscalationPolicy(mode="async", signals=("confidence",))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("gauging")
    return duller(make_package(folder / "right"), folder / "dull", 0.3)


def asked(package: Package, teacher: Opinion, silent: int = 0) -> Gauged:
    """What is found with a teacher who says the same of every row, but of the first ``silent`` ones."""

    def ask(questions: Sequence[Question]) -> list[Outcome]:
        return [Busy("no time") if row < silent else teacher for row in range(len(questions))]

    found = gauged(package, POLICY, "stable", ask)
    assert found is not None
    return found


def test_a_teacher_who_is_far_less_sure_changes_no_answer(package: Package) -> None:
    found = asked(package, Opinion(1, 1e-9, calibrated=True))
    sure = found.hardness < 1
    assert sure.sum() > 20 and np.array_equal(found.given[sure], found.edge[sure])
    assert found.teacher_accuracy is not None and found.teacher_accuracy < found.edge.mean()


@pytest.mark.parametrize("teacher", [Opinion(1, 1e-9), Opinion(1), Opinion(1, 1.0, calibrated=True)])
def test_a_teacher_who_is_believed_has_every_answer(package: Package, teacher: Opinion) -> None:
    found = asked(package, teacher)
    assert found.given.mean() == pytest.approx(found.teacher_accuracy)


def test_a_row_that_nobody_answers_keeps_its_own(package: Package) -> None:
    found = asked(package, Opinion(1), silent=10)
    assert np.array_equal(found.given[:10], found.edge[:10]) and not np.array_equal(found.given, found.edge)


def answer(hardness: float, label: int, sure: float | None, calibrated: bool = True) -> EscalationRecord:
    """The device has answered class 1."""
    whose = ("camera-1", "p", 0, "stable", "sha256:1", "", "input", 0.5, False, False, 1, 0.9, 100, 0.0)
    return EscalationRecord(*whose, state="answered", label=label, sure=sure, calibrated=calibrated, hardness=hardness)


def test_answers_count_by_the_rule_that_clients_get_them_by() -> None:
    answers = [
        answer(0.5, 1, 0.9),  # they agree
        answer(0.5, 2, 0.9),  # the teacher's
        answer(0.1, 2, 0.6),  # the device's stands, as 6 to 1
        answer(0.1, 2, 0.6, calibrated=False),  # nobody has measured that: the teacher's
        answer(0.1, 2, None),
    ]
    edge, given = likely_right(answers, 0.95)
    assert edge.tolist() == pytest.approx([0.95, 0, 6 / 7, 0, 0])
    assert given.tolist() == pytest.approx([0.95, 0.95, 6 / 7, 0.95, 0.95])
