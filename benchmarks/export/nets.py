"""Trains the networks of this benchmark, and leaves each as ONNX; run by the Python of an environment with PyTorch.

``python nets.py NAME FOLDER`` with a folder that has ``train.npz``; writes ``model.onnx``, float32, opset 17.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

#: MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, repeats, first stride.
MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
#: ResNet-18 (He et al. 2016, table 1): channels and first stride of each pair of blocks.
RESNET_18 = ((64, 1), (128, 2), (256, 2), (512, 2))
CLASSES, BATCH = 10, 32
EPOCHS = {"mobilenet_v2": 8, "resnet_18": 3, "bert": 8}
RATE = {"mobilenet_v2": 2e-3, "resnet_18": 1e-3, "bert": 5e-4}


def conv(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its batch normalisation."""
    return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]


class Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(self, cin: int, cout: int, expand: int, stride: int) -> None:
        super().__init__()
        wide = cin * expand
        wider = [*conv(cin, wide, 1), nn.ReLU6()] if expand > 1 else []
        self.body = nn.Sequential(*wider, *conv(wide, wide, 3, stride, wide), nn.ReLU6(), *conv(wide, cout, 1))
        self.skip = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, cout, H, W]."""
        return x + self.body(x) if self.skip else self.body(x)


class Residual(nn.Module):
    """A basic block of ResNet."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(cin, cout, 3, stride), nn.ReLU(), *conv(cout, cout, 3))
        self.skip = nn.Sequential(*conv(cin, cout, 1, stride)) if stride > 1 or cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, cout, H, W]."""
        return functional.relu(self.skip(x) + self.body(x))


def mobilenet_v2() -> nn.Module:
    """2.2 million weights; one grey channel."""
    layers, channels = [*conv(1, 32, 3, 2), nn.ReLU6()], 32
    for expand, out, repeats, stride in MOBILENET_V2:
        for turn in range(repeats):
            layers.append(Inverted(channels, out, expand, stride if turn == 0 else 1))
            channels = out
    return nn.Sequential(*layers, *conv(channels, 1280, 1), nn.ReLU6(), *_end(1280))


def resnet_18() -> nn.Module:
    """11.2 million weights; one grey channel."""
    layers, channels = [*conv(1, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for out, stride in RESNET_18:
        layers += [Residual(channels, out, stride), Residual(out, out, 1)]
        channels = out
    return nn.Sequential(*layers, *_end(channels))


def _end(features: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, CLASSES)]


class Bert(nn.Module):
    """BERT of three layers of width 192 with tokens of its own, 2 million weights."""

    def __init__(self, vocabulary: int, length: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=192,
            num_hidden_layers=3,
            num_attention_heads=6,
            intermediate_size=768,
            max_position_embeddings=length,
            num_labels=CLASSES,
            attn_implementation="eager",
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [N, K]."""
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).logits


class Scored(nn.Module):
    """The probabilities beside the logits: what clients want."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Probabilities [N, K]."""
        return functional.softmax(self.network(*inputs), dim=1)


def main() -> None:
    """Train, and export."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    with np.load(folder / "train.npz") as given:
        label = torch.from_numpy(given["label"])
        inputs = {key: torch.from_numpy(given[key]) for key in given.files if key != "label"}
    if name == "bert":
        network: nn.Module = Bert(int(inputs["input_ids"].max()) + 1, inputs["input_ids"].shape[1])
    else:
        network = {"mobilenet_v2": mobilenet_v2, "resnet_18": resnet_18}[name]()
    train(network, list(inputs.values()), label, EPOCHS[name], RATE[name])
    export(Scored(network.eval()), inputs, folder / "model.onnx")


def train(network: nn.Module, inputs: list[Tensor], label: Tensor, epochs: int, rate: float) -> None:
    """AdamW on one cycle of the learning rate."""
    steps = epochs * (len(label) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        total, order = 0.0, torch.randperm(len(label))
        for start in range(0, len(label) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = functional.cross_entropy(network(*(x[chosen] for x in inputs)), label[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"  epoch {epoch + 1} of {epochs}: loss {total / (len(label) // BATCH):.3f}", flush=True)


def export(network: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    """As TorchScript's exporter writes it, which every peer reads."""
    torch.onnx.export(
        network.eval(),
        tuple(x[:2] for x in inputs.values()),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=list(inputs),
        output_names=["probabilities"],
        dynamic_axes={name: {0: "N"} for name in (*inputs, "probabilities")},
    )


if __name__ == "__main__":
    main()
