"""Doctor about onnxruntime: overlapping wheels, required providers, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import doctor, exit_codes
from edge_agent.cli import command
from edge_agent.doctor import Finding, examine
from edge_agent.settings import Settings, load
from edge_agent.updates.testing import TestingRules
from edgeloop.runtime import CPU, Selector, runtime_version
from tests.doubles.installed import install
from tests.doubles.packages import make_package
from tests.doubles.provider_double import PROVIDER
from tests.integration.brokers import free_port

MISSING = "QNNExecutionProvider"


def config(folder: Path, **more: str) -> Path:
    path = folder / "agent.toml"
    lines = {"device": '"a"', "data": f'"{folder / "data"}"', "listen_port": str(free_port()), "policy": '"quiet"'}
    lines |= {"broker_port": str(free_port()), "hub": f'"http://127.0.0.1:{free_port()}"', **more}
    path.write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
    return path


def found(settings: Settings, check: str) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.check == check]


def fake_wheel(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_wheels_that_overwrite_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(config(tmp_path))
    (alone,) = found(settings, "onnxruntime wheels")
    assert alone.level == "ok" and alone.found == f"onnxruntime {runtime_version()}"
    site = tmp_path / "site"
    site.mkdir()
    fake_wheel(site, "onnxruntime-gpu", "1.31.1")
    monkeypatch.syspath_prepend(str(site))
    (both,) = found(settings, "onnxruntime wheels")
    assert both.level == "error" and both.found.startswith("onnxruntime and onnxruntime-gpu are installed")
    assert f"{runtime_version()} is what is left, with {CPU}" in both.found
    assert both.mend.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")


def test_a_wheel_that_was_built_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WHEELS", ())
    (finding,) = found(load(config(tmp_path)), "onnxruntime wheels")
    assert finding.level == "ok" and "was built here" in finding.found


def test_each_required_provider_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    none = load(config(tmp_path, required_providers=f'["{MISSING}", "CUDAExecutionProvider"]'))
    first, second = found(none, "required provider")
    assert first.level == second.level == "error"
    assert f"{MISSING} is not in this onnxruntime" in first.found and "install onnxruntime-qnn" in first.found
    assert "install onnxruntime-gpu" in second.found and "the committed one goes on" in second.mend
    one = load(config(tmp_path, required_providers=f'["{MISSING}", "{CPU}"]'))
    first, second = found(one, "required provider")
    assert first.level == "warning" and second.level == "ok"


@pytest.mark.parametrize(
    ("mood", "level", "said"),
    [
        ("fine", "ok", f"{PROVIDER} runs what this device has"),
        ("crash", "error", f"{PROVIDER}: cpu-fp32: it crashed the process (SIGSEGV)"),
        ("refuse", "error", "the driver is older than the library"),
    ],
)
def test_a_required_provider_that_is_there_is_tried(
    tmp_path: Path, doubled: Callable[[str], None], mood: str, level: str, said: str
) -> None:
    doubled(mood)
    settings = load(config(tmp_path, required_providers=f'["{PROVIDER}"]'))
    package = make_package(tmp_path / "p")
    install(package, settings.data)
    rules = TestingRules(policy="quiet", allowed_providers=[CPU], time_budget_s=0.02).for_providers()
    Selector(settings.data, rules).select(package).best.close()
    (finding,) = found(settings, "required provider")
    assert finding.level == level and said in finding.found


def test_the_tables_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path)
    settings = load(path)
    package = make_package(tmp_path / "p", precisions=("fp32", "int8"))
    install(package, settings.data)
    Selector(settings.data, TestingRules.of(settings).for_providers()).select(package).best.close()
    assert command(["doctor", "--config", str(path), "--json"]) == exit_codes.UNHEALTHY  # no broker, no hub
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    (known,) = document["evidence"]
    assert known["release"] == package.digest and known["changed"] == ""
    assert [row["variant"] for row in known["table"]] == ["cpu-fp32", "cpu-int8"]
    (chosen,) = [row for row in known["table"] if row["chosen"]]
    assert chosen["ok"] and chosen["median_ms"] > 0 and chosen["threads"] == 1
    assert command(["doctor", "--config", str(path)]) == exit_codes.UNHEALTHY
    shown = capsys.readouterr().out
    assert "cpu-int8" in shown and "runs" in shown and package.digest[:20] in shown
    other = load(config(tmp_path, policy='"fast"'))
    (finding,) = found(other, "measurements")
    assert finding.level == "warning" and "settings: " in finding.found


def test_a_source_without_its_library_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        'device = "a"\n[[sources]]\nkind = "camera"\nname = "belt"\ndevice = "0"\nsinks = ["log"]\n'
        '[[sources]]\nkind = "replay"\nname = "march"\npath = "m.csv"\nsinks = ["log"]\n'
        '[[sinks]]\nkind = "jsonl"\nname = "log"\npath = "log.jsonl"\n'
    )
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    belt, march = doctor._sources(load(config))
    assert (belt.level, belt.mend) == ("error", "pip install 'edgeloop[camera]'") and "belt" in belt.found
    assert march.level == "ok" and "march" in march.found
