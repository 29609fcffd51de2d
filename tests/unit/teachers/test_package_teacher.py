"""A package as a teacher: what fits is run together, what does not is said, one bad input costs the others nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud_hub.teachers.package import PackageTeacher
from cloud_hub.teachers.port import Opinion, Unavailable, Unfit, same_numbers
from cloud_hub.teachers.specs import PackageSpec
from edgeloop.insights.calibration import Calibration
from tests.doubles.packages import answers, make_model, make_package
from tests.unit.teachers.kit import DIGITS, question

SPEC = PackageSpec(kind="package", release="sha256:" + "0" * 64)
ROWS = np.random.default_rng(3).random((6, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageTeacher]:
    package = make_package(tmp_path_factory.mktemp("teacher") / "package", seed=4)
    made = PackageTeacher(package.root, SPEC)
    yield made
    made.close()


def test_it_answers_what_the_network_computes(teacher: PackageTeacher) -> None:
    expected = answers(make_model(4), ROWS)
    found = teacher.answer([question(row) for row in ROWS], 10.0)
    assert [one.label for one in found if isinstance(one, Opinion)] == expected["label"].tolist()
    sure = [one.confidence for one in found if isinstance(one, Opinion)]
    assert sure == pytest.approx(expected["probabilities"].max(axis=1).tolist(), abs=1e-5)


def test_a_calibration_says_what_its_confidence_means(teacher: PackageTeacher, tmp_path: Path) -> None:
    (plain,) = teacher.answer([question(ROWS[0])], 10.0)
    assert isinstance(plain, Opinion) and plain.confidence is not None and not plain.calibrated
    half = Calibration(np.array([0.0, 1.0]), np.array([1e-9, 0.5]), rows=100, right=50)
    calibrated = PackageTeacher(make_package(tmp_path / "package", seed=4).root, SPEC, half)
    (found,) = calibrated.answer([question(ROWS[0])], 10.0)
    calibrated.close()
    assert isinstance(found, Opinion) and found.label == plain.label and found.calibrated
    assert found.confidence == pytest.approx(plain.confidence / 2, abs=1e-5)


def test_names_of_classes_count_not_their_order(teacher: PackageTeacher) -> None:
    (plain,) = teacher.answer([question(ROWS[0])], 10.0)
    (turned,) = teacher.answer([question(ROWS[0], labels=DIGITS[::-1])], 10.0)
    assert isinstance(plain, Opinion) and isinstance(turned, Opinion)
    assert turned.label == 9 - plain.label
    (other,) = teacher.answer([question(ROWS[0], labels=("cat", "dog"), classes=2)], 10.0)
    assert isinstance(other, Unfit) and "no class of the model that asks" in str(other)
    (nameless,) = teacher.answer([question(ROWS[0], labels=())], 10.0)
    assert nameless == plain
    (few,) = teacher.answer([question(ROWS[0], labels=(), classes=plain.label)], 10.0)
    assert isinstance(few, Unfit)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (np.zeros(63, np.float32), "[64]"),
        (np.zeros((2, 64), np.float32), "[64]"),
        (np.array(b"text", object), "FP32"),
    ],
)
def test_what_does_not_fit_is_said_and_the_others_are_answered(
    teacher: PackageTeacher, row: np.ndarray, said: str
) -> None:
    first, wrong, last = teacher.answer([question(ROWS[0]), question(row), question(ROWS[1])], 10.0)
    assert isinstance(first, Opinion) and isinstance(last, Opinion)
    assert isinstance(wrong, Unfit) and said in str(wrong)


def test_the_same_numbers_fit_however_they_are_laid_out(teacher: PackageTeacher) -> None:
    (flat,) = teacher.answer([question(ROWS[2])], 10.0)
    square, double, named = teacher.answer(
        [question(ROWS[2].reshape(8, 8)), question(ROWS[2].astype(np.float64)), question(ROWS[2], name="pixels")], 10.0
    )
    assert flat == square == double == named


def test_inputs_of_several_names_are_looked_for_by_name(teacher: PackageTeacher) -> None:
    (two,) = teacher.answer([question(ROWS[0], ROWS[1])], 10.0)
    (absent,) = teacher.answer([question(ROWS[0], ROWS[1], name="y")], 10.0)
    assert isinstance(two, Opinion)
    assert isinstance(absent, Unfit) and "'x'" in str(absent)


def test_a_package_that_does_not_run_here_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not run here"):
        PackageTeacher(tmp_path, SPEC)
    elsewhere = make_package(tmp_path / "package", ep="QNNExecutionProvider")
    with pytest.raises(Unavailable, match="does not run here"):
        PackageTeacher(elsewhere.root, PackageSpec(**{**SPEC.model_dump(), "providers": ["QNNExecutionProvider"]}))


def test_numbers_are_changed_only_where_they_mean_the_same() -> None:
    assert same_numbers(np.array([0.7]), np.int64) is None
    assert same_numbers(np.array([300]), np.uint8) is None
    assert same_numbers(np.array([-1]), np.uint8) is None
    assert same_numbers(np.array([7]), np.uint8).tolist() == [7]  # type: ignore[union-attr]
    assert same_numbers(np.array([7], np.uint8), np.float32).tolist() == [7.0]  # type: ignore[union-attr]
    assert same_numbers(np.array([], np.int64), np.uint8) is not None
