"""The hub's part in signed metadata: what it takes, what it signs, and that a device believes exactly that."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile

from cloud_hub.errors import Conflict
from cloud_hub.records.tables import devices
from cloud_hub.trust import online, records
from edgeloop.package import Package, audit
from edgeloop.protocol import Desired, SignedChannel, SignedDesired, Topics
from edgeloop.trust import repository
from edgeloop.trust.names import CHANNELS, ONLINE, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, parse_release, release_role
from edgeloop.trust.state import TrustState
from tests.doubles.packages import make_package
from tests.doubles.people import People
from tests.doubles.verifier import Verifier
from tests.unit.hub.api_kit import ApiHub

TOPICS = Topics("default")


def secure_hub(data: Path) -> ApiHub:
    hub = ApiHub(data, insecure=False)
    # The audit in a child process has tests of its own; here it would cost a second a release.
    hub.hub.releases._audit = lambda root, index: audit(root, index=index, allow_hard_links=True)
    return hub


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[ApiHub]:
    hub = secure_hub(tmp_path / "data")
    yield hub
    hub.close()


@pytest.fixture
def people(secure: ApiHub, package: Package) -> People:
    """They have signed root and targets, with a publisher of the package's model, and sent both."""
    people = People(secure.get("trust"), secure.clock.now, package.name)
    secure.put("trust/metadata/root", people.file(ROOT))
    secure.put("trust/metadata/targets", people.file(TARGETS))
    return people


@pytest.fixture
def device(people: People, tmp_path: Path) -> Verifier:
    return Verifier(tmp_path / "device", people.fleet.pinned)


def publish(api: ApiHub, people: People, package: Package, *named: str) -> str:
    """Publish and sign a package; returns its digest."""
    digest = api.publish(package)
    role, content = people.release(package, *named)
    api.put(f"trust/metadata/{role}", content)
    return digest


def last(api: ApiHub, topic: str) -> bytes:
    return next(payload for name, payload, retain in reversed(api.sent.messages) if name == topic and retain)


def versions(api: ApiHub) -> dict[str, int]:
    return dict(api.get("trust")["versions"])


def test_keys_are_made_once_for_their_owner_alone(secure: ApiHub) -> None:
    folder = secure.hub.settings.data / "trust" / "keys"
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == sorted(f"{role}.1.pem" for role in ONLINE)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = secure.get("trust")["online"]
    secure.hub.trust.keys.ensure()
    assert secure.get("trust")["online"] == before
    state = TrustState.from_document(secure.get("trust"))
    assert (set(state.online), state.versions, state.named) == (set(ONLINE), {}, ())


def test_a_release_is_signed_carried_and_verified(
    secure: ApiHub, people: People, device: Verifier, package: Package
) -> None:
    digest = publish(secure, people, package)
    secure.post("channels/stable/releases", {"digest": digest})
    payload = last(secure, TOPICS.channel("stable"))
    document = device.open("stable", payload)
    assert document.current is not None
    assert (document.current.digest, document.current.target) == (digest, f"releases/{package.name}/1")
    assert secure.get("trust")["named"] == [f"releases/{package.name}/1"]
    # Everything that was carried is also at /tuf, byte for byte, for whom it did not reach.
    for role, version in versions(secure).items():
        name = "timestamp.json" if role == TIMESTAMP else f"{version}.{role}.json"
        assert secure.http.get(f"/tuf/{name}").status_code == 200, name
    assert secure.http.get("/tuf/1.root.json").content == people.fleet.pinned
    assert secure.http.get("/tuf/2.root.json").status_code == 404


def test_every_change_is_believed_in_order_and_no_older_one_after_it(
    secure: ApiHub, people: People, device: Verifier, package: Package
) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    for hours in (1, 2, 3):
        secure.put("channels/stable", {"policy": {"insights": {"bytes_per_day": hours * 100_000}}})
    sent = [payload for name, payload, _ in secure.sent.messages if name == TOPICS.channel("stable")]
    serials = [device.open("stable", payload).serial for payload in dict.fromkeys(sent)]
    assert serials == sorted(set(serials)) and len(serials) >= 4
    with pytest.raises(RepositoryError):
        device.open("stable", sent[-2])


def test_what_is_not_signed_by_a_publisher_is_not_offered(
    secure: ApiHub, people: People, package: Package, tmp_path: Path
) -> None:
    digest = secure.publish(package)
    refused = secure.post("channels/stable/releases", {"digest": digest}, 409)
    assert "no publisher" in refused["error"]
    role, content = people.release(package)
    secure.put(f"trust/metadata/{role}", content)
    secure.post("channels/stable/releases", {"digest": digest})
    # Another model's publisher vouches for nothing of this one.
    other = make_package(tmp_path / "other", name="other")
    secure.post("channels/stable/releases", {"digest": secure.publish(other)}, 409)


def test_nothing_is_signed_twice_for_the_same_document(secure: ApiHub, people: People, package: Package) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    before, payload = versions(secure), last(secure, TOPICS.channel("stable"))
    secure.hub.channels.publish_all()
    secure.hub.trust.tick()
    assert (versions(secure), last(secure, TOPICS.channel("stable"))) == (before, payload)


def test_a_change_of_one_channel_does_not_send_the_others(secure: ApiHub, people: People, package: Package) -> None:
    digest = publish(secure, people, package)
    for channel in ("a", "b"):
        secure.post(f"channels/{channel}/releases", {"digest": digest})
    count = len(secure.sent.messages)
    secure.put("channels/a", {"policy": {"insights": {"bytes_per_day": 100_000}}})
    assert {name for name, _, _ in secure.sent.messages[count:]} == {TOPICS.channel("a")}


def test_a_device_that_is_moved_finds_what_is_not_older_than_it_knows(
    secure: ApiHub, people: People, device: Verifier, package: Package
) -> None:
    digest = publish(secure, people, package)
    for channel in ("b", "a"):
        secure.post(f"channels/{channel}/releases", {"digest": digest})
    device.open("a", last(secure, TOPICS.channel("a")))
    secure.put("devices/camera-1/desired", {"channel": "b"})
    assert device.open("b", last(secure, TOPICS.channel("b"))).channel == "b"


def test_what_is_wanted_of_a_device_is_signed_for_it_alone_with_a_growing_serial(
    secure: ApiHub, people: People
) -> None:
    serials = []
    for channel in ("a", "b", None):
        secure.put("devices/camera-1/desired", {"channel": channel})
        message = SignedDesired.from_bytes(last(secure, TOPICS.desired("camera-1")))
        wanted = Desired.from_bytes(message.document)
        assert (wanted.channel, wanted.device) == (channel, "camera-1")
        [key], _ = repository.keys_of(people.fleet.targets.signed, CHANNELS)
        key._crypto_key().verify(message.signature, message.document)
        serials.append(wanted.serial)
    assert serials == sorted(set(serials))


def test_the_hub_signs_again_at_half_the_time(
    secure: ApiHub, people: People, device: Verifier, package: Package
) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    before = versions(secure)
    secure.clock.now += 3 * 86_400
    secure.hub.trust.tick()
    assert versions(secure) == before
    secure.clock.now += 86_400
    secure.hub.trust.tick()
    after = versions(secure)
    assert {role for role in after if after[role] != before[role]} == {TIMESTAMP}
    secure.clock.now += 12 * 86_400
    secure.hub.trust.tick()
    later = versions(secure)
    assert {role for role in later if later[role] != before[role]} == set(ONLINE)
    device.open("stable", last(secure, TOPICS.channel("stable")))


def test_people_are_warned_a_month_before_what_they_signed_expires(secure: ApiHub, people: People) -> None:
    assert secure.get("trust")["warnings"] == []
    secure.clock.now += 336 * 86_400
    assert [warning.split()[:3] for warning in secure.get("trust")["warnings"]] == [["targets", "1", "expires"]]
    secure.clock.now += 30 * 86_400
    assert "has expired" in secure.get("trust")["warnings"][0]


def test_a_rotation_of_online_keys(secure: ApiHub, people: People, device: Verifier, package: Package) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    device.open("stable", last(secure, TOPICS.channel("stable")))
    old = TrustState.from_document(secure.get("trust")).online
    for role in ONLINE:
        secure.hub.trust.keys.make(role)
    new = TrustState.from_document(secure.get("trust")).online
    assert all(new[role] != old[role] for role in ONLINE)
    secure.put("channels/stable", {"policy": {"insights": {"bytes_per_day": 100_000}}})  # the old ones still sign
    root, targets = (
        repository.draft(people.fleet.newest[role], role, now=people.fleet.now) for role in (ROOT, TARGETS)
    )
    for role in (SNAPSHOT, TIMESTAMP):
        repository.set_keys(root.signed, role, [new[role]], 1)
    for role in ("retrained", CHANNELS):
        repository.set_keys(targets.signed, role, [new[role]], 1)
    secure.put("trust/metadata/root", people.sign(ROOT, root))
    secure.put("trust/metadata/targets", people.sign(TARGETS, targets))
    assert device.open("stable", last(secure, TOPICS.channel("stable"))).current is not None
    secure.hub.trust.tick()
    assert {key.number for key in secure.hub.trust.keys.all()} == {2}
    wanted = Metadata.from_bytes(secure.http.get("/tuf/timestamp.json").content)
    assert list(wanted.signatures) == [new[TIMESTAMP].keyid]


def test_a_root_that_would_silence_the_hub_is_refused(secure: ApiHub, people: People) -> None:
    root = repository.draft(people.fleet.root, ROOT, now=people.fleet.now)
    repository.set_keys(root.signed, TIMESTAMP, [people.fleet.online[TIMESTAMP].public_key], 1)
    answer = secure.put("trust/metadata/root", people.sign(ROOT, root), 409)
    assert "timestamp" in answer["error"]
    assert versions(secure)[ROOT] == 1


def test_a_release_that_a_channel_needs_cannot_be_forgotten(secure: ApiHub, people: People, package: Package) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    role = release_role(package.name)
    draft = people.fleet.draft(role)
    repository.forget(draft.signed, "releases/digits/1")
    answer = secure.put(f"trust/metadata/{role}", people.sign(role, draft), 409)
    assert "stable" in answer["error"]


def test_retrained_releases_are_forgotten_but_for_the_newest_and_those_in_use(
    secure: ApiHub, people: People, package: Package
) -> None:
    digest = publish(secure, people, package)
    base, trust = secure.hub.releases.get(digest).ref, secure.hub.trust
    made = [replace(base, digest=f"sha256:{number:064x}") for number in range(40)]
    trust.keeps(lambda: {made[0].digest: ["stable"]})
    for release in made:
        trust.adopt(base, release)
    assert [bool(trust.target(release)) for release in made] == [True] + [False] * 23 + [True] * 16
    orders = [parse_release(trust.target(release)).order for release in made if trust.target(release)]
    assert orders == sorted(set(orders)) and {counter for counter, _ in orders} == {1}


def test_a_device_is_carried_at_most_40_kb_after_a_thousand_releases(
    secure: ApiHub, people: People, device: Verifier, package: Package
) -> None:
    digest, size = secure.publish(package), len(package.index.to_bytes())
    role = release_role(package.name)
    draft = people.fleet.draft(role)
    for counter in range(1000 - repository.KEPT["releases"] + 1, 1001):
        path = f"releases/{package.name}/{counter}"
        draft.signed.targets[path] = TargetFile(size, {"sha256": f"{counter:064x}"}, path)
    draft.signed.targets[path].hashes["sha256"] = digest.removeprefix("sha256:")
    secure.put(f"trust/metadata/{role}", people.sign(role, draft))
    secure.post("channels/stable/releases", {"digest": digest})
    payload = last(secure, TOPICS.channel("stable"))
    assert device.open("stable", payload).current.target == f"releases/{package.name}/1000"
    assert sum(map(len, SignedChannel.from_bytes(payload).metadata.values())) <= 40_000


def test_what_has_no_room_in_the_message_is_at_the_hub(
    secure: ApiHub, people: People, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish(secure, people, package)
    secure.post("channels/stable/releases", {"digest": digest})
    whole = SignedChannel.from_bytes(last(secure, TOPICS.channel("stable")))
    largest = max(whole.metadata, key=lambda name: len(whole.metadata[name]))
    carried = sum(map(len, whole.metadata.values()))
    monkeypatch.setattr(online, "MAX_BYTES", online._FRAME_BYTES + len(whole.document) + carried - 1)
    secure.hub.channels.publish("stable")
    message = SignedChannel.from_bytes(last(secure, TOPICS.channel("stable")))
    assert message.document == whole.document and set(whole.metadata) - set(message.metadata) == {largest}
    assert secure.http.get(f"/tuf/{largest}").content == whole.metadata[largest]


def test_nothing_can_be_made_from_what_no_publisher_has_signed(
    secure: ApiHub, people: People, package: Package
) -> None:
    base = secure.hub.releases.get(secure.publish(package)).ref
    with pytest.raises(Conflict, match="no publisher"):
        secure.hub.trust.adopt(base, replace(base, digest="sha256:" + "e" * 64))


def test_without_a_root_nothing_is_said(secure: ApiHub, package: Package) -> None:
    digest = secure.publish(package)
    secure.post("channels/stable/releases", {"digest": digest}, 409)
    secure.put("channels/stable", {"policy": {"insights": {"bytes_per_day": 100_000}}})
    secure.put("devices/camera-1/desired", {"channel": "stable"})
    secure.hub.channels.publish_all()
    secure.hub.devices.publish_all()
    assert secure.sent.messages == []
    assert "there is no root" in secure.get("trust")["problem"]
    # All of it is said once people have signed.
    people = People(secure.get("trust"), secure.clock.now, package.name)
    for role in (ROOT, TARGETS):
        secure.put(f"trust/metadata/{role}", people.file(role))
    assert {name for name, _, _ in secure.sent.messages} == {TOPICS.channel("stable"), TOPICS.desired("camera-1")}


def test_a_wish_of_a_hub_that_named_no_device_is_signed_for_the_device(secure: ApiHub, people: People) -> None:
    secure.put("devices/camera-1/desired", {"channel": "a"})
    with secure.hub.db.begin() as connection:
        connection.execute(devices.update().values(desired_json=json.dumps(Desired("a").to_wire())))
    secure.hub.devices.publish_all()
    wanted = Desired.from_bytes(SignedDesired.from_bytes(last(secure, TOPICS.desired("camera-1"))).document)
    assert (wanted.channel, wanted.device) == ("a", "camera-1") and wanted.serial > 0


def test_an_insecure_hub_says_so(api: ApiHub) -> None:
    assert api.get("trust")["signed"] is False
    api.put("trust/metadata/root", b"{}", 409)
    assert api.http.get("/tuf/timestamp.json").status_code == 404
    assert not (api.hub.settings.data / "trust").exists()


def restored(api: ApiHub, copy: Path) -> ApiHub:
    """The hub again, with the records of a copy, and the same files beside them."""
    data = copy.with_suffix("")
    shutil.copytree(api.hub.settings.data, data, ignore=shutil.ignore_patterns("hub.*"))
    shutil.copy(copy, data / "hub.db")
    again = secure_hub(data)
    again.clock.now = api.clock.now
    return again


def copy_of(api: ApiHub, place: Path) -> Path:
    with closing(sqlite3.connect(api.hub.settings.data / "hub.db")) as records, closing(sqlite3.connect(place)) as copy:
        records.backup(copy)
    return place


def test_records_restored_from_yesterday(
    secure: ApiHub, people: People, device: Verifier, package: Package, tmp_path: Path
) -> None:
    digest = publish(secure, people, package)
    secure.post("channels/stable/releases", {"digest": digest})
    yesterday = copy_of(secure, tmp_path / "copy.db")
    secure.clock.now += 86_400
    for number in range(1, 6):
        secure.put("channels/stable", {"policy": {"insights": {"bytes_per_day": number * 100_000}}})
        secure.put("devices/camera-1/desired", {"channel": "stable"})
    seen = device.open("stable", last(secure, TOPICS.channel("stable")))
    wanted = Desired.from_bytes(SignedDesired.from_bytes(last(secure, TOPICS.desired("camera-1"))).document)
    secure.clock.now += 3600
    again = restored(secure, yesterday)
    try:
        again.put("channels/stable", {"policy": {"insights": {"bytes_per_day": 700_000}}})
        after = device.open("stable", last(again, TOPICS.channel("stable")))
        assert after.serial > seen.serial
        again.put("devices/camera-1/desired", {"channel": None})
        message = SignedDesired.from_bytes(last(again, TOPICS.desired("camera-1")))
        assert Desired.from_bytes(message.document).serial > wanted.serial
    finally:
        again.close()


def test_what_people_signed_since_the_copy_is_given_to_the_restored_hub_again(
    secure: ApiHub, people: People, device: Verifier, package: Package, tmp_path: Path
) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    yesterday = copy_of(secure, tmp_path / "copy.db")
    for number in (2, 3):
        digest = publish(
            secure, people, make_package(tmp_path / str(number), version=str(number)), *secure.get("trust")["named"]
        )
    secure.put("channels/stable", {"policy": {"insights": {"bytes_per_day": 100_000}}})
    device.open("stable", last(secure, TOPICS.channel("stable")))
    secure.clock.now += 3600
    role, content = release_role(package.name), people.file(release_role(package.name))
    again = restored(secure, yesterday)
    try:
        again.hub.channels.publish_all()
        again.put("channels/stable", {"policy": {"insights": {"bytes_per_day": 200_000}}})
        with pytest.raises(RepositoryError):  # the device has seen a later version of the publisher's role
            device.open("stable", last(again, TOPICS.channel("stable")))
        refused = again.put(f"trust/metadata/{role}", content, 409)
        assert "cloud-hub trust import" in refused["hint"]
        again.hub.trust.accept(role, content, restored=True)
        assert device.open("stable", last(again, TOPICS.channel("stable"))).current is not None
        assert again.hub.trust.version(role) == 3 and digest
    finally:
        again.close()


def test_a_change_and_what_vouches_for_it_are_written_together_or_not_at_all(
    secure: ApiHub, people: People, device: Verifier, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.post("channels/stable/releases", {"digest": publish(secure, people, package)})
    before, channel, add = versions(secure), secure.get("channels/stable"), records.add
    written = list[str]()
    for step in (CHANNELS, SNAPSHOT, TIMESTAMP):

        def stopped(connection: Any, role: str, stored: Any, step: str = step) -> None:
            add(connection, role, stored)
            written.append(role)
            if role == step:
                raise RuntimeError("stopped here")

        with monkeypatch.context() as stop, pytest.raises(RuntimeError):
            stop.setattr(records, "add", stopped)
            secure.hub.channels.set_policy("stable", {"insights": {"bytes_per_day": 100_000}})
        assert (versions(secure), secure.get("channels/stable")) == (before, channel)
    assert written == [CHANNELS, CHANNELS, SNAPSHOT, CHANNELS, SNAPSHOT, TIMESTAMP]
    secure.put("channels/stable", {"policy": {"insights": {"bytes_per_day": 100_000}}})
    assert device.open("stable", last(secure, TOPICS.channel("stable"))).serial > channel["serial"]
