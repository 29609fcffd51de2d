"""What providers compile: kept for this machine and this release alone, and never believed blindly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeloop.package import Package
from edgeloop.runtime import ModelSession, loading
from edgeloop.runtime.compiled import TIMING, Compiled, size_of
from edgeloop.runtime.launch import CONTEXT_FILE
from tests.doubles import provider_double
from tests.doubles.provider_double import PROVIDER

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def filled(compiled: Compiled, release: str, size: int = 100) -> Path:
    folder = compiled.of(release, "v", "TensorrtExecutionProvider")
    (folder / "x.engine").write_bytes(b"e" * size)
    return folder


def test_what_another_machine_compiled_is_removed(tmp_path: Path) -> None:
    old = filled(Compiled(tmp_path, "driver-1"), ONE)
    assert old.is_dir() and filled(Compiled(tmp_path, "driver-1"), TWO).is_dir()
    Compiled(tmp_path, "driver-1").drop_stale()
    assert old.is_dir()
    Compiled(tmp_path, "driver-2").drop_stale()
    assert list(tmp_path.iterdir()) == []
    Compiled(tmp_path / "never", "m").drop_stale()


def test_engines_go_with_their_release_and_timings_stay(tmp_path: Path) -> None:
    compiled = Compiled(tmp_path, "m")
    compiled.keep([ONE])
    first, second = filled(compiled, ONE), filled(compiled, TWO)
    (compiled.timing / "kernels").write_bytes(b"t")
    compiled.keep([TWO])
    assert not first.exists() and second.exists() and (compiled.timing / "kernels").exists()
    assert {path.name for path in compiled.root.iterdir()} == {"2" * 32, TIMING}


def test_the_cache_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    compiled = Compiled(tmp_path, "m", max_bytes=150)
    first, second = filled(compiled, ONE), filled(compiled, TWO)
    os.utime(first.parent, (1, 1))
    compiled.keep([ONE, TWO])
    assert not first.exists() and second.exists() and size_of(tmp_path) == 100


def test_a_folder_of_one_session_goes_with_it(
    tiny: Package, doubled: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled("fine")
    made: list[Compiled] = []
    really = Compiled.temporary

    def temporary() -> Compiled:
        made.append(really())
        return made[-1]

    monkeypatch.setattr(Compiled, "temporary", staticmethod(temporary))
    monkeypatch.setattr("edgeloop.runtime.session.wants_files", lambda provider: True)
    monkeypatch.setattr("edgeloop.runtime.launch.wants_files", lambda provider: True)
    session = ModelSession.load(tiny, "cpu-fp32", PROVIDER)
    folder = made[0].root.parent
    assert (made[0].of(tiny.digest, "cpu-fp32", PROVIDER) / "plain" / "model.onnx").is_file()
    session.close()
    del session
    assert not folder.exists()


class ContextProvider:
    """The double's provider compiles: it writes a compiled model when it is told to, as ONNX Runtime would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[tuple[str, bool]] = []
        really = loading._session

        def session(model: Path, entries: dict[str, str], *rest: Any) -> Any:
            self.loads.append((model.name, "ep.context_enable" in entries))
            if model.name == CONTEXT_FILE:
                if model.read_bytes() != b"compiled":
                    raise loading.ProviderError("no such context")
                return really(model.parent / "plain" / "model.onnx", {}, *rest)
            if entries.get("ep.context_enable") == "1":
                assert entries["ep.context_embed_mode"] == "0"
                Path(entries["ep.context_file_path"]).write_bytes(b"compiled")
            return really(model, {}, *rest)

        monkeypatch.setattr(loading, "_session", session)
        monkeypatch.setattr(loading, "compiles_context", lambda providers: True)
        monkeypatch.setattr("edgeloop.runtime.launch.wants_files", lambda provider: True)


def test_a_compiled_model_is_written_once_loaded_again_and_replaced_when_it_is_damaged(
    tmp_path: Path, tiny: Package, doubled: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled("fine")
    provider, compiled = ContextProvider(monkeypatch), Compiled(tmp_path, "m")

    def load() -> list[tuple[str, bool]]:
        provider.loads.clear()
        session = ModelSession.load(tiny, "cpu-fp32", PROVIDER, compiled=compiled)
        assert len(session.run({"x": tiny.golden().inputs["x"]})) == 3
        session.close()
        return list(provider.loads)

    assert load() == [("model.onnx", True)]
    assert load() == [(CONTEXT_FILE, False)]
    context = compiled.of(tiny.digest, "cpu-fp32", PROVIDER) / CONTEXT_FILE
    context.write_bytes(b"comp")  # the power went in the middle of it
    assert load() == [(CONTEXT_FILE, False), ("model.onnx", True)]
    assert context.read_bytes() == b"compiled"
    assert load() == [(CONTEXT_FILE, False)]
    assert provider_double.SEEN
