"""Operators of onnxruntime-extensions in a package: a tokenizer with plain attributes, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeloop.package import PackageError, audit_in_child
from edgeloop.package.audit_graph import audit_graph
from edgeloop.package.graph_limits import GraphLimits
from edgeloop.package.manifest import Manifest
from edgeloop.package.needs import EXTENSIONS, EXTENSIONS_DOMAIN
from edgeloop.package.texts import LONGEST, packed, unpacked
from edgeloop.runtime import extensions
from edgeloop.runtime.errors import ModelLoadError
from tests.doubles.packages import make_package

VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na"


def audited(
    tmp_path: Path, node: Any, *, needs: tuple[str, ...] = (EXTENSIONS,), domain: str = EXTENSIONS_DOMAIN
) -> str:
    """What the audit says of a graph with this node, inside a Loop."""
    body = helper.make_graph([node], "body", [], [])
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", ""], ["y"], body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.STRING, [None])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [None])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return "\n".join(audit_graph(path, "model.onnx", None, set(), GraphLimits(), needs))


def tokenizer(domain: str = EXTENSIONS_DOMAIN, **attributes: Any) -> Any:
    return helper.make_node("BertTokenizer", ["x"], ["y"], domain=domain, **({"vocab_file": VOCABULARY} | attributes))


def test_a_tokenizer_is_allowed_where_the_manifest_says_so(tmp_path: Path) -> None:
    assert audited(tmp_path, tokenizer(do_lower_case=1, max_length=8)) == ""
    said = audited(tmp_path, tokenizer(), needs=())
    assert "the manifest has to say so in needs" in said
    assert "custom domain" in said


@pytest.mark.parametrize(
    "operator", ["PyOp", "PythonOp", "DecodeImage", "ImageReader", "HfJsonTokenizer", "SentencepieceTokenizer", "Bert"]
)
def test_other_operators_of_the_library_are_not(tmp_path: Path, operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain=EXTENSIONS_DOMAIN)
    assert f"the operator {operator} of {EXTENSIONS} is not allowed" in audited(tmp_path, node)


@pytest.mark.parametrize("domain", ["com.microsoft.extensions", "ai.onnx.contrib.more", "AI.ONNX.CONTRIB"])
def test_its_other_domains_are_not(tmp_path: Path, domain: str) -> None:
    assert "would need a custom library" in audited(tmp_path, tokenizer(domain), domain=domain)


def test_attributes_that_are_not_known_or_too_large(tmp_path: Path) -> None:
    assert "may not have the attribute 'vocab_path'" in audited(tmp_path, tokenizer(vocab_path="/etc/passwd"))
    assert "bytes; at most" in audited(tmp_path, tokenizer(vocab_file="a\n" * (9 << 20)))


@pytest.mark.parametrize("needs", [["pip-install-anything"], "onnxruntime-extensions", [3], [["x"]], {}])
def test_a_manifest_that_needs_something_else(tmp_path: Path, needs: object) -> None:
    package = make_package(tmp_path / "package")
    path = package.root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["additional_metadata"]["edgeloop"]["needs"] = needs
    path.write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match=r"needs"):
        audit_in_child(package.root)


@pytest.mark.parametrize(
    "picture",
    [
        {"height": 0, "width": 8, "fit": "crop", "resample": "linear"},
        {"height": 1 << 20, "width": 1 << 20, "fit": "crop", "resample": "linear"},
        {"height": True, "width": 8, "fit": "crop", "resample": "linear"},
        {"height": 8, "width": 8, "fit": "/etc", "resample": "linear"},
        {"height": 8, "width": 8, "fit": "crop"},
        "8x8",
    ],
)
def test_a_manifest_whose_pictures_cannot_be(tmp_path: Path, picture: object) -> None:
    package = make_package(tmp_path / "package")
    manifest = json.loads((package.root / "manifest.json").read_bytes())
    manifest["additional_metadata"]["edgeloop"]["picture"] = picture
    with pytest.raises(PackageError, match=r"picture"):
        Manifest.parse(json.dumps(manifest).encode())


def test_a_machine_without_the_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "library", lambda: None)
    assert extensions.lacking(()) == ""
    assert "pip install 'edgeloop[processing]'" in extensions.lacking((EXTENSIONS,))
    with pytest.raises(ModelLoadError, match=EXTENSIONS):
        extensions.register((EXTENSIONS,), None)


@pytest.mark.parametrize("texts", [["a", "", "€ und mehr", "\x00\x00"], ["", ""], []])
def test_texts_come_back_as_they_were(texts: list[str]) -> None:
    array = np.array(texts, object)
    np.testing.assert_array_equal(unpacked("t", packed(array)), array)
    grid = np.array([["a", "bb"], ["ccc", ""]], object)
    np.testing.assert_array_equal(unpacked("t", packed(grid)), grid)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.uint8),
        np.zeros((2, 3), np.float32),
        np.array([[0xC3, 0x28]], np.uint8),
        np.zeros((1, LONGEST + 1), np.uint8),
    ],
)
def test_texts_that_are_none(array: Any) -> None:
    with pytest.raises(PackageError, match=r"text"):
        unpacked("t", array)
