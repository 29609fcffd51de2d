from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeloop.package import Package
from model_export import build
from model_export.data import Table
from model_export.errors import ExportError, RequestError, UnsupportedModelError
from model_export.graphs.opsets import READS, limits_of, oldest_in_fleet, too_new, within
from model_export.hub import Hub
from model_export.prepare import Prepared, prepare
from model_export.sources import open_source
from model_export.sources.capping import capped
from model_export.tuning.space import Space
from model_export.variants.maker import Maker
from model_export.variants.recipes import Int4Options, Int8Options, VariantRecipe
from model_export.variants.targets import TARGETS
from tests.unit.export import networks
from tests.unit.export.models import model, rows, two_layers, weight

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "model-export.md").read_text(encoding="utf-8")
DATA = Table({"x": rows(60)}, np.arange(60) % 3, "data.npz", "")


def newer(opset: int, operator: str = "Gelu") -> Any:
    """A model with an operator that came with opset 20, or with one of any."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["c"]), helper.make_node(operator, ["c"], ["scores"])]
    made = model(nodes, {"scores": ["N", 3]}, {"w": weight(4, 3)}, opset=opset)
    made.ir_version = 10
    return made


def test_a_release_reads_what_the_reference_says() -> None:
    told = re.findall(r"^\| (1\.\d+)[^|]* \| (\d+) \| (\d) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert {tuple(map(int, name.split("."))): tuple(map(int, rest)) for name, *rest in told} == READS
    found = limits_of("1.17.3")
    assert (found.runtime, found.opset, found.ml, found.ir) == ("1.17.3", 20, 4, 9)
    assert limits_of("1.13").opset == 17 and limits_of("1.99").opset == limits_of("2.0").opset == 24
    for wrong in ("1.11", "new", ""):
        with pytest.raises(RequestError) as caught:
            limits_of(wrong)
        assert caught.value.hint


def test_what_is_newer_is_taken_back_and_is_the_same_model() -> None:
    source = open_source(newer(21, "Relu"), DATA)
    found = capped(source, DATA, limits_of("1.15"))
    assert [opset.version for opset in found.model.opset_import if not opset.domain] == [19]
    assert found.notes == ("brought from opset 21 to 19, which ONNX Runtime 1.15 reads",)
    assert capped(source, DATA, limits_of("1.18")) is source


def test_what_cannot_be_taken_back_says_what_to_do() -> None:
    with pytest.raises(UnsupportedModelError, match=r"opset 20 of ai\.onnx, and it reads 17") as caught:
        capped(open_source(newer(20), DATA), DATA, limits_of("1.12"))
    assert "export it again with opset 17" in caught.value.hint
    with pytest.raises(UnsupportedModelError, match="cannot read the graph"):
        within(newer(20), limits_of("1.12"))


@pytest.fixture(scope="module", name="transformer")
def transformer_once() -> Prepared:
    table = Table({"input_ids": networks.sentences(96)}, networks.classes(96), "data.npz", "")
    return prepare(open_source(networks.transformer(), table), table, labels=None, given={})


VARIANTS = {
    "1.14": [
        VariantRecipe("fp32"),
        VariantRecipe("fp16"),
        VariantRecipe("int8", int8=Int8Options()),
        VariantRecipe("int8", int8=Int8Options("u8u8", per_channel=False, dynamic=True, embeddings=True)),
    ],
    "1.15": [
        VariantRecipe("fp32", fused=True),
        VariantRecipe("fp16", fused=True),
        VariantRecipe("int8", int8=Int8Options(dynamic=True), fused=True),
    ],
    "1.17": [VariantRecipe("int4", int4=Int4Options(16)), VariantRecipe("int4", int4=Int4Options(16), fused=True)],
}


def test_every_kind_of_variant_is_for_the_releases_that_have_its_operators(transformer: Prepared) -> None:
    """tests/conformance/test_old_runtimes.py gives the same graphs to such releases."""
    maker = Maker(transformer, {name: array[:32] for name, array in transformer.rows.items()})
    for first, recipes in VARIANTS.items():
        for recipe in recipes:
            made = maker.graph(recipe)
            for limits in map(limits_of, VARIANTS):
                if limits.runtime >= first:
                    assert within(made, limits).ir_version <= limits.ir
                    continue
                with pytest.raises(UnsupportedModelError, match=r"com\.microsoft.* is the first that") as caught:
                    within(made, limits)
                assert "update the devices" in caught.value.hint
    makers = [replace(maker, limits=limits_of(runtime)) for runtime in VARIANTS]
    assert [made.fusable for made in makers] == [False, True, True]
    assert ["int4" in Space.of(made, TARGETS["cpu"]).kinds for made in makers] == [False, False, True]


def test_an_operator_or_attribute_that_no_release_is_known_to_have_is_refused() -> None:
    def why(operator: str, runtime: str, **attributes: Any) -> str:
        nodes = [helper.make_node(operator, ["x"], ["scores"], domain="com.microsoft", **attributes)]
        return too_new(model(nodes, {"scores": ["N", 4]}, {}, domains=("com.microsoft",)), limits_of(runtime))

    assert why("Attention", "1.16", num_heads=2) == why("Attention", "1.17", rotary_embedding_dim=2) == ""
    told = why("Attention", "1.16", num_heads=2, rotary_embedding_dim=2)
    assert told == "com.microsoft.Attention with rotary_embedding_dim, and ONNX Runtime 1.17 is the first that reads it"
    for told in (why("Invented", "2.0"), why("Gelu", "2.0", invented=1)):
        assert told.endswith("no release is known to have it")


def test_a_variant_that_is_named_and_not_read_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", input_ids=networks.sentences(60), label=networks.classes(60))
    with pytest.raises(UnsupportedModelError, match=r"1\.16 cannot read the graph.*MatMulNBits"):
        build(networks.transformer(), tmp_path / "no", tmp_path / "data.npz", precision=("int4",), min_runtime="1.16")
    assert not (tmp_path / "no").exists()


def test_a_package_for_an_older_runtime_and_one_like_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(120), label=np.arange(120) % 3)
    made = two_layers()
    made.ir_version = 12
    made.opset_import[0].version = 21

    def graphs(name: str, **options: Any) -> list[Any]:
        build(made, tmp_path / name, tmp_path / "data.npz", reproducible=True, **options)
        files = sorted((tmp_path / name).rglob("*.onnx"))
        assert Package.open(tmp_path / name).meta.extra
        return [onnx.load(file, load_external_data=False) for file in files]

    old = graphs("old", min_runtime="1.14")
    assert old and all(not too_new(graph, limits_of("1.14")) and graph.ir_version <= 8 for graph in old)
    like = graphs("like", like=tmp_path / "old", version="1.0.1")
    assert [graph.ir_version for graph in like] == [graph.ir_version for graph in old]


class Answer:
    """A hub's answer."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def json(self) -> Any:
        return self.found


def test_the_oldest_runtime_of_a_channel_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    found: list[Any] = [{"health": {"runtime": version}} for version in ("1.32.0", "1.9.1", "1.24.1")]

    def send(self: Hub, method: str, path: str, request: Any) -> Answer:
        asked.append((method, path, request()))
        return Answer(found)

    monkeypatch.setattr(Hub, "send", send)
    hub = Hub("http://127.0.0.1:1")
    found[1] = {"health": {}}
    assert oldest_in_fleet(hub, "stable") == "1.24.1"
    assert asked == [("GET", "/api/v1/devices", {"params": {"channel": "stable"}})]
    found.append({"health": {"runtime": "1.9.1"}})
    assert oldest_in_fleet(hub, "stable") == "1.9.1"
    found[:] = [{"health": None}]
    with pytest.raises(RequestError, match="no device of the channel stable") as caught:
        oldest_in_fleet(hub, "stable")
    assert "--min-runtime" in caught.value.hint
    found[:] = ["nonsense"]
    with pytest.raises(ExportError, match="does not list its devices"):
        oldest_in_fleet(hub, "stable")
