"""What each output of a classifier means, seen from its values on real rows rather than from its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from model_export.errors import UnsupportedModelError
from model_export.graphs.graph import Array, all_nodes, array_of, attribute, producer, prune, rename_tensor

#: Of an output that nobody reads. A package has none: it is left out, with what it alone needs.
UNUSED = "unused"
ROLES = ("probabilities", "logits", "label", "features", "other", UNUSED)
#: Words in an output's name that decide between several candidates.
_SCORE_WORDS = ("logit", "score", "prob", "output")


def assign(outputs: Mapping[str, Array], given: Mapping[str, str]) -> dict[str, str]:
    """The role of each output, by name.

    Args:
        outputs: the outputs' values on the same rows, [N, …] each.
        given: roles that the person set with ``--role``.

    Raises:
        UnsupportedModelError: no output, or more than one, can be the probabilities or the logits.
    """
    unknown = [name for name in given if name not in outputs]
    if unknown:
        raise UnsupportedModelError(f"no output is named {unknown[0]}", f"its outputs are {', '.join(outputs)}")
    roles = dict(given)
    scores = next((n for role in ("probabilities", "logits") for n, r in given.items() if r == role), None)
    if scores is None:
        scores, role = _scores({n: a for n, a in outputs.items() if n not in given})
        roles[scores] = role
    elif not _is_matrix(outputs[scores]):
        raise UnsupportedModelError(f"output {scores} is not [N, classes] of floating point", "choose another --role")
    elif given[scores] == "probabilities" and not are_shares(outputs[scores]):
        raise UnsupportedModelError(
            f"output {scores} has numbers that are no probabilities", f"--role {scores}=logits, if larger is likelier"
        )
    best = outputs[scores].argmax(axis=1)
    for name, array in outputs.items():
        if name not in roles:
            roles[name] = "label" if "label" not in roles.values() and _names_the_best(array, best) else "other"
    return roles


def _is_matrix(array: Array) -> bool:
    return array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] >= 2


def _scores(outputs: Mapping[str, Array]) -> tuple[str, str]:
    matrices = {name: array for name, array in outputs.items() if _is_matrix(array)}
    sums_to_one = [name for name, array in matrices.items() if _is_distribution(array)]
    if len(sums_to_one) == 1:
        return sums_to_one[0], "probabilities"
    candidates = sums_to_one or list(matrices)
    if len(candidates) > 1:
        named = [name for name in candidates if any(word in name.lower() for word in _SCORE_WORDS)]
        candidates = named if len(named) == 1 else candidates
    role = "probabilities" if sums_to_one else "logits"
    if len(candidates) == 1:
        return candidates[0], role
    if candidates:
        raise UnsupportedModelError(
            f"outputs {', '.join(candidates)} could each be the {role}", f"say which with --role {candidates[0]}={role}"
        )
    shapes = ", ".join(f"{name} {array.dtype}{['N', *array.shape[1:]]}" for name, array in outputs.items())
    raise UnsupportedModelError(
        f"no output gives a score for each class; the outputs are {shapes}",
        "export the classifier's probabilities or logits as a floating point output [N, classes] with two or more "
        "columns; a single column (regression, binary score) cannot be watched",
    )


def _is_distribution(array: Array) -> bool:
    return are_shares(array) and bool(np.allclose(array.sum(axis=1), 1.0, atol=1e-3))


def are_shares(array: Array) -> bool:
    """Whether all numbers are between 0 and 1."""
    return bool((array >= -1e-4).all() and (array <= 1 + 1e-4).all())


def _names_the_best(array: Array, best: Array) -> bool:
    """Whether an output of one value a row says the same for the same best class, and differently for another."""
    values = array.reshape(len(array), -1)
    if values.shape[1] != 1 or values.dtype.kind not in "iuUSO" or len(values) != len(best):
        return False
    said: dict[Any, int] = {}
    pairs = {(str(v), int(b)) for v, b in zip(values[:, 0], best, strict=True)}
    for value, index in pairs:
        if said.setdefault(value, index) != index:
            return False
    # One value for one class says nothing.
    return len(pairs) > 1 and len({index for _, index in pairs}) == len(pairs)


def declared_classes(model: ModelProto, count: int) -> tuple[Any, ...] | None:
    """What a model of ai.onnx.ml operators calls its ``count`` classes, in the order of its columns; None: not said."""
    names = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
    for node in all_nodes(model.graph):
        for name in names:
            values = attribute(node, name)
            if values and len(values) == count:
                return tuple(v.decode() if isinstance(v, bytes) else v for v in values)
        if node.op_type == "ArrayFeatureExtractor":
            array = array_of(model.graph, node.input[0])
            if array is not None and array.size == count:
                return tuple(v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist())
    return None


def index_label(model: ModelProto, label: str, scores: str) -> None:
    """Compute the label as the index int64 [N] of the best class, in place.

    The source may give a class's name or its value, [N] or [N, 1], by operators that small runtimes lack. The package's
    ``labels`` name the classes. Trees that give the index themselves are left alone: a node more costs a tenth of them.
    """
    graph = model.graph
    position = next(i for i, output in enumerate(graph.output) if output.name == label)
    graph.output[position].CopyFrom(helper.make_tensor_value_info(label, TensorProto.INT64, ["N"]))
    if _is_index_of_trees(producer(graph, label), label):
        return
    rename_tensor(graph, label, f"{label}_of_source")
    graph.output[position].name = label
    graph.node.append(helper.make_node("ArgMax", [scores], [label], name="label", axis=1, keepdims=0))
    prune(model)


def _is_index_of_trees(node: NodeProto | None, label: str) -> bool:
    """Whether trees give the index of the class themselves."""
    if node is None or node.op_type != "TreeEnsembleClassifier" or node.output[0] != label:
        return False
    classes = list(attribute(node, "classlabels_int64s") or ())
    return bool(classes) and classes == list(range(len(classes)))


def keep_rows_only(model: ModelProto, outputs: Mapping[str, Array]) -> list[str]:
    """Drop outputs that are no tensors of numbers, in place; returns their names."""
    gone = [name for name, array in outputs.items() if array.dtype.kind not in "fiub"]
    _drop(model, gone)
    return gone


def without_unused(model: ModelProto, given: Mapping[str, str]) -> ModelProto:
    """The model without the outputs that a person says nobody reads, and without what they alone need.

    Raises:
        UnsupportedModelError: it has no such output, or no other one.
    """
    gone = {name for name, role in given.items() if role == UNUSED}
    if not gone:
        return model
    names = [output.name for output in model.graph.output]
    if unknown := sorted(gone.difference(names)):
        raise UnsupportedModelError(f"no output is named {unknown[0]}", f"its outputs are {', '.join(names)}")
    if gone.issuperset(names):
        raise UnsupportedModelError("no output would be left", "leave out --role of the one that scores")
    model = ModelProto.FromString(model.SerializeToString())
    _drop(model, gone)
    return model


def _drop(model: ModelProto, gone: Collection[str]) -> None:
    kept = [output for output in model.graph.output if output.name not in gone]
    copies = [type(output).FromString(output.SerializeToString()) for output in kept]
    del model.graph.output[:]
    model.graph.output.extend(copies)
    prune(model)
