"""Fine-tune the release that is current on the fleet's labelled samples, with PyTorch.

The hub starts it, and says in the file named by ``EDGELOOP_JOB`` where everything is. Put your own network in place of
`Network`, and your own way to load its weights in place of `layers_of`; the rest can stay. In the hub's settings::

    [training_programs.finetune]
    command = ["python", "-m", "examples.finetune_torch"]
    parameters = { epochs = 30, rate = 0.002, stay = 0.01 }
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.external_data_helper import load_external_data_for_model
from pyarrow import parquet
from torch import Tensor, nn
from torch.nn import functional

from edgeloop.package import Package

#: Of every so many rows one is put aside: its accuracy is the result that a search of parameters goes by.
ASIDE = 5
BATCH = 64


class Network(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*weight.shape) for weight, _ in layers)
        for layer, (weight, bias) in zip(self.layers, layers, strict=True):
            layer.load_state_dict({"weight": torch.tensor(weight.T), "bias": torch.tensor(bias)})

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of rows [N, F]."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class Classifier(nn.Module):
    """What clients see: the outputs of the release that is replaced, in their order."""

    def __init__(self, network: nn.Module, roles: Sequence[str]) -> None:
        super().__init__()
        self.network, self.roles = network, roles

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        logits = self.network(x)
        found = {"logits": logits, "probabilities": functional.softmax(logits, 1), "label": logits.argmax(1)}
        return tuple(found[role] for role in self.roles)


def main() -> None:
    """Train, and leave the model."""
    job = json.loads(Path(os.environ["EDGELOOP_JOB"]).read_text())
    parameters = {"epochs": 30, "rate": 0.002, "stay": 0.01, **job["parameters"]}
    # The same data give the same model: one thread adds in one order.
    torch.manual_seed(job["seed"])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x, y, weight = read(job)
    aside = torch.arange(len(y)) % ASIDE == ASIDE - 1
    network = Network(layers_of(Path(job["base"])))
    train(network, x[~aside], y[~aside], weight[~aside], parameters, Path(job["checkpoints"], "last.pt"))
    with torch.no_grad():
        right = (network(x[aside]).argmax(1) == y[aside]).double()
    print("result", float((right * weight[aside]).sum() / weight[aside].sum()))
    export(network, x, job)


def read(job: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [N, …], labels and weights [N]."""
    table = parquet.read_table(Path(job["data"], "training.parquet"))
    told = job["inputs"][0]
    column = table.column(told["name"]).combine_chunks()
    x = np.array(column.flatten(), dtype=np.float32).reshape(len(column), *told["shape"][1:])
    y, weight = np.array(table.column("label")), np.array(table.column("weight"), dtype=np.float32)
    return torch.tensor(x), torch.tensor(y), torch.tensor(weight)


def layers_of(base: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight [F, K] and bias [K] of every linear layer of the base, in their order."""
    package = Package.open(base)
    variant = next(spec for spec in package.variants.values() if spec.precision == "fp32")
    model = onnx.load(base / variant.model_file, load_external_data=False)
    if variant.weights_uri is not None:
        load_external_data_for_model(model, str(package.asset(variant.weights_uri)))
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = []
    for node in model.graph.node:
        if node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            weight = arrays[node.input[1]]
            layers.append((weight.T if transposed else weight, arrays[node.input[2]]))
    return layers


def train(network: Network, x: Tensor, y: Tensor, weight: Tensor, parameters: dict[str, Any], last: Path) -> None:
    """Adam on the weighted rows; ``stay`` draws the weights back to the base's (L2-SP, Li et al. 2018)."""
    start = [value.detach().clone() for value in network.parameters()]
    optimiser = torch.optim.Adam(network.parameters(), lr=parameters["rate"])
    begin = 0
    if last.is_file():  # the hub was started again during the run
        kept = torch.load(last, weights_only=True)
        network.load_state_dict(kept["network"])
        optimiser.load_state_dict(kept["optimiser"])
        torch.set_rng_state(kept["random"])
        begin = kept["epoch"]
        print(f"going on after epoch {begin}")
    for epoch in range(begin, parameters["epochs"]):
        losses = []
        for rows in torch.randperm(len(y)).split(BATCH):
            loss = functional.cross_entropy(network(x[rows]), y[rows], reduction="none")
            loss = (loss * weight[rows]).sum() / weight[rows].sum()
            drawn = sum(((now - then) ** 2).sum() for now, then in zip(network.parameters(), start, strict=True))
            optimiser.zero_grad()
            (loss + parameters["stay"] * drawn).backward()
            optimiser.step()
            losses.append(float(loss))
        kept = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**kept, "random": torch.get_rng_state(), "epoch": epoch + 1}, last.with_suffix(".new"))
        last.with_suffix(".new").rename(last)
        print(f"progress {(epoch + 1) / parameters['epochs']:.3f} epoch {epoch + 1}: loss {np.mean(losses):.4f}")


def export(network: Network, x: Tensor, job: dict[str, Any]) -> None:
    """Leave the model, with the inputs and outputs of the release that it replaces."""
    outputs = [output for output in job["outputs"] if output["role"] in ("label", "probabilities", "logits")]
    torch.onnx.export(
        Classifier(network, [output["role"] for output in outputs]).eval(),
        (x[:2],),
        job["output"],
        input_names=[job["inputs"][0]["name"]],
        output_names=[output["name"] for output in outputs],
        dynamic_shapes=[{0: torch.export.Dim("N", min=1)}],
        external_data=False,
        dynamo=True,
        verbose=False,
    )


if __name__ == "__main__":
    main()
