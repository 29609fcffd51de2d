"""`model-export verify` with the libraries of a device alone (tests/fresh_environment.py has no others)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from edgeloop.package import Package
from model_export.entry import device_main
from model_export.exit_codes import ExitCode
from tests.doubles.packages import make_package
from tests.fresh_environment import built_packages, needs_processing


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("on-a-device") / "tiny")


def test_a_package_is_verified(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    assert device_main(["verify", str(package.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["digest"] == package.digest
    assert [(check["variant"], check["ok"], check["cases"]) for check in found["checks"]] == [("cpu-fp32", True, 16)]
    assert device_main(["verify", str(package.root)]) == 0
    assert "cpu-fp32" in capsys.readouterr().out


def test_a_wrong_one_is_refused_as_the_whole_command_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = make_package(tmp_path / "wrong", wrong_golden=True)
    assert device_main(["verify", str(wrong.root), "--json"]) == ExitCode.GOLDEN_MISMATCH
    assert json.loads(capsys.readouterr().out)["kind"] == "golden_mismatch"
    assert device_main(["verify", str(tmp_path / "nothing")]) == ExitCode.INVALID_PACKAGE


def test_what_it_cannot_do_here_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert device_main(["build", "model.onnx"]) == ExitCode.MISSING_LIBRARY
    assert "pip install 'edgeloop[export]'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        device_main([])
    assert wrong.value.code == ExitCode.USAGE


def test_packages_are_found_by_provenance_until_somebody_changes_them(package: Package, tmp_path: Path) -> None:
    own = make_package(tmp_path / "deep" / "own", seed=2)
    statement = {"subject": [{"digest": {"sha256": own.digest.removeprefix("sha256:")}}]}
    beside = tmp_path / "deep" / "own.provenance.json"
    beside.write_text(json.dumps({"payload": base64.b64encode(json.dumps(statement).encode()).decode()}))
    assert built_packages(package.root.parent) == {}
    assert built_packages(tmp_path) == {own.digest: own.root}
    assert not needs_processing(own.root)
    (own.root / "manifest.json").write_bytes((own.root / "manifest.json").read_bytes() + b" ")
    assert built_packages(tmp_path) == {}
    beside.write_text("{}")
    assert built_packages(tmp_path) == {}
