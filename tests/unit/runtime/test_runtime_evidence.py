"""The table is kept, believed while it is true, and measured again when it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeloop.package import Package
from edgeloop.runtime import CPU, Choice, Evidence, EvidenceStore, ModelLoadError, Rules, Selector, Trial, selection
from edgeloop.runtime import fingerprint as fingerprints
from edgeloop.runtime.fingerprint import Fingerprint, take
from tests.doubles.packages import make_package
from tests.doubles.provider_double import PROVIDER

RULES = Rules("quiet", time_budget_s=0.02, deadline_s=120.0)
GOOD = Trial("cpu-fp32", CPU, True, 1.25, "", 2, 50, 8.0, 4096)


def evidence(release: str = "sha256:" + "a" * 64) -> Evidence:
    bad = Trial("cpu-int8", CPU, False, None, "golden: it differs", 1)
    return Evidence(release, "f" * 64, {"onnxruntime": "1.32.0"}, 12.5, 1, (bad, GOOD), "noted")


def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever candidates are timed."""
    count: list[int] = []
    really = selection.choose

    def choose(*arguments: object, **named: object) -> Choice:
        count.append(1)
        return really(*arguments, **named)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(selection, "choose", choose)
    return count


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = EvidenceStore(tmp_path / "evidence")
    assert store.read(evidence().release) is None and store.all() == []
    store.write(evidence())
    assert store.read(evidence().release) == evidence() and store.all() == [evidence()]
    assert evidence().winner == GOOD and GOOD.name == f"cpu-fp32 on {CPU}, 2 threads"
    assert [path.name for path in store.folder.iterdir()] == ["a" * 64 + ".json"], "nothing half-written is left"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"[1]",
        lambda data: b"\xff" * 9,
        lambda data: data.replace(b'"v": 1', b'"v": 2'),
        lambda data: data.replace(b'"chosen": 1', b'"chosen": 0'),
        lambda data: data.replace(b'"chosen": 1', b'"chosen": 7'),
        lambda data: data.replace(b'"chosen": 1', b'"chosen": "x"'),
        lambda data: data.replace(b'"threads"', b'"thread"'),
        lambda data: data.replace(b'"table"', b'"rows"'),
    ],
)
def test_a_damaged_table_counts_as_none(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = EvidenceStore(tmp_path)
    store.write(evidence())
    (path,) = tmp_path.iterdir()
    assert damage(path.read_bytes()) != path.read_bytes()
    path.write_bytes(damage(path.read_bytes()))
    assert store.read(evidence().release) is None


def test_two_processes_may_keep_the_same_table_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sync, others = EvidenceStore(tmp_path), os.fsync, [replace(evidence(), note="another's")]

    def meanwhile(descriptor: int) -> None:
        sync(descriptor)
        if others:
            store.write(others.pop())

    monkeypatch.setattr(os, "fsync", meanwhile)
    store.write(evidence())
    assert store.all() == [evidence()] and len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_takes_no_mark_does_not_keep_a_release_from_being_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in-the-way").write_bytes(b"")
    store = EvidenceStore(tmp_path / "in-the-way")
    with store.loading(evidence().release, PROVIDER):
        assert store.died_loading(evidence().release) == frozenset()
    assert f"{PROVIDER} is loaded without a mark" in caplog.text


def test_tables_of_other_releases_are_removed(tmp_path: Path) -> None:
    store, other = EvidenceStore(tmp_path), "sha256:" + "b" * 64
    store.keep([other])
    for release in (evidence().release, other):
        store.write(evidence(release))
    never_ended = store.loading(other, PROVIDER)
    never_ended.__enter__()
    store.keep([evidence().release])
    assert store.all() == [evidence()] and not store.died_loading(other)


def test_the_same_machine_is_not_measured_twice(tmp_path: Path, tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    count = measured(monkeypatch)
    first = Selector(tmp_path, RULES, clock=lambda: 7.0).select(tiny)
    second = Selector(tmp_path, RULES, clock=lambda: 9.0).select(tiny)
    assert len(count) == 1 and second.table == first.table and second.golden.ok
    assert second.winner.threads == second.best.threads == 1
    (kept,) = EvidenceStore(tmp_path / "evidence").all()
    assert kept.at == 7.0 and kept.note == "" and kept.facts["onnxruntime"]
    Selector(tmp_path, replace(RULES, threads=2)).select(tiny)
    assert len(count) == 2, "another setting, another table"
    (kept,) = EvidenceStore(tmp_path / "evidence").all()
    assert "cpu-fp32 on CPUExecutionProvider, 2 threads instead of" in kept.note and "settings: " in kept.note


def test_a_new_driver_is_measured_and_said(tmp_path: Path, tiny: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    count = measured(monkeypatch)
    Selector(tmp_path, RULES).select(tiny)
    monkeypatch.setattr(fingerprints, "_drivers", lambda: "nvidia 999.1")
    selector = Selector(tmp_path, RULES)
    assert selector.fresh(tiny.digest) is None
    choice = selector.select(tiny)
    assert len(count) == 2
    assert "1 thread still wins (drivers: none → nvidia 999.1)" in choice.note
    assert Selector(tmp_path, RULES).fresh(tiny.digest) is not None


def test_a_winner_that_stops_working_is_replaced(tmp_path: Path, tiny: Package, doubled: Callable[[str], None]) -> None:
    doubled("fine")
    assert Selector(tmp_path, replace(RULES, allowed=[PROVIDER])).select(tiny).best.provider == PROVIDER
    doubled("nan")
    lines: list[str] = []
    with pytest.raises(ModelLoadError, match="golden"):
        Selector(tmp_path, replace(RULES, allowed=[PROVIDER])).select(tiny, progress=lines.append)
    assert any("does not work any more" in line for line in lines)


def test_golden_cases_are_checked_at_every_start(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    Selector(tmp_path / "data", RULES).select(package)
    next(package.root.rglob("head.bias.bin")).write_bytes(b"\x00\x00\x80\x7f" * 10)  # infinity: the disk is dying
    with pytest.raises(ModelLoadError, match="golden"):
        Selector(tmp_path / "data", RULES).select(Package.open(package.root, index=package.index))


def test_a_disk_that_is_full_costs_the_table_and_not_the_release(tmp_path: Path, tiny: Package) -> None:
    (tmp_path / "evidence").write_text("no folder")
    lines: list[str] = []
    assert Selector(tmp_path, RULES).select(tiny, progress=lines.append).golden.ok
    assert "cannot be kept" in lines[-1]


def test_memory_is_measured_and_held_to_the_budget(tiny: Package) -> None:
    choice = selection.choose(tiny, replace(RULES, max_memory_bytes=1 << 40))
    assert choice.winner.memory_bytes is not None and choice.winner.memory_bytes >= 0
    with pytest.raises(ModelLoadError, match=r"the process then takes [\d,]+ bytes; the budget is 1,000"):
        selection.choose(tiny, replace(RULES, max_memory_bytes=1000))


def test_a_fingerprint_names_what_has_changed() -> None:
    found = take({"policy": "quiet"})
    assert found.facts["hardware"] and found.facts["wheel"].startswith("onnxruntime")
    assert json.loads(found.facts["settings"]) == {"policy": "quiet"}
    other = Fingerprint({**found.facts, "drivers": "nvidia 550.1"})
    assert other.digest != found.digest and other.machine != found.machine
    assert other.changed(found.facts) == f"drivers: {found.facts['drivers']} → nvidia 550.1"
    policy = Fingerprint({**found.facts, "settings": "{}"})
    assert policy.digest != found.digest and policy.machine == found.machine, "engines do not depend on settings"
    assert found.changed({}).count("unknown → ") == len(found.facts)
