"""The identity folder: whole or not at all, whatever happens on the way; and the settings of an enrolled device."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import exit_codes
from edge_agent.cli import command
from edge_agent.enrolled import broker_tls, with_identity
from edge_agent.identity import GivenTls, Identity, IdentityError, NotEnrolled, TlsOf, load, require, store
from edge_agent.identity.requests import ensure_key
from edge_agent.parts import lock
from edge_agent.settings import Settings, SettingsError
from edge_agent.settings import load as load_settings
from edgeloop import whole_files
from edgeloop.protocol.enrolment import EnrolmentToken
from tests.integration.brokers import free_port

BEGINS, ENDS = 1_790_000_000.0, 1_797_776_000.0


def enrolled(data: Path, device: str = "cam-1", root: bytes | None = b"root") -> Identity:
    """What `edge-agent enrol` does on the disk."""
    folder = store.begin(data)
    ensure_key(folder / store.KEY)
    identity = Identity(folder, device, "shop", "https://hub:8800", "broker", 8883, ("night", "day"), 1.0, BEGINS, ENDS)
    store.save(identity, certificate=device.encode(), ca=b"ca", root=root)
    store.commit(data)
    found = load(data)
    assert found is not None
    return found


def test_what_was_saved_is_loaded_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    found = enrolled(tmp_path)
    assert (found.device, found.fleet, found.channels, found.root) == ("cam-1", "shop", ("night", "day"), b"root")
    assert found.folder == tmp_path / "identity"
    assert stat.S_IMODE(found.folder.stat().st_mode) == 0o700
    files = {file.name for file in found.folder.iterdir()}
    assert files == {"device.key", "device.crt", "ca.crt", "root.json", "enrolment.json"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in found.folder.iterdir()} == {0o600}


def test_a_power_cut_at_any_step_leaves_the_old_identity_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step that changes a name is one; the process ends before it."""
    seen = set()
    for steps in range(60):
        data = tmp_path / str(steps)
        data.mkdir()
        old = enrolled(data, "old")
        key = old.key.read_bytes()
        with monkeypatch.context() as patch:
            cut_after(patch, steps)
            try:
                enrolled(data, "new", root=None)
            except PowerCut:
                ended = False
            else:
                ended = True
        found = load(data)
        assert found is not None
        whole = {"old": (b"old", b"root"), "new": (b"new", None)}[found.device]
        assert (found.certificate.read_bytes(), found.root) == whole
        assert (found.key.read_bytes() == key) is (found.device == "old")
        seen.add(found.device)
        again = enrolled(data, "next")
        assert again.device == "next", "and the next enrolment goes its way"
        if ended:
            break
    assert seen == {"old", "new"}
    assert steps > 8


class PowerCut(BaseException):
    """Nothing after this happens."""


def cut_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    left = [steps]

    def counted(real: object) -> object:
        def call(*arguments: object, **more: object) -> object:
            if not left[0]:
                raise PowerCut
            left[0] -= 1
            return real(*arguments, **more)  # type: ignore[operator]

        return call

    patch.setattr(Path, "replace", counted(Path.replace))
    patch.setattr(Path, "rename", counted(Path.rename))
    real_unlink = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise PowerCut
        left[0] -= 1
        real_unlink(path, missing_ok)

    patch.setattr(Path, "unlink", unlink)
    patch.setattr(Path, "rmdir", counted(Path.rmdir))


def test_a_key_whose_answer_was_lost_is_kept(tmp_path: Path) -> None:
    folder = store.begin(tmp_path)
    ensure_key(folder / store.KEY)
    key = (folder / store.KEY).read_bytes()
    assert load(tmp_path) is None, "a key alone is no identity"
    assert enrolled(tmp_path).key.read_bytes() == key


def test_a_damaged_identity_is_not_taken_for_none(tmp_path: Path) -> None:
    identity = enrolled(tmp_path)
    document = identity.folder / store.ENROLMENT
    good = document.read_text()
    for bad in ("", "{", "[]", "{}", json.dumps({**json.loads(good), "more": 1})):
        document.write_text(bad)
        with pytest.raises(IdentityError, match=r"enrolment\.json"):
            load(tmp_path)
    document.write_text(good)
    identity.certificate.unlink()
    with pytest.raises(IdentityError, match=r"device\.crt is missing"):
        load(tmp_path)


def test_a_file_is_as_before_when_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    whole_files.write_whole(file, b"before")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def full(_descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(whole_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        whole_files.write_whole(file, b"after")
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file], "and nothing lies about"


def test_a_certificate_is_due_when_two_thirds_are_over(tmp_path: Path) -> None:
    identity = enrolled(tmp_path)
    assert not identity.due(BEGINS + (ENDS - BEGINS) * 0.66)
    assert identity.due(BEGINS + (ENDS - BEGINS) * 0.67)
    assert not identity.plausible(BEGINS - 1)
    store.renewed(identity, certificate=b"second", ca=b"ca2", begins=BEGINS + 10, ends=ENDS + 10)
    found = load(tmp_path)
    assert found is not None
    assert (found.begins, found.certificate.read_bytes(), found.ca.read_bytes()) == (BEGINS + 10, b"second", b"ca2")
    assert found.root == b"root"


def test_settings_that_nobody_has_changed_are_those_of_the_enrolment(tmp_path: Path) -> None:
    enrolled(tmp_path)
    settings, identity = with_identity(Settings(device="cam-1", data=tmp_path))
    assert identity is not None
    assert (settings.fleet, settings.hub, settings.broker_host, settings.broker_port, settings.channel) == (
        "shop",
        "https://hub:8800",
        "broker",
        8883,
        "night",
    )
    own, _ = with_identity(Settings(device="cam-1", data=tmp_path, channel="day", broker_host="elsewhere"))
    assert (own.channel, own.broker_host, own.broker_port) == ("day", "elsewhere", 8883)
    assert isinstance(broker_tls(settings, identity), TlsOf)
    assert isinstance(broker_tls(settings, replace(identity, broker_tls=False)), TlsOf), "it is not on this machine"
    here = replace(settings, broker_host="127.0.0.1")
    assert isinstance(broker_tls(here, identity), TlsOf)
    assert broker_tls(here, replace(identity, broker_tls=False)) is None
    given = replace(settings, broker_ca=tmp_path / "ca.pem")
    assert isinstance(broker_tls(given, identity), GivenTls)


def test_flows_of_an_enrolled_device_have_a_broker_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_AGENT_INSECURE")
    enrolled(tmp_path / "data")
    file = tmp_path / "agent.toml"
    flow = '[[sources]]\nname = "door"\nkind = "mqtt"\ntopic = "door"\nsinks = ["log"]\n'
    sink = '[[sinks]]\nname = "log"\nkind = "jsonl"\npath = "results.jsonl"\n'
    head = f'device = "cam-1"\ninsecure = false\ndata = "{tmp_path / "data"}"\n'
    file.write_text(head + flow + sink)
    with pytest.raises(SettingsError, match="door: the fleet's broker takes one connection"):
        with_identity(load_settings(file))
    file.write_text(head + flow + '[sources.broker]\nhost = "elsewhere"\n' + sink)
    assert with_identity(load_settings(file))[1] is not None


def test_an_insecure_agent_has_no_identity_and_another_device_cannot_have_this_one(tmp_path: Path) -> None:
    enrolled(tmp_path)
    settings, identity = with_identity(Settings(device="cam-1", data=tmp_path, insecure=True))
    assert identity is None
    assert broker_tls(settings, identity) is None
    with pytest.raises(IdentityError, match="identity of cam-1"):
        with_identity(Settings(device="cam-2", data=tmp_path))


def test_who_is_not_enrolled_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match="edge-agent enrol"):
        require(tmp_path)
    assert require(enrolled(tmp_path).folder.parent).device == "cam-1"
    with pytest.raises(NotEnrolled):
        with_identity(Settings(device="cam-1", data=tmp_path / "other"))
    assert with_identity(Settings(device="cam-1", data=tmp_path / "other", insecure=True))[1] is None


def test_commands_end_with_their_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGE_AGENT_INSECURE")
    file = tmp_path / "agent.toml"
    file.write_text(f'device = "cam-1"\ndata = "{tmp_path / "data"}"\n')
    assert command(["run", "--config", str(file)]) == exit_codes.IDENTITY
    assert "edge-agent enrol --hub" in capsys.readouterr().err
    enrolling = ["enrol", "--config", str(file), "--hub", f"https://127.0.0.1:{free_port()}", "--token"]
    assert command([*enrolling, "no token"]) == exit_codes.USAGE
    secret = EnrolmentToken.new(b"ca", None)
    assert command([*enrolling, secret.text]) == exit_codes.ENROLMENT
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert secret.secret not in said
    assert command([*enrolling, secret.text, "--root", str(tmp_path / "none")]) == exit_codes.IDENTITY
    with lock(tmp_path / "data"):
        assert command([*enrolling, secret.text]) == exit_codes.DATA, "the agent has to be stopped first"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('hub = "http://hub.example:8800"', "hub: an insecure agent speaks to its own machine only"),
        ('hub = "http://127.0.0.1@evil.example"', "evil.example is not loopback"),
        ('hub = "http://localhost.evil.example"', "not loopback"),
        ('broker_host = "10.0.0.1"', "broker_host: "),
        ('broker_certificate = "a.pem"', "broker_certificate and broker_key belong together"),
        ('broker_certificate = "a.pem"\nbroker_key = "b.pem"', "broker_ca: "),
    ],
)
def test_insecure_stays_on_this_machine_and_files_come_together(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'device = "a"\ninsecure = true\n{line}\n')
    with pytest.raises(SettingsError, match=said):
        load_settings(file)


@pytest.mark.parametrize("hub", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_loopback_has_several_names(tmp_path: Path, hub: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'device = "a"\ninsecure = true\nhub = "{hub}"\nbroker_host = "::1"\n')
    assert load_settings(file).insecure
