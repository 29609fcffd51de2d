"""Real processes: a hub with all that it has, and an enrolled agent; then everything of the hub is in a thief's hands.

The thief reads the data folder: the keys of `retrained`, `channels`, `snapshot` and `timestamp`, and the hub's own
certificate at the broker.
"""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import typer
from click.testing import CliRunner
from tuf.api.metadata import Metadata

from cloud_hub.trust.key_files import KeyFiles
from edgeloop.package import Package
from edgeloop.protocol import ChannelDocument, Topics
from edgeloop.protocol.link import Link
from edgeloop.trust import names
from edgeloop.trust.names import ReleasePath
from model_export.cli import app as export_commands
from tests.doubles.hostile_hub import HostileHub
from tests.doubles.packages import make_package, new_head
from tests.doubles.secure_fleet import SecureFleet, reference
from tests.integration.brokers import BrokerProcess
from tests.integration.hub_process import FLEET, wait_for
from tests.integration.secure_fleet import SecureAgent, SecureHub, needs_mosquitto

pytestmark = needs_mosquitto


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SecureHub]:
    hub = SecureHub(tmp_path / "hub")
    try:
        yield hub.start()
    finally:
        hub.close()


def people(hub: SecureHub, folder: Path, package: Package, patch: pytest.MonkeyPatch) -> Path:
    """Somebody makes keys, signs a fleet and a release, and publishes it; returns the fleet's first root."""
    patch.chdir(folder)
    patch.setenv("MODEL_EXPORT_TOKEN", json.loads((hub.data / "local.json").read_text())["token"])
    patch.setenv("MODEL_EXPORT_CA_CERT", str(hub.data / "identity" / "ca.crt"))
    at_hub, key = ("--hub", hub.url), ("--key", "alice.key")
    for arguments in (
        ("keys", "create", "alice", "--no-passphrase"),
        ("keys", "init", "fleet", "--root", "alice.pub", "--targets", "alice.pub", *at_hub, *key),
        ("keys", "allow", "fleet", "digits", "alice.pub", *key),
        ("keys", "push", "fleet", *at_hub),
        ("publish", str(package.root), "--channel", "stable", "--trust", "fleet", *at_hub, *key),
    ):
        done = CliRunner().invoke(typer.main.get_command(export_commands), list(arguments))
        assert done.exit_code == 0, (arguments, done.output)
    return folder / "fleet" / "1.root.json"


def stolen(hub: SecureHub) -> SecureFleet:
    """The thief's view of the fleet: its newest metadata, and every key that lies at the hub."""
    (folder,) = {path.parent for path in hub.data.rglob("timestamp.1.pem")}
    thief = SecureFleet(online={key.role: key.signer for key in KeyFiles(folder).all()})

    def take(role: str, name: str) -> Metadata:
        data = hub.api.get(f"/tuf/{name}").content
        thief.files[name], thief.newest[role] = data, Metadata.from_bytes(data)
        return thief.newest[role]

    take(names.ROOT, "1.root.json")
    timestamp = take(names.TIMESTAMP, "timestamp.json")
    version = timestamp.signed.snapshot_meta.version
    snapshot = take(names.SNAPSHOT, names.file_name(names.SNAPSHOT, version))
    for name, meta in snapshot.signed.meta.items():
        role = name.removesuffix(".json")
        take(role, names.file_name(role, meta.version))
    return thief


@contextmanager
def thief_in_the_hubs_place(hub: SecureHub, folder: Path) -> Iterator[tuple[HostileHub, Link]]:
    """The hub is gone; at its addresses a hub and a broker answer that are the thief's, with its certificate."""
    hub.stop()
    own = hub.data / "identity"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own / "server.crt", own / "server.key")
    client = ssl.create_default_context(cafile=str(own / "ca.crt"))
    files = f"cafile {own}/ca.crt\ncertfile {own}/server.crt\nkeyfile {own}/server.key\n"
    broker = BrokerProcess("mosquitto", folder, hub.broker_port, files)
    mirror = HostileHub(hub.http_port, server)
    link = Link("127.0.0.1", hub.broker_port, "thief", tls=lambda: client, backoff_s=(0.05, 0.3))
    try:
        broker.start()
        link.start()
        wait_for(lambda: link.connected, what="the thief's broker")
        yield mirror, link
    finally:
        link.stop(1.0)
        mirror.close()
        broker.kill()


def test_another_backbone_signed_with_all_keys_of_the_hub(
    hub: SecureHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_package(tmp_path / "first")
    root = people(hub, tmp_path, first, monkeypatch)
    agent = SecureAgent(tmp_path / "agent")
    done = agent.enrol(hub.url, hub.token(device="dev-1", channels=["stable"]), "--root", str(root))
    assert done.returncode == 0, done.stderr
    try:
        agent.start()
        wait_for(lambda: agent.status()["release"] == first.digest, 60, f"the first release\n{agent.log}\n{hub.log}")
        trust = agent.status()["trust"]
        assert trust["signed"]
        assert (trust["root"], trust["trouble"], trust["refused"]) == (1, "", 0)

        made = new_head(first, tmp_path / "head", "2")
        shutil.copytree(made.root, tmp_path / "evil")
        (file,) = (tmp_path / "evil").glob("shared_assets/*/body.weight.bin")
        file.write_bytes((np.fromfile(file, "<f4") * 0.5).astype("<f4").tobytes())
        evil = Package.open(tmp_path / "evil")
        thief, length = stolen(hub), len(evil.index.to_bytes())
        path = thief.retrain(ReleasePath("digits", 1), evil.digest, length)
        document = ChannelDocument("stable", 2**40, reference(path, evil.digest, length), None, hub.url)
        payload = thief.channel(document)
        with thief_in_the_hubs_place(hub, tmp_path) as (mirror, link):
            mirror.add(evil)
            mirror.add(first)
            mirror.mirror(thief.files)
            assert link.publish(Topics(FLEET).channel("stable"), payload.to_bytes(), retain=True)
            said = "body.weight.bin is not the file of its base"
            wait_for(lambda: said in agent.status()["update"]["reason"], 40, "the refusal")
            status = agent.status()
            assert status["update"]["state"] == "rolled_back"
            assert (status["release"], status["serving"]) == (first.digest, first.digest)
    finally:
        agent.close()
