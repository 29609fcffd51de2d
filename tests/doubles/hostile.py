"""Hostile releases, each as somebody would send it: tables that the audit, the hub and the agent are tried with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgeloop.package import Package


def index_of(*entries: tuple[str, Any], sha256: str = "0" * 64, version: str = "1") -> bytes:
    """An index as canonical JSON, but for what is wrong with it."""
    files = ",".join(
        f'{{"path":{json.dumps(path, ensure_ascii=False)},"sha256":"{sha256}","size":{size}}}' for path, size in entries
    )
    return f'{{"files":[{files}],"v":{version}}}'.encode("utf-8", "surrogatepass")


#: An index of its own digest that nobody may take; it names files that could be anything.
INDEXES: dict[str, bytes] = {
    "bidi override": index_of(("model\u202exnno.sj", 1)),
    "composed and decomposed": index_of(("cafe\u0301", 1), ("caf\u00e9", 1)),
    "homoglyph": index_of(("m\u0430nifest.json", 1), ("manifest.json", 1)),
    "full-width slash": index_of(("..\uff0f..\uff0fetc", 1)),
    "one dot leader": index_of(("\u2024\u2024/etc", 1)),
    "zero-width": index_of(("manifest\u200b.json", 1)),
    "NUL": index_of(("manifest.json\x00.txt", 1)),
    "trailing dot": index_of(("manifest.json.", 1)),
    "trailing space": index_of(("manifest.json ", 1)),
    "dots alone": index_of((".../x", 1)),
    "alternate stream": index_of(("manifest.json:x", 1)),
    "percent": index_of(("%2e%2e/x", 1)),
    "case alone": index_of(("A/b", 1), ("a/B", 1)),
    "file and folder": index_of(("a", 1), ("a/b", 1)),
    "twice": index_of(("a", 1), ("a", 1)),
    "half a pair": index_of(("\ud800", 1)),
    "a key twice": b'{"files":[{"path":"a","path":"b","sha256":"' + b"0" * 64 + b'","size":1}],"v":1}',
    "sixty-four zebibytes": index_of(("a", 10**22)),
    "five thousand digits": index_of(("a", "9" * 5000)),
    "endless number": index_of(("a", "1e999")),
    "fraction": index_of(("a", "1.0")),
    "minus nothing": index_of(("a", "-0")),
    "true": index_of(("a", "true")),
    "text": index_of(("a", '"1"')),
    "other version": index_of(("a", 1), version="1e0"),
    "nested": b'{"files":' + b"[" * 100_000,
    "byte order mark": b"\xef\xbb\xbf" + index_of(("a", 1)),
    "UTF-16": index_of(("a", 1)).decode().encode("utf-16"),
    "spaces": index_of(("a", 1)).replace(b",", b", "),
    "twenty thousand and one files": index_of(*((f"f{n:05}", 1) for n in range(20_001))),
}


def _manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        found = json.loads((root / "manifest.json").read_bytes())
        change(found)
        (root / "manifest.json").write_text(json.dumps(found))

    return spoil


def _bytes(data: bytes) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        (root / "manifest.json").write_bytes(data)

    return spoil


def _label(text: str) -> Callable[[Path], None]:
    return _manifest(lambda m: m["additional_metadata"]["edgeloop"]["labels"].__setitem__(0, text))


def _graph(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        for path in root.rglob("*.onnx"):
            model = onnx.load(path, load_external_data=False)
            change(model)
            path.write_bytes(model.SerializeToString())

    return spoil


def _external(location: str) -> Callable[[Path], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
        next(entry for entry in tensor.external_data if entry.key == "location").value = location

    return _graph(change)


def _custom(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    model.graph.node[0].domain = "evil.ops"


def _bomb(root: Path) -> None:
    """A header of a tensor file that announces more than there is."""
    file = next(path for path in root.rglob("inputs.safetensors"))
    file.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


#: What spoils a package, whose index then fits it; with words of the refusal.
CONTENT: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle for a manifest": (_bytes(b"\x80\x04K\x01."), "is not JSON"),
    "nested manifest": (_bytes(b'{"a": ' * 10_000 + b"1" + b"}" * 10_000), "nested deeper"),
    "a key twice": (_bytes(b'{"components": {}, "components": {}}'), "stands twice"),
    "a huge number": (_bytes(b'{"schema_version": ' + b"9" * 5_000 + b"}"), "is not JSON"),
    "an endless number": (_bytes(b'{"schema_version": 1e999}'), "is not JSON"),
    "a huge manifest": (_bytes(b'{"a": "' + b" " * (8 << 20) + b'"}'), "at most 8,388,608"),
    "a label for the terminal": (_label("cat\x1b]0;owned\x07"), "control characters"),
    "a label that turns the line around": (_label("\u202etac"), "control characters"),
    "a label of a megabyte": (_label("x" * (1 << 20)), "at most 1000"),
    "external data outside": (_external("../../../../etc/passwd"), "external data"),
    "custom operators": (_graph(_custom), "evil.ops"),
    "a header that announces too much": (_bomb, "inputs.safetensors"),
}


def spoiled(good: Package, root: Path, spoil: Callable[[Path], None]) -> None:
    """A copy of a package, spoiled."""
    shutil.copytree(good.root, root)
    spoil(root)
