"""Large tensors and the head, each in a file of its own: an update then moves only those that changed."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path

import onnx
import onnx.numpy_helper

from edgeloop.package.draft import Draft
from edgeloop.package.errors import PackageError

#: Tensors from this size on are files of their own.
EXTERNAL_BYTES = 1024


def split_tensors(draft: Draft, scratch: Path) -> tuple[Path, dict[str, tuple[bytes, tuple[str, ...]]]]:
    """Take large tensors and the head out of every graph; equal ones of several variants become one file."""
    weights = scratch / "weights"
    weights.mkdir()
    head = {draft.head.weight, draft.head.bias} if draft.head else set()
    graphs = {}
    for variant in draft.variants:
        model = onnx.ModelProto()
        model.CopyFrom(variant.model)
        # The head is always a file of its own, so that a new one leaves the graph as it is.
        # A head of another type would be read as float32, and changed as such, by everyone after us.
        if other := {
            t.name for t in model.graph.initializer if t.name in head and t.data_type != onnx.TensorProto.FLOAT
        }:
            raise PackageError(f"the head's {min(other)} of variant {variant.name} is not float32")
        tensors = [
            _write_tensor(weights, tensor, data, variant.name, keep_name=tensor.name in head)
            for tensor in model.graph.initializer
            if (data := _raw(tensor)) is not None and (len(data) >= EXTERNAL_BYTES or tensor.name in head)
        ]
        if lost := head - {tensor.name for tensor in model.graph.initializer}:
            raise PackageError(f"variant {variant.name} lacks the head's initializer {min(lost)}")
        graphs[variant.name] = model.SerializeToString(deterministic=True), tuple(sorted(tensors))
    return weights, graphs


def _write_tensor(weights: Path, tensor: onnx.TensorProto, data: bytes, variant: str, *, keep_name: bool) -> str:
    plain = (c if (c.isascii() and c.isalnum()) or c in "_.-" else "_" for c in tensor.name)
    safe = "".join(plain)[:120] or "tensor"
    if keep_name and safe != tensor.name:
        raise PackageError(f"the head's initializer {tensor.name!r} has to have a plain name")
    file = _free_name(weights, safe, variant, data)
    if keep_name and file != f"{safe}.bin":
        raise PackageError(f"the head's {tensor.name} differs between variants; it has to be the same float tensor")
    (weights / file).write_bytes(data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", "0"), ("length", str(len(data)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return file


def _free_name(weights: Path, safe: str, variant: str, data: bytes) -> str:
    """A file name that no other tensor has: names that were cut short, or differ in case alone, are common."""
    taken = {path.name.casefold(): path for path in weights.iterdir()}

    def free(file: str) -> bool:
        there = taken.get(file.casefold())
        return there is None or (there.name == file and there.read_bytes() == data)

    stems = chain((safe, f"{safe}.{variant}"), (f"{safe}.{variant}.{n}" for n in count(2)))
    return next(file for stem in stems if free(file := f"{stem}.bin"))


def _raw(tensor: onnx.TensorProto) -> bytes | None:
    """A tensor's bytes; None for kinds that stay inside (strings, and what packs several numbers into a byte)."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise PackageError(f"{tensor.name}: load external tensors before packaging (onnx.load does)")
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UINT4, onnx.TensorProto.INT4):
        return None
    data = onnx.numpy_helper.to_array(tensor).tobytes()
    name, dims, kind = tensor.name, list(tensor.dims), tensor.data_type
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.raw_data = name, kind, data
    tensor.dims.extend(dims)
    return data
