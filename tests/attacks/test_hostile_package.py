"""Attacks through a package: each is refused, and the message names the file and the cause."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgeloop.package import Index, IndexEntry, Limits, Package, PackageError, audit, audit_in_child
from edgeloop.package.graph_limits import GraphLimits
from tests.doubles.packages import make_package

GRAPH = "cpu-fp32/model.onnx"
MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("good") / "digits")


@pytest.fixture
def folder(good: Package, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(good.root, tmp_path / "victim"))


def refused(root: Path, *said: str, child: bool = False, **options: Any) -> None:
    for check in (audit, audit_in_child) if child else (audit,):
        with pytest.raises(PackageError) as caught:
            check(root, **options)
        for words in said:
            assert words in str(caught.value), str(caught.value)[:600]


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((root / MANIFEST).read_bytes())
    change(manifest)
    (root / MANIFEST).write_text(json.dumps(manifest))


def variant_of(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["components"]["model"]["variants"]["cpu-fp32"]
    return found


def edit_graph(root: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(root / GRAPH, load_external_data=False)
    change(model)
    (root / GRAPH).write_bytes(model.SerializeToString())


def external_of(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)


def set_external(tensor: onnx.TensorProto, key: str, value: str) -> None:
    next(entry for entry in tensor.external_data if entry.key == key).value = value


def test_a_good_package_passes_both(good: Package) -> None:
    assert audit(good.root).name == audit_in_child(good.root, index=good.index).name == "digits"


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def golden_file(package: Package, root: Path) -> Path:
    return root / package.asset(package.meta.golden["inputs"]).relative_to(package.root) / "inputs.safetensors"


@pytest.mark.parametrize("path", [MANIFEST, GRAPH])
def test_missing_file(folder: Path, good: Package, path: str) -> None:
    (folder / path).unlink()
    refused(folder, path, child=True, index=good.index)
    refused(folder, path)


def test_missing_golden_cases(folder: Path, good: Package) -> None:
    golden_file(good, folder).unlink()
    refused(folder, "inputs.safetensors is missing", index=good.index)
    refused(folder, "every file of shared_assets/sha256-")


def test_missing_tensor(folder: Path) -> None:
    next(folder.rglob("body.weight.bin")).unlink()
    refused(folder, "body.weight.bin", "lacks")


def test_changed_file(folder: Path, good: Package) -> None:
    victim = next(folder.rglob("body.weight.bin"))
    data = bytearray(victim.read_bytes())
    data[7] ^= 1
    victim.write_bytes(data)
    refused(folder, "body.weight.bin has changed", "SHA-256", child=True, index=good.index)


def test_file_that_has_grown(folder: Path, good: Package) -> None:
    with golden_file(good, folder).open("ab") as file:
        file.write(b"\0")
    refused(folder, "inputs.safetensors has changed", index=good.index)


def test_additional_file(folder: Path, good: Package) -> None:
    (folder / "cpu-fp32" / "plugin.so").write_bytes(b"\x7fELF")
    refused(folder, "cpu-fp32/plugin.so is not in the index", child=True, index=good.index)


def test_additional_file_that_the_index_names(folder: Path, good: Package) -> None:
    (folder / "plugin.so").write_bytes(b"\x7fELF")
    refused(folder, "plugin.so belongs to no variant", index=Index.of_folder(folder))


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "a.", "", "x" * 300])
def test_index_with_a_path_that_leaves_the_package(path: str) -> None:
    body = {"files": [{"path": path, "sha256": "0" * 64, "size": 1}], "v": 1}
    with pytest.raises(PackageError, match=r"no plain relative path|leaves the package"):
        Index.parse(json.dumps(body, separators=(",", ":")).encode())


def test_index_of_a_path_outside_is_refused_by_the_child(folder: Path) -> None:
    index = Index((IndexEntry("../x", "0" * 64, 1),))
    with pytest.raises(PackageError, match=r"'\.\./x' leaves the package"):
        audit_in_child(folder, index=index)


def test_strange_file_name(folder: Path) -> None:
    (folder / "cpu-fp32" / "a b;rm -rf.onnx").write_bytes(b"")
    refused(folder, "a b;rm -rf.onnx", "no plain relative path")


@pytest.mark.parametrize("victim", [MANIFEST, GRAPH])
def test_symlink(folder: Path, good: Package, tmp_path: Path, victim: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(folder / victim, outside)
    (folder / victim).symlink_to(outside)
    refused(folder, f"{victim} is", "regular file" if victim == MANIFEST else "symlink", child=True, index=good.index)
    refused(folder, victim)


def test_symlink_to_a_folder(folder: Path, good: Package) -> None:
    (folder / "cpu-fp32" / "more").symlink_to("/")
    refused(folder, "cpu-fp32/more is a symlink", index=good.index)


def test_the_folder_itself_is_a_symlink(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    refused(tmp_path / "link", "link is no folder")


def test_hard_link(folder: Path, tmp_path: Path) -> None:
    os.link(folder / GRAPH, tmp_path / "elsewhere")
    refused(folder, f"{GRAPH} is a hard link", child=True)
    assert audit(folder, allow_hard_links=True).name == "digits"


@pytest.mark.parametrize("name", [MANIFEST, "cpu-fp32/pipe"])
def test_a_pipe_holds_nothing_up(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, f"{name} is no regular file")


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x04K\x01.", "is not JSON"),
        (b"", "is not JSON"),
        (b"[1, 2]", "is not a JSON object"),
        (b'{"a": ' * 10_000 + b"1" + b"}" * 10_000, "nested deeper than 32"),
        (b"[" * 10_000, "nested deeper than 32"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": {"b": 1, "b": 1}}', "stands twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e999}', "is not JSON"),
        (b'{"a": "\\ud800"}', "is not JSON"),
        ('{"a": 1}'.encode("utf-16"), "is not JSON"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "is not JSON"),
        (b'{"a": "' + b" " * (8 << 20) + b'"}', "at most 8,388,608 are read"),
    ],
    ids=[
        *("pickle", "empty", "list", "deep", "open", "twice", "twice inside", "NaN", "inf", "half a pair"),
        *("UTF-16", "digits", "huge"),
    ],
)
def test_manifest_that_is_no_manifest(folder: Path, data: bytes, said: str) -> None:
    (folder / MANIFEST).write_bytes(data)
    refused(folder, MANIFEST, said)


def test_manifest_nested_deeply_in_the_child(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b'{"a": ' * 10_000 + b"1" + b"}" * 10_000)
    with pytest.raises(PackageError, match=r"manifest\.json is nested deeper than 32"):
        audit_in_child(folder)


def set_option(key: str, value: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        variant_of(manifest)["executor_info"]["ort"]["session_options"][key] = value

    return change


def test_session_option(folder: Path) -> None:
    edit_manifest(folder, set_option("session.load_model_format", "ORT"))
    refused(folder, MANIFEST, "may not set the session option 'session.load_model_format'", child=True)


def test_option_for_a_custom_operator_library(folder: Path) -> None:
    edit_manifest(folder, set_option("session.custom_ops_library", "evil.so"))
    refused(folder, MANIFEST, "may not set the session option 'session.custom_ops_library'")


@pytest.mark.parametrize("key", ["custom_ops_library", "run_options", "external_data"])
def test_further_settings_of_the_executor(folder: Path, key: str) -> None:
    edit_manifest(folder, lambda m: variant_of(m)["executor_info"]["ort"].update({key: {"plugin": "evil.so"}}))
    refused(folder, MANIFEST, "cpu-fp32", f"may not set {key}")


@pytest.mark.parametrize(
    ("ep", "options", "said"),
    [
        ("CPUExecutionProvider", {"plugin": "evil.so"}, "may not set the provider option 'plugin'"),
        ("TensorrtExecutionProvider", {"trt_extra_plugin_lib_paths": "evil.so"}, "may not set the provider option"),
        ("TensorrtExecutionProvider", {"trt_engine_cache_path": "/etc"}, "may not set the provider option"),
        ("QNNExecutionProvider", {"backend_path": "./evil.so"}, "may not set the provider option"),
        ("OpenVINOExecutionProvider", {"load_config": "{}"}, "may not set the provider option"),
        ("CUDAExecutionProvider", {"gpu_mem_limit": "1"}, "may not set the provider option"),
        ("CUDAExecutionProvider", {"use_tf32": 1}, "has to be a short text"),
        ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "../../x"}, "has to be a short text"),
        ("TensorrtExecutionProvider", {"trt_profile_min_shapes": "x:1\ny"}, "has to be a short text"),
        ("CUDAExecutionProvider", ["use_tf32"], "has to be an object"),
    ],
)
def test_provider_options_that_are_not_the_packages(folder: Path, ep: str, options: object, said: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        variant_of(manifest)["ep"] = ep
        variant_of(manifest)["executor_info"]["ort"]["provider_options"] = options

    edit_manifest(folder, change)
    refused(folder, "cpu-fp32", said)


@pytest.mark.parametrize(
    "info", [{"ort": "ort.json"}, {"ort": "/etc/passwd"}, "info.json", {"ort": {}, "genai": {}}, {}]
)
def test_executor_info_elsewhere(folder: Path, info: object) -> None:
    edit_manifest(folder, lambda m: variant_of(m).update(executor_info=info))
    refused(folder, MANIFEST)


@pytest.mark.parametrize("model_file", ["../model.onnx", "/model.onnx", "a/model.onnx", "model.ort", "model"])
def test_model_file_elsewhere_or_of_another_format(folder: Path, model_file: str) -> None:
    edit_manifest(folder, lambda m: variant_of(m)["executor_info"]["ort"].update(model_file=model_file))
    refused(folder, model_file)


@pytest.mark.parametrize("directory", ["..", "/tmp", "a/b", "shared_assets", 7])
def test_variant_directory_elsewhere(folder: Path, directory: object) -> None:
    edit_manifest(folder, lambda m: variant_of(m).update(variant_directory=directory))
    refused(folder)


def test_component_in_another_file(folder: Path) -> None:
    edit_manifest(folder, lambda m: m.update(components={"model": "component.json"}))
    refused(folder, MANIFEST, "written in the manifest itself")


def test_shared_assets_in_another_place(folder: Path) -> None:
    edit_manifest(folder, lambda m: m.update(shared_assets={"sha256:" + "0" * 64: "/etc"}))
    refused(folder, MANIFEST, "shared_assets")


@pytest.mark.parametrize("uri", ["../..", "sha256:../../etc", "sha256:" + "A" * 64, "file:///etc"])
def test_asset_uri_that_is_a_path(folder: Path, uri: str) -> None:
    edit_manifest(folder, lambda m: m["additional_metadata"]["edgeloop"].update(validation=uri))
    refused(folder, "is no shared asset")


@pytest.mark.parametrize("name", ["../../cpu-fp32/model", "/tmp/head", "no.such.tensor"])
def test_head_that_names_a_file_elsewhere(folder: Path, name: str) -> None:
    """A new head is written to the file of this name."""
    edit_manifest(folder, lambda m: m["additional_metadata"]["edgeloop"]["head"].update(weight=name))
    refused(folder, MANIFEST, "the head's", "is no tensor of variant cpu-fp32")


# ── the graph ────────────────────────────────────────────────────────────────────────────────────


def test_gigantic_tensor(folder: Path) -> None:
    edit_graph(folder, lambda m: external_of(m).dims.extend([1 << 40, 1 << 40]))
    refused(folder, GRAPH, "elements; at most", child=True)


def test_negative_length(folder: Path) -> None:
    edit_graph(folder, lambda m: external_of(m).dims.extend([-1]))
    refused(folder, GRAPH, "negative length")


def test_gigantic_input(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 50

    edit_graph(folder, change)
    refused(folder, GRAPH, "x has", "elements; at most")


def test_custom_domain(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("evil.ops", 1))
        model.graph.node[0].domain = "evil.ops"

    edit_graph(folder, change)
    refused(folder, GRAPH, "'evil.ops' would need a custom library", "is of the custom domain", child=True)


def test_custom_domain_in_a_subgraph(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([helper.make_node("Pwn", [], ["y"], domain="evil.ops")], "inner", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))

    edit_graph(folder, change)
    refused(folder, GRAPH, "'Pwn' is of the custom domain 'evil.ops'")


@pytest.mark.parametrize("version", [0, 6, 99, -1])
def test_unknown_opset(folder: Path, version: int) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    edit_graph(folder, change)
    refused(folder, GRAPH, f"opset {version} of ai.onnx is not known")


def test_unknown_ir_version(folder: Path) -> None:
    edit_graph(folder, lambda m: setattr(m, "ir_version", 99))
    refused(folder, GRAPH, "IR version 99 is not known")


def test_operator_that_runs_code(folder: Path) -> None:
    edit_graph(
        folder, lambda m: m.graph.node.append(helper.make_node("PythonOp", ["x"], ["y"], domain="com.microsoft"))
    )
    refused(folder, GRAPH, "PythonOp is not allowed")


def test_functions(folder: Path) -> None:
    function = helper.make_function("", "Gemm", ["a"], ["b"], [], [helper.make_opsetid("", 17)])
    edit_graph(folder, lambda m: m.functions.append(function))
    refused(folder, GRAPH, "functions")


def test_subgraphs_without_end(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([], "inner", [], [])
        for _ in range(30):
            inner = helper.make_graph([helper.make_node("Loop", [], [], body=inner)], "inner", [], [])
        model.graph.node.append(helper.make_node("Loop", ["x"], ["z"], body=inner))

    edit_graph(folder, change)
    refused(folder, GRAPH, "nested too deeply")


def test_too_many_nodes_and_bytes(folder: Path) -> None:
    refused(folder, GRAPH, "5 nodes; at most 2", limits=Limits(graph=GraphLimits(nodes=2)))
    refused(folder, GRAPH, "bytes, at most 10", limits=Limits(graph=GraphLimits(file_bytes=10)))
    refused(folder, "files; at most 1", limits=Limits(files=1))
    refused(folder, "bytes; at most 1", limits=Limits(total_bytes=1))


@pytest.mark.parametrize(
    "location", ["../../../etc/passwd", "/etc/passwd", "..", "a/../b", "*/_ORT_MEM_ADDR_/*", "", "a\0b"]
)
def test_external_data_leaves_the_package(folder: Path, location: str) -> None:
    edit_graph(folder, lambda m: set_external(external_of(m), "location", location))
    refused(folder, GRAPH, "external data at")


def test_external_data_in_a_file_that_is_not_listed(folder: Path) -> None:
    edit_graph(folder, lambda m: set_external(external_of(m), "location", "inputs.safetensors"))
    refused(folder, GRAPH, "'inputs.safetensors' is none of the variant's listed tensors")


@pytest.mark.parametrize("where", ["value", "sparse_value"])
def test_external_data_in_an_attribute(folder: Path, where: str) -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [4], [0, 0, 0, 0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    value = tensor if where == "value" else helper.make_sparse_tensor(tensor, indices, [9])
    edit_graph(folder, lambda m: m.graph.node.append(helper.make_node("Constant", [], ["c"], **{where: value})))
    refused(folder, GRAPH, "tensor t: external data at '../../secret'")


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "1"), ("length", "99999999"), ("offset", "-4"), ("length", "-1")]
)
def test_external_data_beyond_the_file(folder: Path, key: str, value: str) -> None:
    edit_graph(folder, lambda m: set_external(external_of(m), key, value))
    refused(folder, GRAPH, "are not all in")


@pytest.mark.parametrize("value", ["many", "9" * 5_000, "0x10"])
def test_external_data_with_lengths_that_are_no_numbers(folder: Path, value: str) -> None:
    edit_graph(folder, lambda m: set_external(external_of(m), "length", value))
    refused(folder, GRAPH, "have to be numbers")


def test_external_data_with_two_lengths(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        entry = external_of(model).external_data.add()
        entry.key, entry.value = "length", "4"

    edit_graph(folder, change)
    refused(folder, GRAPH, "each key once")


def test_bytes_that_are_no_graph(folder: Path) -> None:
    (folder / GRAPH).write_bytes(b"MZ" + bytes(range(256)))
    refused(folder, f"{GRAPH} is not ONNX", child=True)


# ── the child ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("raise MemoryError('parser')", "MemoryError"),
        ("import sys; print('[]'); sys.exit(3)", "status 3"),
        ("print('noise')", "no verdict"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
    ],
    ids=["segfault", "memory", "verdict and crash", "noise", "endless"],
)
def test_a_child_that_crashes_is_a_refusal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    """A real child, whose interpreter runs the crash in place of the audit."""
    python = tmp_path / "python"
    (tmp_path / "crash.py").write_text(code)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "crash.py"}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(PackageError, match=said):
        audit_in_child(folder, timeout_s=1.0 if "sleep" in code else 60.0)


def test_the_child_imports_nothing_from_where_we_stand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json.py", "onnx.py", "resource.py"):
        (folder / name).write_text("raise SystemExit('owned')")
    monkeypatch.chdir(folder)
    with pytest.raises(PackageError, match=r"json\.py belongs to no variant"):
        audit_in_child(folder)
