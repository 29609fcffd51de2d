"""A small graph that is being put together: nodes, constants, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgeloop.package.needs import EXTENSIONS_DOMAIN, EXTENSIONS_OPSET

#: Before every name of what is put around a model; no exporter uses it.
PREFIX = "processing."
#: Domains besides the standard one, and the versions of them that are used here.
DOMAINS = {"ai.onnx.ml": 3, EXTENSIONS_DOMAIN: EXTENSIONS_OPSET}
#: Of the graphs alone; the model's own stands for both when they are one.
IR_VERSION = 8


@dataclass
class Pieces:
    """Nodes that follow one another; a node's name and its first output's are the same."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: list[ValueInfoProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], name: str, *, outputs: int = 1, domain: str = "", **kw: Any) -> str:
        """Add a node; returns the name of its first output. Further ones are called ``NAME.1``, ``NAME.2``."""
        names = [f"{PREFIX}{name}", *(f"{PREFIX}{name}.{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{PREFIX}{name}", domain=domain, **kw))
        return names[0]

    def constant(self, name: str, value: Any, dtype: Any = np.int64) -> str:
        """A constant's name."""
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), f"{PREFIX}{name}")
        return f"{PREFIX}{name}"

    def take(self, name: str, kind: int, shape: Sequence[int | str | None]) -> str:
        """An input."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def give(self, tensor: str, name: str, kind: int, shape: Sequence[int | str | None]) -> None:
        """An output of that name."""
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=f"{PREFIX}gives.{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def graph(self, name: str) -> GraphProto:
        """All of it."""
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))

    def model(self, opset: int) -> ModelProto:
        """A model of it alone."""
        opsets = [helper.make_opsetid(domain, version) for domain, version in {"": opset, **DOMAINS}.items()]
        return helper.make_model(self.graph("processing"), opset_imports=opsets, ir_version=IR_VERSION)
