"""The reference's table of what is not as it should be: each row of it is a case here, and each case a row."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

import model_export
from model_export import build, errors
from model_export.errors import ExportError
from model_export.exit_codes import ExitCode, exit_code_of
from tests.unit.export.models import FLOAT, model, rows, two_layers, weight

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "model-export.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("### What is not as it should be\n")[2].partition("\n### ")[0]
TABLE = dict(re.findall(r"^\| ([^|]+) \| (handled|refused, \d+) \|", SECTION, re.MULTILINE))
ROWS = 60
X = rows(ROWS)
LABELS = np.arange(ROWS) % 3
#: A case makes, in a folder, a source and the arrays of the data, and options of the build.
Case = Callable[[Path], tuple[Any, dict[str, Any], dict[str, Any]]]
CASES: dict[str, tuple[Case, str]] = {}


def case(row: str, words: str = "") -> Callable[[Case], Case]:
    """Which row of the table a case proves, and words of the message."""

    def note(made: Case) -> Case:
        CASES[row] = (made, words)
        return made

    return note


def plain(source: Any, **arrays: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    return source, {"x": X, "label": LABELS} | arrays, {}


def value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def of_graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], **tensors: Any) -> ModelProto:
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, held), opset_imports=opsets, ir_version=8)


def scores_and(*nodes: Any, **tensors: Any) -> ModelProto:
    """x → c = x · w, and what is made of c."""
    first = helper.make_node("MatMul", ["x", "w"], ["c"])
    return model([first, *nodes], {"scores": ["N", 3]}, {"w": weight(4, 3), **tensors}, domains=("ai.onnx.ml",))


@case("custom operators", r"not standard ONNX: my\.domain\.Magic")
def _(folder: Path) -> Any:
    node = helper.make_node("Magic", ["c"], ["scores"], domain="my.domain")
    made = scores_and(node)
    made.opset_import.append(helper.make_opsetid("my.domain", 1))
    return plain(made)


@case("an input without a number of dimensions", "x has no fixed number")
def _(folder: Path) -> Any:
    made = two_layers()
    made.graph.input[0].type.tensor_type.ClearField("shape")
    return plain(made)


@case("an output without a number of dimensions")
def _(folder: Path) -> Any:
    made = two_layers()
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return plain(made)


@case("control flow: If, Loop")
def _(folder: Path) -> Any:
    yes = helper.make_graph([helper.make_node("Identity", ["c"], ["t"])], "t", [], [value("t", FLOAT, ["N", 3])])
    no = helper.make_graph([helper.make_node("Neg", ["c"], ["e"])], "e", [], [value("e", FLOAT, ["N", 3])])
    body = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", FLOAT, ["N", 3])],
        [value("on", TensorProto.BOOL, []), value("next", FLOAT, ["N", 3])],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "bound"], ["flag"]),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=yes, else_branch=no),
        helper.make_node("Loop", ["times", "yes", "chosen"], ["scores"], body=body),
    ]
    return plain(scores_and(*nodes, bound=np.float32(1e9), times=np.array(3), yes=np.array(True)))


@case("more than 2 GB of weights", r"2\.5 GiB of weights")
def _(folder: Path) -> Any:
    onnx.save(two_layers(), folder / "huge.onnx", save_as_external_data=True, location="huge.data", size_threshold=0)
    made = onnx.load(folder / "huge.onnx", load_external_data=False)
    first = made.graph.initializer[0]
    first.dims[:] = [5 << 17, 1 << 10]
    del first.external_data[:]
    first.external_data.add(key="location", value="huge.data")
    (folder / "huge.onnx").write_bytes(made.SerializeToString())
    with (folder / "huge.data").open("r+b") as file:
        # A file with a hole: it takes no place.
        file.truncate(5 << 29)
    return plain(folder / "huge.onnx")


@case("no Softmax")
def _(folder: Path) -> Any:
    return plain(two_layers(last="Identity"))


def two_by_two() -> ModelProto:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["one"]),
        helper.make_node("MatMul", ["x", "v"], ["two"]),
    ]
    inputs = [value(name, FLOAT, ["N", 2]) for name in ("a", "b")]
    outputs = [value(name, FLOAT, ["N", 3]) for name in ("one", "two")]
    return of_graph(nodes, inputs, outputs, w=weight(4, 3), v=weight(4, 3, seed=5))


@case("several inputs and outputs")
def _(folder: Path) -> Any:
    return two_by_two(), {"b": X[:, 2:], "a": X[:, :2], "label": LABELS}, {"roles": {"two": "logits"}}


@case("several outputs that could be the scores", "one, two could each be the logits")
def _(folder: Path) -> Any:
    return two_by_two(), {"a": X[:, :2], "b": X[:, 2:], "label": LABELS}, {}


@case("a map as output: ZipMap")
def _(folder: Path) -> Any:
    labels = {"classlabels_int64s": [0, 1, 2]}
    made = scores_and(helper.make_node("ZipMap", ["c"], ["scores"], domain="ai.onnx.ml", **labels))
    scores = helper.make_tensor_type_proto(FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, scores))
    made.graph.output[0].CopyFrom(helper.make_value_info("scores", kind))
    return plain(made)


@case("a sequence as output", "output scores is a sequence, no tensor")
def _(folder: Path) -> Any:
    made = scores_and(helper.make_node("SequenceConstruct", ["c", "x"], ["scores"]))
    made.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("scores", FLOAT, ["N", 3]))
    return plain(made)


@case("an output without a dimension for the batch", "output mean is one value")
def _(folder: Path) -> Any:
    nodes = [
        helper.make_node("Softmax", ["c"], ["scores"]),
        helper.make_node("ReduceMean", ["c"], ["mean"], keepdims=0),
    ]
    made = scores_and(*nodes)
    made.graph.output.append(value("mean", FLOAT, []))
    return plain(made)


@case("string inputs")
def _(folder: Path) -> Any:
    known = {"keys_strings": ["a", "b"], "values_floats": [0.0, 1.0]}
    nodes = [
        helper.make_node("LabelEncoder", ["x"], ["e"], domain="ai.onnx.ml", **known),
        helper.make_node("MatMul", ["e", "w"], ["scores"]),
    ]
    inputs, outputs = [value("x", TensorProto.STRING, ["N", 2])], [value("scores", FLOAT, ["N", 3])]
    words = np.array(["a", "b"])[(X[:, :2] > 0).astype(int)]
    return plain(of_graph(nodes, inputs, outputs, w=weight(2, 3)), x=words)


@case("FP64")
def _(folder: Path) -> Any:
    double = TensorProto.DOUBLE
    nodes = [helper.make_node("MatMul", ["x", "w"], ["c"]), helper.make_node("Softmax", ["c"], ["scores"])]
    inputs, outputs = [value("x", double, ["N", 4])], [value("scores", double, ["N", 3])]
    return plain(of_graph(nodes, inputs, outputs, w=weight(4, 3).astype(np.float64)), x=X.astype(np.float64))


@case("one column of scores", "no output gives a score for each class")
def _(folder: Path) -> Any:
    first = helper.make_node("MatMul", ["x", "w"], ["score"])
    return plain(model([first], {"score": ["N", 1]}, {"w": weight(4, 1)}))


@case("weights that are not finite", "not finite")
def _(folder: Path) -> Any:
    return plain(scores_and(helper.make_node("Add", ["c", "b"], ["scores"]), b=np.float32([0, np.nan, 0])))


@case("rows of a wrong shape", r"shape \[3\], the model takes \[4\]")
def _(folder: Path) -> Any:
    return plain(two_layers(), x=X[:, :3])


@case("NaN in the data", "not finite, first in row 7")
def _(folder: Path) -> Any:
    broken = X.copy()
    broken[7, 1] = np.nan
    return plain(two_layers(), x=broken)


@case("labels that the model does not know", "row 0 has the label 5")
def _(folder: Path) -> Any:
    return plain(two_layers(), label=LABELS + 5)


@case("3 rows", "3 rows; at least 40")
def _(folder: Path) -> Any:
    return plain(two_layers(), x=X[:3], label=LABELS[:3])


@case("a pickle without `--trust-source`", "is a pickle")
def _(folder: Path) -> Any:
    joblib.dump(LogisticRegression().fit(X, LABELS), folder / "model.joblib")
    return plain(folder / "model.joblib")


@case("a Hugging Face folder with remote code", "code of its own")
def _(folder: Path) -> Any:
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling.Mine"}}))
    (folder / "modeling.py").write_text("raise SystemExit('it ran')")
    return plain(folder)


@case("a broken ONNX file", "cannot be read as ONNX")
def _(folder: Path) -> Any:
    (folder / "model.onnx").write_bytes(two_layers().SerializeToString()[:-40])
    return plain(folder / "model.onnx")


def test_whoever_refuses_data_or_a_source_says_what_to_do() -> None:
    folders = [Path(model_export.__file__).parent / name for name in ("data", "sources", "building", "processing")]
    for path in [path for folder in folders for path in folder.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                is_ours = issubclass(getattr(errors, node.exc.func.id, ValueError), ExportError)
                assert not is_ours or len(node.exc.args) > 1, f"{path.name}:{node.lineno} has no hint"


def test_the_table_and_the_cases_are_the_same() -> None:
    assert set(TABLE) == set(CASES)
    assert SECTION.count("\n| ") == len(TABLE) + 1, "a row that says neither handled nor refused"


@pytest.mark.parametrize("row", CASES)
def test_it_is_handled_or_refused_as_the_table_says(tmp_path: Path, row: str) -> None:
    made, words = CASES[row]
    (tmp_path / "source").mkdir()
    source, arrays, options = made(tmp_path / "source")
    np.savez(tmp_path / "data.npz", **arrays)
    package = tmp_path / "package"

    def run() -> Any:
        return build(source, package, tmp_path / "data.npz", precision=("fp32",), reproducible=True, **options)

    if TABLE[row] == "handled":
        assert run().metrics
        return
    with pytest.raises(ExportError, match=words) as caught:
        run()
    assert exit_code_of(caught.value) == ExitCode(int(TABLE[row].partition(", ")[2]))
    assert caught.value.hint, "it says what to do"
    assert not package.exists()
