"""A package with processing that gets a new head, or a new model by ``like``: what comes before it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cloud_hub.teachers.package import PackageTeacher
from cloud_hub.teachers.port import Opinion, Unfit
from cloud_hub.teachers.specs import PackageSpec
from edgeloop.package import Package, audit_in_child, revise_head
from edgeloop.protocol.inputs import Tensor
from edgeloop.runtime import ModelSession, evaluate, extensions
from model_export import build
from tests.doubles import processed
from tests.unit.teachers.kit import question

pytestmark = pytest.mark.skipif(extensions.library() is None, reason="pip install 'edgeloop[processing]'")


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return Package.open(processed.build_sentences(tmp_path_factory.mktemp("again") / "base", precision=["fp32"]))


def accuracy(package: Package) -> float:
    found = package.validation()
    assert found is not None
    session = ModelSession.load(package, "cpu-fp32")
    return evaluate(session, *found).accuracy


def test_it_says_what_a_device_needs(sentences: Package) -> None:
    assert sentences.meta.needs == ("onnxruntime-extensions",)
    assert sentences.meta.picture is None
    assert [(spec.name, spec.datatype, spec.shape) for spec in sentences.meta.inputs] == [("text", "BYTES", (-1,))]
    assert sentences.meta.head is not None
    assert accuracy(sentences) > 0.9


def test_a_new_head_leaves_everything_before_it(sentences: Package, tmp_path: Path) -> None:
    weight, bias = sentences.head_arrays()
    revised = revise_head(
        sentences,
        tmp_path / "revised",
        weight=-weight,
        bias=bias,
        golden_outputs=sentences.golden().outputs,
        profile=sentences.profile(),
        metrics={},
        lineage={},
        version="2",
    )
    audit_in_child(revised.root)
    assert revised.meta.needs == sentences.meta.needs
    assert accuracy(revised) < 0.1
    changed = {entry.path for entry in revised.index.entries} - {entry.path for entry in sentences.index.entries}
    assert not any(path.endswith((".onnx", "inputs.safetensors", "validation.safetensors")) for path in changed)


def test_a_model_like_it_gets_its_processing(sentences: Package, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(processed.sentence_model().SerializeToString())
    data = processed.write_sentences(tmp_path / "data.csv")
    packages = [tmp_path / name for name in ("one", "two")]
    for package in packages:
        build(model, package, data, like=sentences.root, version="2")
    one, two = map(Package.open, packages)
    assert one.digest == two.digest
    assert (one.name, one.meta.needs, one.meta.inputs) == (sentences.name, sentences.meta.needs, sentences.meta.inputs)
    assert one.meta.extra["recipe"]["processing"] == sentences.meta.extra["recipe"]["processing"]
    before: Any = sentences.golden().inputs["text"]
    np.testing.assert_array_equal(one.golden().inputs["text"], before)
    assert accuracy(one) == accuracy(sentences)


def test_it_teaches_what_travels_as_bytes(sentences: Package) -> None:
    spec = PackageSpec(kind="package", release=sentences.digest)
    teacher = PackageTeacher(sentences.root, spec)
    rows = []
    for kind in range(2):
        row = Tensor.of(np.array(processed.sentence(kind, 77), object)).row()
        assert isinstance(row.item(), bytes)
        rows.append(row)
    broken = np.empty((), object)
    broken[()] = b"\xff"
    try:
        found = teacher.answer(
            [question(row, labels=processed.KINDS, classes=2, name="text") for row in (*rows, broken)], 10.0
        )
    finally:
        teacher.close()
    assert [one.label for one in found if isinstance(one, Opinion)] == [0, 1]
    assert isinstance(found[2], Unfit)
