"""A key in a PKCS#11 device: SoftHSM stands in for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from edgeloop.trust import checking
from model_export.exit_codes import ExitCode
from tests.doubles.secure_fleet import SecureFleet
from tests.unit.export.keys_kit import answer_of, refused, roles, run

LIBRARY = next(Path("/usr/lib").rglob("libsofthsm2.so"), None)
pytestmark = pytest.mark.skipif(
    LIBRARY is None or not shutil.which("pkcs11-tool") or find_spec("pkcs11") is None,
    reason="apt-get install softhsm2 opensc; pip install 'edgeloop[hsm]'",
)
PIN = "123456"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A token with an EC key, whose public half is in public.pem; the folder that the test stands in."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(
        f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n"
    )
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    monkeypatch.setenv("PYKCS11LIB", str(LIBRARY))
    monkeypatch.setenv("MODEL_EXPORT_PIN", PIN)
    monkeypatch.chdir(tmp_path)
    tool = ["pkcs11-tool", "--module", str(LIBRARY), "--token-label", "edgeloop"]
    for command in (
        ["softhsm2-util", "--init-token", "--free", "--label", "edgeloop", "--pin", PIN, "--so-pin", PIN],
        [*tool, "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "02"],
        [*tool, "--read-object", "--type", "pubkey", "--id", "02", "-o", "public.der"],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    public = load_der_public_key((tmp_path / "public.der").read_bytes())
    (tmp_path / "public.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "online.json").write_text(json.dumps(answer_of(SecureFleet())))
    return tmp_path


def test_root_is_signed_by_a_device_and_never_without_its_pin(device: Path, monkeypatch: pytest.MonkeyPatch):
    run("create", "root", "--signer", "hsm:2?label=edgeloop", "--public-key", "public.pem")
    people = ("--root", "root.pub", "--targets", "root.pub", "--online", "online.json")
    assert roles(run("init", "fleet", *people, "--key", "root.pub")) == {"root": (1, 0), "targets": (1, 0)}
    checking.pinned_root((device / "fleet" / "1.root.json").read_bytes())
    monkeypatch.setenv("MODEL_EXPORT_PIN", "000000")
    run("renew", "fleet", "root")
    assert "did not sign: PinIncorrect" in refused(ExitCode.USAGE, "sign", "fleet", "--key", "root.pub")
    assert roles(run("show", "fleet"))["root"] == (2, 1)
