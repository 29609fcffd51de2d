"""A provider that crashes, hangs or is wrong costs a row of the table, and never the agent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.runtime import CPU, ModelLoadError, Rules, Selector, choose, isolated, trying
from edgeloop.runtime.choosing import CRASHED
from edgeloop.runtime.loading import first_line
from edgeloop.runtime.trying import supervised
from tests.doubles.provider_double import PROVIDER
from tests.doubles.provider_fixture import BROKEN

Mood = Callable[[str], None]
QUICK = Rules("quiet", time_budget_s=0.05, deadline_s=120.0)


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("crash", "it crashed the process (SIGSEGV)"),
        ("nan", "golden: output features differs from its reference by inf times"),
        ("wrong", "golden: output features differs"),
        ("refuse", f"cpu-fp32 on {PROVIDER}: [E] the driver is older than the library"),
    ],
)
def test_a_bad_provider_is_a_row_with_its_reason(tiny: Package, doubled: Mood, mood: str, said: str) -> None:
    doubled(mood)
    choice = choose(tiny, QUICK)
    rows = {row.provider: row for row in choice.table}
    assert choice.best.provider == CPU and rows[CPU].ok
    assert not rows[PROVIDER].ok and rows[PROVIDER].reason.startswith(said) and "\n" not in rows[PROVIDER].reason
    with pytest.raises(ModelLoadError) as caught:
        choose(tiny, Rules("quiet", required=[PROVIDER], deadline_s=120.0))
    assert said in str(caught.value)


def test_a_good_provider_is_used_when_it_is_required(tiny: Package, doubled: Mood) -> None:
    doubled("fine")
    choice = choose(tiny, Rules("quiet", required=[PROVIDER], time_budget_s=0.05, deadline_s=120.0))
    assert choice.best.provider == PROVIDER and choice.best.placement == {PROVIDER: 5}
    assert [row.provider for row in choice.table] == [PROVIDER]
    assert choice.winner.load_ms is not None and choice.winner.memory_bytes is not None


def test_a_slow_provider_loses(tiny: Package, doubled: Mood) -> None:
    doubled("slow")
    choice = choose(tiny, QUICK)
    assert choice.best.provider == CPU and all(row.ok for row in choice.table)
    slow = next(row for row in choice.table if row.provider == PROVIDER)
    assert slow.median_ms is not None and slow.median_ms >= 20


def test_a_provider_that_hangs_is_stopped_and_never_silent(
    tiny: Package, doubled: Mood, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled("hang")
    monkeypatch.setattr(isolated, "PROGRESS_S", 0.2)
    lines: list[str] = []
    choice = choose(tiny, Rules("quiet", time_budget_s=0.05, deadline_s=1.0), progress=lines.append)
    assert choice.best.provider == CPU
    assert choice.table[1].reason == "it took longer than 1 s and was stopped"
    assert len(lines) >= 3 and all(PROVIDER in line for line in lines) and lines[-1].endswith(" s so far")


def test_a_load_that_hangs_in_this_process_is_left_behind(
    tiny: Package, doubled: Mood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "PROGRESS_S", 0.1)
    lines: list[str] = []
    with pytest.raises(ModelLoadError, match=r"an engine is built: it took longer than 0 s"):
        supervised(lambda: time.sleep(60), "an engine is built", lines.append, 0.4)
    assert len(lines) >= 2 and lines[0].startswith("an engine is built, ")
    with pytest.raises(ZeroDivisionError):
        supervised(lambda: 1 // 0, "it", lines.append, 60.0)
    assert supervised(lambda: 7, "it", lines.append, 60.0) == 7


@pytest.mark.parametrize(
    ("status", "out", "err", "said"),
    [
        (0, b'{"reason": ""}\n', "libx.so noise", ""),
        (0, b'noise\n{"reason": "golden: no"}\n', "", "golden: no"),
        (
            0,
            b'{"reason": "fallback to CPU EP has been explicitly disabled"}',
            "E: Failed to load library /a/b.so with error: libcublasLt.so.13: cannot open shared object file: No such",
            "a library is missing: libcublasLt.so.13: cannot open shared object file",
        ),
        (-11, b"", "first\nlast words\n", "it crashed the process (SIGSEGV). last words"),
        (-9, b"{", "", "it crashed the process (SIGKILL)."),
        (3, b"[1]", "ImportError: x", "the process that tried it ended with status 3. ImportError: x"),
    ],
)
def test_what_a_child_leaves_behind_becomes_one_sentence(status: int, out: bytes, err: str, said: str) -> None:
    assert isolated._verdict(status, out, err.encode()) == {"reason": said}


def test_an_error_is_said_without_its_place_in_the_source() -> None:
    long = (
        "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
        "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install "
        "TensorRT libraries\nmore"
    )
    assert first_line(RuntimeError(long)) == "Please install TensorRT libraries"
    assert (
        first_line(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no (x) Y"))
        == "[ONNXRuntimeError] : 1 : FAIL : no (x) Y"
    )
    assert first_line(KeyError()) == "KeyError"


CHILD = """
import sys
from pathlib import Path
from edgeloop.package import Package
from edgeloop.runtime import Rules, Selector
selector = Selector(Path(sys.argv[2]), Rules("quiet", time_budget_s=0.05))
choice = selector.select(Package.open(Path(sys.argv[1])))
print(choice.best.provider, [row.reason for row in choice.table])
"""


def test_a_provider_that_crashes_the_agent_itself_is_not_tried_again(tmp_path: Path, tiny: Package) -> None:
    """It loads in the process that tries it, and not here: two starts later the agent serves, on the CPU."""
    path = os.pathsep.join([str(BROKEN), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": path, "DOUBLE": "crash here"}

    def start() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CHILD, str(tiny.root), str(tmp_path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    assert start().returncode == -11, "the first start dies of it"
    again = start()
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(CPU) and CRASHED in again.stdout
    third = start()
    assert third.stdout == again.stdout, "the table remembers"


def test_a_winner_that_died_is_not_loaded_again_but_measured_against(
    tmp_path: Path, tiny: Package, doubled: Mood
) -> None:
    doubled("fine")
    selector = Selector(tmp_path, Rules("quiet", allowed=[PROVIDER], time_budget_s=0.05, deadline_s=120.0))
    assert selector.select(tiny).best.provider == PROVIDER
    with pytest.raises(KeyboardInterrupt), selector.store.loading(tiny.digest, PROVIDER):
        assert selector.store.died_loading(tiny.digest) == {PROVIDER}
        raise KeyboardInterrupt
    assert not selector.store.died_loading(tiny.digest), "an error is no crash"
    never_ended = selector.store.loading(tiny.digest, PROVIDER)
    never_ended.__enter__()  # and then the process is gone
    with pytest.raises(ModelLoadError, match="down when it was loaded"):
        selector.select(tiny)
