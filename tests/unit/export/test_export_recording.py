"""What a person's program reads is known afterwards, or it is known that nobody knows."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_export.caching.recording import inputs_of, recorded, still_true

MODULE = """
import os
from pathlib import Path
import {helper}

def make():
    newest = max(Path("checkpoints").glob("*"), default=None)
    if Path("override.json").exists():
        return newest, Path("override.json").read_text()
    with open({data!r}) as file:
        return file.read(), os.environ.get("WEIGHTS_OF_MODEL", ""), {helper}.VALUE
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], object]]:
    """A program of two modules, which are imported when it is called first."""
    name = f"own_program_{tmp_path.name.replace('-', '_')}"
    data = tmp_path / "elsewhere" / "data.bin"
    data.parent.mkdir()
    data.write_text("numbers")
    (tmp_path / f"{name}_helper.py").write_text("VALUE = 1\n")
    (tmp_path / f"{name}.py").write_text(MODULE.format(helper=f"{name}_helper", data=str(data)))
    past = time.time() - 100
    for path in tmp_path.glob("*.py"):
        os.utime(path, (past, past))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # The test's own modules are no part of the program; in a process of its own they would not be there.
    for module in [m for m in sys.modules if m.startswith("tests") or m == "conftest"]:
        monkeypatch.delitem(sys.modules, module)
    yield lambda: importlib.import_module(name).make()
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def test_modules_files_and_environment_are_inputs(program: Callable[[], object], tmp_path: Path) -> None:
    with recorded() as seen:
        program()
    inputs = inputs_of(seen)
    assert inputs is not None
    names = {Path(path).name for path in inputs["files"]}
    assert "data.bin" in names and len([name for name in names if name.startswith("own_program")]) == 2
    assert inputs["environment"]["WEIGHTS_OF_MODEL"] == "" and "numpy" in inputs["installed"]
    assert still_true(inputs)


@pytest.mark.parametrize("change", ["data", "module", "environment", "gone", "shadow", "newer", "override", "beside"])
def test_what_changes_is_seen(
    program: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "1.txt").write_text("1")
    with recorded() as seen:
        program()
    inputs = inputs_of(seen)
    assert inputs is not None and still_true(inputs)
    if change == "data":
        (tmp_path / "elsewhere" / "data.bin").write_text("others")
    elif change == "module":
        next(tmp_path.glob("*_helper.py")).write_text("VALUE = 2\n")
    elif change == "environment":
        value = "of-the-environment-alone-7c1f"
        monkeypatch.setenv("WEIGHTS_OF_MODEL", value)
        assert value not in str(inputs)
    elif change == "newer":
        (tmp_path / "checkpoints" / "2.txt").write_text("2")
    elif change == "override":
        (tmp_path / "override.json").write_text("{}")
    elif change == "beside":
        (tmp_path / "elsewhere" / "weights.safetensors").write_text("w")
    elif change == "gone":
        (tmp_path / "elsewhere" / "data.bin").unlink()
    else:
        (tmp_path / "numpy.py").write_text("")
    assert not still_true(inputs)


def test_what_a_shell_writes_beside_it_is_no_input_and_weights_are(
    program: Callable[[], object], tmp_path: Path
) -> None:
    (tmp_path / "output.json").write_text("{")
    (tmp_path / "weights.safetensors").write_text("w")
    with recorded() as seen:
        program()
    inputs = inputs_of(seen)
    assert inputs is not None
    assert str(tmp_path / "weights.safetensors") in inputs["files"]
    assert str(tmp_path / "output.json") not in inputs["files"]


def test_what_it_wrote_itself_is_no_input(program: Callable[[], object], tmp_path: Path) -> None:
    with recorded() as seen:
        program()
        (tmp_path / "log.txt").write_text("1")
        (tmp_path / "log.txt").read_text()
    inputs = inputs_of(seen)
    assert inputs is not None and not any(path.endswith("log.txt") for path in inputs["files"])


def test_a_file_that_only_native_code_reads_counts_by_its_name_in_the_source(
    program: Callable[[], object], tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "part-1.bin").write_text("w")
    helper = next(tmp_path.glob("*_helper.py"))
    helper.write_text('VALUE = "weights"\n')
    os.utime(helper, (time.time() - 100, time.time() - 100))
    with recorded() as seen:
        program()
    inputs = inputs_of(seen)
    assert inputs is not None and str(tmp_path / "weights" / "part-1.bin") in inputs["files"]


def test_a_program_that_asks_a_network_or_another_program_is_not_followed(program: Callable[[], object]) -> None:
    with recorded() as seen:
        program()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    assert seen.beyond and inputs_of(seen) is None

    with recorded() as seen, socket.socket() as line:
        line.settimeout(0.1)
        line.connect_ex(("127.0.0.1", 9))
    assert seen.beyond and inputs_of(seen) is None


def test_a_module_that_was_changed_after_its_import_says_nothing(program: Callable[[], object], tmp_path: Path) -> None:
    program()
    later = time.time() + 100
    os.utime(next(tmp_path.glob("*_helper.py")), (later, later))
    with recorded() as seen:
        program()
    assert inputs_of(seen) is None
