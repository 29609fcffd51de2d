"""Smaller images: a Resize in front of a model that does not care how large its image is."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from model_export.data import InputSpec
from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import consumers, free_name

#: Narrower than this, nothing is left to see.
NARROWEST = 8


def images_of(inputs: tuple[InputSpec, ...]) -> tuple[str, ...]:
    """Names of the inputs [N, C, H, W] of floats that can be made smaller."""
    return tuple(spec.name for spec in inputs if len(spec.shape) == 3 and spec.dtype == np.float32)


def shrunk(model: ModelProto, inputs: tuple[InputSpec, ...], scale: float) -> ModelProto:
    """The model with its images made smaller first. Callers send what they sent before.

    Whether the rest of the graph takes a smaller image shows when it is run: fully convolutional networks that end in
    a mean over all positions do.

    Args:
        model: canonical.
        inputs: its inputs.
        scale: of height and width, below 1.

    Raises:
        UnsupportedModelError: it has no image, or none that is large enough.
    """
    found = images_of(inputs)
    sides = [side for spec in inputs if spec.name in found for side in spec.shape[1:]]
    if not found or any(0 < side * scale < NARROWEST for side in sides):
        raise UnsupportedModelError(f"it has no image that is at least {NARROWEST} wide at {scale:g} of its size")
    model = ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    scales = free_name(graph, "smaller.scales")
    graph.initializer.append(numpy_helper.from_array(np.asarray([1, 1, scale, scale], np.float32), scales))
    resizes = []
    for name in found:
        small = free_name(graph, f"{name}.smaller")
        for node in consumers(graph, name):
            for i, read in enumerate(node.input):
                if read == name:
                    node.input[i] = small
        resizes.append(
            helper.make_node("Resize", [name, "", scales], [small], f"smaller.{name}", mode="linear", antialias=1)
        )
    if next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < 18:
        for node in resizes:  # before opset 18 there is no antialias
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("mode", "linear"))
    nodes = [*resizes, *graph.node]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    return model
