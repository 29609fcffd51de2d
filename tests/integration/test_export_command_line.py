"""The commands as a person runs them: real files, and real processes but for most refusals, which all end alike."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from click.testing import Result
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from onnx import helper
from typer.testing import CliRunner

from edgeloop.package import Package
from edgeloop.trust import keys
from model_export import cli
from model_export.exit_codes import ExitCode
from model_export.trust.provenance import find, write
from tests.doubles import digits
from tests.unit.export.models import model, two_layers, weight


def run(*arguments: Any, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from model_export.cli import main; main()", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_here(*arguments: Any, cwd: Path) -> Result:
    """The same without a process, whose start takes ten times as long as a refusal."""
    with chdir(cwd):
        return CliRunner().invoke(cli.app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.joblib, digits.npz and a package made of them."""
    folder = tmp_path_factory.mktemp("export")
    joblib.dump(digits.classifier(), folder / "digits.joblib")
    digits.write_data(folder)
    done = run("build", "digits.joblib", "--trust-source", "--data", "digits.npz", "-o", "made", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "report.json").write_text(done.stdout)
    return folder


def test_who_vouches_for_a_build(folder: Path, tmp_path: Path) -> None:
    """As built, nobody does; once a publisher has signed, those do who believe the publisher's key."""
    package = Path(shutil.copytree(folder / "made", tmp_path / "made"))
    documents = find(folder / "made")
    assert documents is not None
    publisher = keys.generate()
    pem = load_pem_private_key(publisher.private_bytes, None).public_key()
    (tmp_path / "publisher.pem").write_bytes(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for documents_there, code in (
        (None, ExitCode.UNPROVEN),
        (documents, ExitCode.UNPROVEN),
        (documents.signed(publisher), ExitCode.OK),
    ):
        if documents_there is not None:
            write(package, documents_there)
        done = run_here("verify", "made", "--provenance", "--key", "publisher.pem", "--json", cwd=tmp_path)
        assert done.exit_code == code, done.output
    vouched = json.loads(done.stdout)["provenance"]
    assert vouched["key"] == publisher.public_key.keyid and "digits.joblib" in vouched["materials"]
    done = run_here("verify", "made", "--provenance", cwd=tmp_path)
    assert done.exit_code == ExitCode.UNPROVEN and "no key may sign" in done.stderr


def test_build_makes_a_package_of_a_joblib_file(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert (report["name"], report["version"], report["head"]) == ("digits", "1.0.0", True)
    assert set(report["metrics"]) == {"cpu-int8", "cpu-fp32"}
    for metrics in report["metrics"].values():
        assert metrics["accuracy"] > 0.93
        assert metrics["latency_ms"] > 0
    assert report["metrics"]["cpu-int8"]["size_bytes"] < report["metrics"]["cpu-fp32"]["size_bytes"] / 2
    assert report["lineage"]["source"]["file"] == "digits.joblib"
    assert report["lineage"]["parent"] is None

    package = Package.open(folder / "made")
    assert package.digest == report["digest"]
    assert package.meta.features == "features"
    assert package.meta.labels == tuple("0123456789")
    weight, bias = package.head_arrays()
    np.testing.assert_array_equal(weight, digits.classifier().coefs_[-1].T.astype(np.float32))
    assert bias.shape == (10,)
    validation, profile = package.validation(), package.profile()
    assert validation is not None and profile is not None
    assert len(validation[1]) == 270 and profile.reference.predictions == 270
    assert profile.calibration is not None and profile.calibration.rows == 270
    assert abs(profile.calibration.accuracy - package.meta.metrics["cpu-fp32"]["accuracy"]) < 1e-3
    assert "latency_ms" in package.meta.metrics["cpu-int8"]


def test_a_measured_latency_changes_the_manifest_only(folder: Path) -> None:
    """Without it the digest is the same in every process: tests/integration/test_two_clones.py."""
    done = run(
        "build", "digits.joblib", "--trust-source", "--data", "digits.npz", "-o", "again", "--reproducible", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    first, second = (Package.open(folder / name).index for name in ("made", "again"))
    assert {e.path for e in first.entries if second.by_path.get(e.path) != e} == {"manifest.json"}


def test_inspect_and_verify_a_good_package(folder: Path) -> None:
    done = run("inspect", "made", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["head"]["weight"] == "head.weight"
    assert [output["role"] for output in found["outputs"]] == ["label", "probabilities", "features"]
    assert found["variants"]["cpu-int8"]["precision"] == "int8"
    assert run_here("inspect", "made", cwd=folder).exit_code == 0

    done = run("verify", "made", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] and {c["variant"] for c in report["checks"]} == {"cpu-int8", "cpu-fp32"}
    assert all(check["cases"] == 32 for check in report["checks"])
    assert "golden cases" in done.stderr


def test_verify_refuses_a_package_whose_golden_outputs_are_wrong(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder / "made", folder / "wrong")
    (file,) = (folder / "wrong" / "shared_assets").glob("*/outputs-fp32.safetensors")
    outputs = {name: np.roll(array, 1, axis=0) for name, array in load_file(file).items()}
    save_file(outputs, file)
    done = run("verify", "wrong", "--json", cwd=folder)
    assert done.returncode == ExitCode.GOLDEN_MISMATCH
    answer = json.loads(done.stdout)
    assert answer["kind"] == "golden_mismatch" and "cpu-fp32" in answer["error"] and "cpu-int8" not in answer["error"]


def test_a_damaged_package_fails_its_audit_in_every_command(folder: Path) -> None:
    shutil.copytree(folder / "made", folder / "damaged")
    next((folder / "damaged").glob("shared_assets/*/head.weight.bin")).unlink()
    for command in (["inspect"], ["verify"], ["publish", "--hub", "http://127.0.0.1:9", "--channel", "c"]):
        done = run_here(command[0], "damaged", *command[1:], cwd=folder)
        assert done.exit_code == ExitCode.INVALID_PACKAGE, done.stderr
        assert "head.weight.bin" in done.stderr.replace("\n", "")
    assert run("verify", "absent", cwd=folder).returncode == ExitCode.INVALID_PACKAGE


def test_publish_without_a_hub_says_so(folder: Path) -> None:
    done = run("publish", "made", "--hub", "http://127.0.0.1:9", "--channel", "stable", "--json", cwd=folder)
    assert done.returncode == ExitCode.HUB_UNREACHABLE
    assert "cloud-hub serve" in json.loads(done.stdout)["hint"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["digits.joblib", "--data", "digits.npz"], ExitCode.UNTRUSTED_SOURCE),
        (["absent.onnx", "--data", "digits.npz"], ExitCode.SOURCE),
        (["truncated.onnx", "--data", "digits.npz"], ExitCode.SOURCE),
        (["custom.onnx", "--data", "small.npz"], ExitCode.UNSUPPORTED_MODEL),
        (["regression.onnx", "--data", "small.npz"], ExitCode.UNSUPPORTED_MODEL),
        (["nan.onnx", "--data", "small.npz"], ExitCode.UNSUPPORTED_MODEL),
        (["net.onnx", "--data", "digits.npz"], ExitCode.DATA),
        (["net.onnx", "--data", "absent.npz"], ExitCode.DATA),
        (["net.onnx", "--data", "small.npz", "--labels", "a,b"], ExitCode.DATA),
        (["flat.onnx", "--data", "small.npz", "--precision", "int8"], ExitCode.QUANTIZATION),
        (["net.onnx", "--data", "small.npz", "--precision", "fp8"], ExitCode.USAGE),
        (["net.onnx", "--data", "small.npz", "--name", "../evil"], ExitCode.USAGE),
        (["net.onnx", "--data", "small.npz", "--role", "scores"], ExitCode.USAGE),
        (["net.onnx", "--data", "small.npz", "-o", "nowhere/made"], ExitCode.DESTINATION),
        (["net.onnx", "--data", "small.npz", "-o", "made"], ExitCode.DESTINATION),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.name,
)
def test_what_cannot_be_built_is_a_clear_error_and_leaves_nothing(
    folder: Path, arguments: list[str], code: ExitCode
) -> None:
    _write_bad_input(folder)
    before = sorted(path.name for path in folder.iterdir())
    output = [] if "-o" in arguments else ["-o", "refused"]
    done = run_here("build", *arguments, *output, cwd=folder)
    assert done.exit_code == code, done.output
    assert isinstance(done.exception, SystemExit) and "Traceback" not in done.output
    assert sorted(path.name for path in folder.iterdir()) == before


def _write_bad_input(folder: Path) -> None:
    onnx.save(two_layers(), folder / "net.onnx")
    (folder / "truncated.onnx").write_bytes((folder / "net.onnx").read_bytes()[:200])
    custom = helper.make_node("Magic", ["x"], ["z"], domain="acme")
    onnx.save(model([custom], {"z": ["N", 3]}, {}, domains=("acme",)), folder / "custom.onnx")
    gemm = helper.make_node("Gemm", ["x", "w"], ["z"])
    onnx.save(model([gemm], {"z": ["N", 1]}, {"w": weight(4, 1)}), folder / "regression.onnx")
    onnx.save(model([gemm], {"z": ["N", 3]}, {"w": weight(4, 3)}), folder / "flat.onnx")
    onnx.save(model([gemm], {"z": ["N", 3]}, {"w": weight(4, 3) * np.nan}), folder / "nan.onnx")
    random = np.random.default_rng(0)
    np.savez(folder / "small.npz", x=random.normal(size=(90, 4)).astype(np.float32), label=np.arange(90) % 3)


def test_an_onnx_file_with_csv_data_and_names_of_classes(folder: Path) -> None:
    onnx.save(two_layers(batch=1), folder / "net.onnx")
    rows = np.random.default_rng(0).normal(size=(120, 4))
    lines = [",".join(f"{v:.5f}" for v in row) + f",{('red', 'green', 'blue')[i % 3]}" for i, row in enumerate(rows)]
    (folder / "colours.csv").write_text("a,b,c,d,colour\n" + "\n".join(lines) + "\n")
    (folder / "names.txt").write_text("red\ngreen\nblue\n")
    done = run(
        "build", "net.onnx", "--data", "colours.csv", "--labels", "names.txt", "--label-column", "colour",
        "--precision", "fp32", "-o", "colours", "--name", "colours", "--version", "2.1.0", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    package = Package.open(folder / "colours")
    assert (package.name, package.version) == ("colours", "2.1.0")
    assert package.meta.labels == ("red", "green", "blue")
    assert list(package.variants) == ["cpu-fp32"]
    assert package.meta.inputs[0].shape == (-1, 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_build_that_is_stopped_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    before = sorted(path.name for path in folder.iterdir())
    # A shell that runs its tests in the background has them ignore SIGINT, and what they start as well.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from model_export.cli import main; main()"
    )
    arguments = ["build", "digits.joblib", "--trust-source", "--data", "digits.npz", "-o", "stopped"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("golden cases"):
            break  # the package is being written and tested, under another name
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_version_and_help_are_there(tmp_path: Path) -> None:
    assert "model-export 0." in run("--version", cwd=tmp_path).stdout
    assert "publish" in run("--help", cwd=tmp_path).stdout
