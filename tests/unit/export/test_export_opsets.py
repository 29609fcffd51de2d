from __future__ import annotations

import re
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
from model_export.graphs.opsets import READS, Limits, limits_of, oldest_in_fleet, too_new, within
from model_export.hub import Hub
from model_export.sources import open_source
from model_export.sources.capping import capped
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
    assert limits_of("1.17.3") == Limits("1.17.3", 20, 4, 9)
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
