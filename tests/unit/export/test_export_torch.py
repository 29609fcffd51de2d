from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: make test EXTRAS=dev,torch")
pytest.importorskip("onnxscript", reason="torch.onnx.export(dynamo=True) needs it")

from model_export.data import Table  # noqa: E402  after importorskip
from model_export.errors import SourceError, UnsupportedModelError  # noqa: E402
from model_export.graphs.probe import Probe  # noqa: E402
from model_export.prepare import prepare  # noqa: E402
from model_export.sources import open_source, parity  # noqa: E402
from model_export.sources import torch as torch_source  # noqa: E402
from model_export.variants.quantize import to_int8  # noqa: E402
from model_export.variants.recipes import Int8Options  # noqa: E402
from tests.doubles.digits import splits  # noqa: E402

X = splits().validation.x.reshape(-1, 1, 8, 8)
DATA = Table({"image": X}, splits().validation.y, "digits.npz", "0" * 64)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.hidden = torch.nn.Linear(32, 16)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(16, 10)

    def forward(self, image: Any) -> Any:
        x = torch.relu(self.norm(self.conv(image)))
        x = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return self.head(self.drop(torch.relu(self.hidden(x))))


class Branching(torch.nn.Module):
    """Python that depends on values: torch.export refuses it, TorchScript takes one branch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(64, 10)

    def forward(self, image: Any) -> Any:
        x = image.flatten(1)
        if x.sum() > -1e9:
            x = x * 1.0
        return self.head(x)


class WithMean(torch.nn.Module):
    def forward(self, image: Any) -> Any:
        return image.flatten(1), image.mean()


class NoInput(torch.nn.Module):
    def forward(self, *images: Any) -> Any:
        return images[0]


def test_a_module_is_exported_in_eval_mode_with_a_free_batch_and_a_head() -> None:
    net = Net()
    prepared = prepare(open_source(net, DATA), DATA, labels=None, given={})
    assert prepared.head is not None and (prepared.head.classes, prepared.head.width) == (10, 16)
    assert prepared.head.transposed and prepared.roles[prepared.scores] == "logits"
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(X)).numpy()
    got = Probe(prepared.model).run({"image": X})[prepared.scores]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    int8 = to_int8(prepared.model, {"image": X[:100]}, Int8Options())
    scale = np.abs(expected).max()
    np.testing.assert_allclose(Probe(int8).run({"image": X})[prepared.scores], expected, atol=0.1 * scale)


def test_what_torch_export_refuses_goes_through_torchscript_and_says_so() -> None:
    source = open_source(Branching(), DATA)
    assert any("TorchScript" in note for note in source.notes)
    assert prepare(source, DATA, labels=None, given={}).head is not None


def test_data_of_the_wrong_shape_and_a_forward_without_names_are_refused() -> None:
    flat = Table({"image": X.reshape(-1, 64)}, DATA.labels, "flat.npz", "")
    with pytest.raises(SourceError, match=r"flat\.npz"):
        open_source(Net(), flat)
    with pytest.raises(UnsupportedModelError, match="one value for all rows of a batch as output_1"):
        open_source(WithMean(), DATA)
    with pytest.raises(UnsupportedModelError, match="names no input"):
        open_source(NoInput(), DATA)


def test_an_export_that_gives_another_model_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> Any:
        model = by_torchscript(*arguments)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("head.bias"))
        bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + np.eye(10, dtype=np.float32)[3]).tobytes()
        return model

    by_torchscript = torch_source.by_torchscript
    monkeypatch.setattr(torch_source, "by_torch_export", wrong)
    source = open_source(Net(), DATA)
    assert source.how == "TorchScript"
    (note,) = source.notes
    assert "torch.export: output output differs from the source's in 100.0% of 400 rows, at worst by 1" in note
    found = parity.check(source, DATA)
    assert found is not None and found.outputs["output"].agreeing_rows == 1.0
    monkeypatch.setattr(torch_source, "by_torchscript", wrong)
    with pytest.raises(SourceError, match="cannot be exported"):
        open_source(Net(), DATA)
