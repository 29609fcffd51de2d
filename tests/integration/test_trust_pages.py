"""The how-to pages about keys, run as they stand there against a real hub: one fleet, page after page."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from click.testing import CliRunner
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Snapshot, Timestamp
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from cloud_hub.cli import app as hub_commands
from edgeloop.package import Package
from edgeloop.trust import keys, repository
from model_export.cli import app as export_commands
from model_export.exit_codes import ExitCode
from model_export.hub import Hub
from model_export.trust import key_files
from model_export.trust.folder import TrustFolder
from model_export.trust.signing import ReleaseSigner
from tests.doubles.packages import make_package
from tests.doubles.secure_fleet import Named
from tests.integration.brokers import find_mosquitto
from tests.integration.hub_process import HubProcess

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
COMMANDS = {
    name: typer.main.get_command(app) for name, app in (("model-export", export_commands), ("cloud-hub", hub_commands))
}


class Fleet:
    """The folder in which the pages are followed, and the hub that they speak to."""

    def __init__(self, folder: Path, hub: HubProcess, url: str, ca_cert: Path | None) -> None:
        self.folder, self.hub, self.url, self.ca_cert = folder, hub, url, ca_cert

    def follow(self, page: str) -> None:
        """Run every command of a page, in its order."""
        text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        commands = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
        assert commands
        for command in commands:
            self.run(command)

    def run(self, command: str) -> str:
        """One command; only what the page says after || may go wrong."""
        command = command.replace("https://hub.example:8080", self.url)
        command = command.replace("/var/lib/cloud-hub", str(self.hub.folder / "data"))
        command, _, expected = command.partition(" || test $? = ")
        program, *arguments = shlex.split(command)
        done = CliRunner().invoke(COMMANDS[program], arguments)
        assert done.exit_code == int(expected or 0), (command, done.output)
        return done.output

    def refuse(self, code: ExitCode, command: str) -> str:
        """A command that has to fail."""
        return self.run(f"{command} || test $? = {int(code)}")

    def fetch(self, name: str) -> bytes | None:
        """A metadata file of the hub."""
        with self.client() as hub:
            return hub.fetch(f"/tuf/{name}")

    def client(self) -> Hub:
        """As a publisher speaks to the hub."""
        return Hub(self.url, token=os.environ["MODEL_EXPORT_TOKEN"], ca_cert=self.ca_cert)

    def digest(self, package: str) -> str:
        """Of one of the packages."""
        return Package.open(self.folder / package).digest.removeprefix("sha256:")


class Client(FetcherInterface):
    """What a device's client makes of the hub's metadata, with a cache of its own and the fleet's first root.

    Attributes:
        instead: file name → bytes that somebody on the way puts in the place of the hub's.
    """

    def __init__(self, fleet: Fleet, cache: Path) -> None:
        self.fleet, self.cache, self.instead = fleet, cache, dict[str, bytes]()
        self.root = (fleet.folder / "fleet" / "1.root.json").read_bytes()
        cache.mkdir()

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        data = self.instead.get(name) or self.fleet.fetch(name)
        if data is None:
            raise DownloadHTTPError(name, 404)
        yield data

    def digest_of(self, path: str) -> str | None:
        """What the metadata say of a target now."""
        found = Updater(str(self.cache), "http://hub/tuf", fetcher=self, bootstrap=self.root).get_targetinfo(path)
        return None if found is None else found.hashes["sha256"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("pages")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        make_package(folder / f"digits-{version}", name="digits", version=version, head_seed=len(version))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUD_HUB_INSECURE", "false")
        hub = HubProcess(folder / "hub")
        url, token, ca_cert = _serve(hub)
        patch.chdir(folder)
        # The audit's child process is tested elsewhere; here it would be half of the time.
        patch.setattr("model_export.reading.audited.open_audited", Package.open)
        patch.setenv("MODEL_EXPORT_PASSPHRASE", "correct horse battery staple")
        patch.setenv("MODEL_EXPORT_TOKEN", token)
        patch.setenv("MODEL_EXPORT_CA_CERT", str(ca_cert or ""))
        patch.delenv("MODEL_EXPORT_TRUST", raising=False)
        yield Fleet(folder, hub, url, ca_cert)
        hub.close()


def _serve(hub: HubProcess) -> tuple[str, str, Path | None]:
    """Start the hub; its address, the token that it shows once, and its CA."""
    process, token, url = hub.spawn(), "", ""
    assert process.stdout is not None
    for line in process.stdout:
        token = found[1] if (found := re.search(r"shown this once: (\S+)", line)) else token
        url = found[1] if (found := re.search(r"serves (https?://\S+)", line)) else url
        if token and url:
            return url, token, next((hub.folder / "data").rglob("ca.crt"), None)
    raise AssertionError(hub.log)


def test_the_first_keys(fleet: Fleet, tmp_path: Path):
    fleet.follow("make-the-first-keys")
    client = Client(fleet, tmp_path / "cache")
    assert client.digest_of("releases/digits/1") == fleet.digest("digits-1.0.0")
    assert client.digest_of("channels/stable") is not None
    fleet.run("model-export keys create mallory")
    publish = f"model-export publish digits-1.1.0 --hub {fleet.url} --channel stable --trust fleet --key mallory.key"
    assert "none of the keys may publish" in fleet.refuse(ExitCode.KEY, publish)


def test_two_publishers_at_once_give_every_release_a_counter_of_its_own(fleet: Fleet, tmp_path: Path):
    fleet.run("model-export keys allow fleet words bob.pub mallory.pub --key alice.key")
    fleet.run(f"model-export keys push fleet --hub {fleet.url}")
    shutil.copytree(fleet.folder / "fleet", tmp_path / "fleet")

    def publish(name: str) -> list[str]:
        signers = [key_files.open_signer(fleet.folder / f"{name}.key")]
        with fleet.client() as hub:
            signer = ReleaseSigner(hub, TrustFolder(tmp_path / "fleet"), signers)
            return [str(signer.sign(Named(f"{name} {number}", "words"))) for number in range(4)]

    with ThreadPoolExecutor(2) as pool:
        paths = [path for found in pool.map(publish, ("bob", "mallory")) for path in found]
    assert sorted(paths) == [f"releases/words/{counter}" for counter in range(1, 9)]
    client = Client(fleet, tmp_path / "cache")
    assert len({client.digest_of(path) for path in paths}) == 8


def test_two_people_sign(fleet: Fleet, tmp_path: Path):
    fleet.follow("sign-with-two-people")
    client = Client(fleet, tmp_path / "cache")
    assert client.digest_of("releases/digits/2") == fleet.digest("digits-1.1.0")
    fleet.run("model-export keys renew fleet root --key alice.key")
    assert "lacks 1 of 2" in fleet.refuse(
        ExitCode.SIGNATURES_MISSING, f"model-export keys push fleet --hub {fleet.url}"
    )
    (fleet.folder / "fleet" / "4.root.json").unlink()  # a draft that nobody needs


def test_the_root_keys_are_rotated(fleet: Fleet, tmp_path: Path):
    switched_off = Client(fleet, tmp_path / "old")
    assert switched_off.digest_of("releases/digits/2") is not None
    fleet.follow("rotate-the-root-keys")
    for client in (switched_off, Client(fleet, tmp_path / "new")):
        assert client.digest_of("releases/digits/2") == fleet.digest("digits-1.1.0")
    shutil.copytree(fleet.folder / "fleet", fleet.folder / "stolen")
    fleet.run("model-export keys renew stolen root")
    assert "nothing in stolen waits" in fleet.refuse(ExitCode.USAGE, "model-export keys sign stolen --key dave.key")


def test_a_publisher_s_key_is_revoked(fleet: Fleet, tmp_path: Path):
    shutil.copytree(fleet.folder / "fleet", fleet.folder / "thief")
    # Whoever has both publishers' keys, and a token, signs what the others then find in the list.
    bad = make_package(fleet.folder / "digits-6.6.6", name="digits", version="6.6.6", head_seed=666)
    both = [key_files.open_signer(fleet.folder / f"{name}.key") for name in ("bob", "erin")]
    with fleet.client() as hub:
        assert str(ReleaseSigner(hub, TrustFolder(fleet.folder / "thief"), both).sign(bad)) == "releases/digits/3"
        (running,) = json.loads(hub.send("GET", "/api/v1/rollouts", dict).content)
        hub.ask("POST", f"/api/v1/rollouts/{running['id']}/abort")  # no devices: it would go on for ever
    fleet.follow("revoke-a-publishers-key")
    client = Client(fleet, tmp_path / "cache")
    assert client.digest_of("releases/digits/3") is None
    assert client.digest_of("releases/digits/2") == fleet.digest("digits-1.1.0")
    assert client.digest_of("releases/digits/4") == fleet.digest("digits-1.2.0")
    publish = f"model-export publish digits-1.0.0 --hub {fleet.url} --channel stable --trust thief --key bob.key"
    fleet.refuse(ExitCode.KEY, publish)


def test_stolen_online_keys_are_replaced(fleet: Fleet, tmp_path: Path):
    """A device that was given huge versions with the stolen keys believes the hub again, and those keys no more."""
    stolen = {
        path.name.partition(".")[0]: keys.from_pem(path.read_bytes())
        for path in (fleet.hub.folder / "data" / "trust" / "keys").glob("*.pem")
    }
    fooled = Client(fleet, tmp_path / "fooled")
    fooled.instead = _fast_forward(fleet, stolen)
    assert fooled.digest_of("releases/digits/4") == fleet.digest("digits-1.2.0")
    assert Metadata[Timestamp].from_file(str(fooled.cache / "timestamp.json")).signed.version == 10**8

    fleet.follow("recover-from-stolen-online-keys")
    fooled.instead = {}
    assert fooled.digest_of("releases/digits/4") == fleet.digest("digits-1.2.0")
    assert Metadata[Timestamp].from_file(str(fooled.cache / "timestamp.json")).signed.version < 10**8
    fooled.instead = _fast_forward(fleet, stolen)
    with pytest.raises(Exception, match="was signed by 0/1 keys"):
        fooled.digest_of("releases/digits/4")


def _fast_forward(fleet: Fleet, stolen: dict[str, keys.CryptoSigner]) -> dict[str, bytes]:
    """Snapshot and timestamp with the highest versions, of whoever has the keys."""
    timestamp = Metadata[Timestamp].from_bytes(fleet.fetch("timestamp.json") or b"")
    version = timestamp.signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes(fleet.fetch(f"{version}.snapshot.json") or b"")
    snapshot.signed.version, snapshot.signatures = 10**8, {}
    data = repository.sign(snapshot, stolen["snapshot"]).to_bytes()
    forged = repository.new_timestamp(timestamp, data, version=10**8, now=timestamp.signed.expires)
    forged.signed.expires = timestamp.signed.expires
    return {
        "timestamp.json": repository.sign(forged, stolen["timestamp"]).to_bytes(),
        f"{10**8}.snapshot.json": data,
    }
