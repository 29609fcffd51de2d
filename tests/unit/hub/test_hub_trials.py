"""Trials at the hub: asked one at a time, answered by what devices report, ended in time, and cleaned up after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.records.trial_tables import trials
from cloud_hub.trials import asking
from cloud_hub.trials.asking import FILES_KEPT_S, MOST_EACH, Trials
from edgeloop.package import Package, required_paths
from edgeloop.protocol import Desired, Presence, Reported, SignedDesired, TrialReport
from edgeloop.protocol.trials import TrialRow
from tests.doubles.packages import make_package
from tests.unit.hub.api_kit import ApiHub

ROW = TrialRow("cpu-fp32", "CPUExecutionProvider", 1, 12.5, 20.0, 200, 900.0, 1 << 20, 16, 16)


class Place(ApiHub):
    """A hub with a package whose files are here, and two devices."""

    package: Package

    def send(self, package: Package) -> None:
        """As `model-export trial` does: without the validation set."""
        for entry in required_paths(package.manifest, package.index):
            self.hub.blobs.put_file(package.root / entry.path, entry.sha256)
        self.hub.blobs.put(package.digest.removeprefix("sha256:"), [package.index.to_bytes()])

    def ask(self, device: str = "cam-1", status: int = 202, **more: Any) -> Any:
        return self.post("trials", {"device": device, "digest": self.package.digest, **more}, status)

    def reports(self, device: str, trial: TrialReport | None) -> None:
        """The device's document, with what it says of a trial."""
        message = Reported(device=device, channel="stable", release=None, trial=trial)
        with self.hub.db.begin() as connection:
            self.hub.devices.take_reported(connection, message, self.clock())

    def wanted(self, device: str = "cam-1") -> Desired:
        """What is on the device's topic now."""
        topic = f"edgeloop/v1/default/d/{device}/desired"
        payload = [payload for sent_to, payload, _ in self.sent.messages if sent_to == topic][-1]
        return Desired.from_bytes(SignedDesired.from_bytes(payload).document)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("trials")
    found = Place(folder / "data")
    found.package = make_package(folder / "package")
    for device in ("cam-1", "cam-2"):
        with found.hub.db.begin() as connection:
            found.hub.devices.take_presence(connection, Presence(device, True, 1, "1"), found.clock())
    yield found
    found.close()


@pytest.fixture
def place(hub: Place) -> Place:
    """The hub, with the package's files and no trial."""
    with hub.hub.db.begin() as connection:
        connection.execute(trials.delete())
    hub.hub.trials.tick()
    for device in ("cam-1", "cam-2"):
        hub.hub.devices.set_trial(device, None)
        hub.put(f"devices/{device}/desired", {})
    hub.send(hub.package)
    return hub


def test_a_device_is_asked_and_its_answer_is_kept(place: Place) -> None:
    trial = place.ask(variants=["cpu-fp32"], calls=50)
    assert trial["state"] == "asked" and trial["model"] == "digits" and trial["asked_by"]
    wanted = place.wanted().trial
    assert wanted is not None
    assert (wanted.id, wanted.digest, wanted.variants, wanted.calls) == (
        trial["id"],
        place.package.digest,
        ("cpu-fp32",),
        50,
    )
    place.reports("cam-1", TrialReport(trial["id"], "measuring", "cpu-fp32: 1 of 1"))
    place.hub.trials.tick()
    assert place.get(f"trials/{trial['id']}")["reason"] == "cpu-fp32: 1 of 1"
    place.reports("cam-1", TrialReport("t-another", "done", "of an earlier life"))
    place.hub.trials.tick()
    assert place.get(f"trials/{trial['id']}")["state"] == "asked"
    place.reports("cam-1", TrialReport(trial["id"], "done", "1 of 1 candidates are good", (ROW,), {"processors": "4"}))
    place.hub.trials.tick()
    ended = place.get(f"trials/{trial['id']}")
    assert ended["state"] == "done" and ended["ended"] == place.clock()
    assert ended["report"]["rows"][0]["median_us"] == 12.5
    assert place.wanted().trial is None
    place.reports("cam-1", None)
    place.hub.trials.tick()
    assert [one["id"] for one in place.get("trials", device="cam-1")] == [trial["id"]]
    assert place.get("trials", device="cam-2") == []


def test_one_at_a_time_each_and_so_many_wait(place: Place) -> None:
    asked = [place.ask() for _ in range(MOST_EACH)]
    assert [trial["state"] for trial in asked] == ["asked", *["queued"] * (MOST_EACH - 1)]
    assert "at most 8" in place.ask(status=409)["error"]
    assert place.ask("cam-2")["state"] == "asked", "another device has a queue of its own"
    place.reports("cam-1", TrialReport(asked[0]["id"], "refused", "the owner does not allow it"))
    place.hub.trials.tick()
    assert place.get(f"trials/{asked[0]['id']}")["state"] == "refused"
    assert place.get(f"trials/{asked[1]['id']}")["state"] == "asked"
    wanted = place.wanted().trial
    assert wanted is not None and wanted.id == asked[1]["id"]


def test_one_that_nobody_answers_ends_in_time(place: Place) -> None:
    trial = place.ask(seconds=30)
    place.clock.now += 29
    place.hub.trials.tick()
    assert place.get(f"trials/{trial['id']}")["state"] == "asked"
    place.clock.now += 2
    place.hub.trials.tick()
    ended = place.get(f"trials/{trial['id']}")
    assert ended["state"] == "expired" and "not connected" in ended["reason"]
    assert place.wanted().trial is None


def test_what_a_person_wishes_and_a_trial_leave_one_another_alone(place: Place) -> None:
    trial = place.ask()
    place.put("devices/cam-1/desired", {"channel": "night", "policy": {"a": 1}})
    wanted = place.wanted()
    assert wanted.channel == "night" and wanted.trial is not None and wanted.trial.id == trial["id"]
    place.post(f"trials/{trial['id']}/cancel", {"reason": "not now"})
    after = place.wanted()
    assert after.channel == "night" and after.policy == {"a": 1} and after.trial is None
    assert after.serial > wanted.serial
    assert place.get(f"trials/{trial['id']}")["reason"] == "not now"
    assert place.post(f"trials/{trial['id']}/cancel", {})["reason"] == "not now", "it has ended already"


def test_a_hub_that_was_stopped_between_an_end_and_the_wish_takes_it_back(place: Place) -> None:
    trial = place.ask()
    hub = place.hub
    stopped = hub.trials.get(trial["id"])
    hub.trials._end(stopped, "cancelled", "and then the power went")
    assert place.wanted().trial is not None
    Trials(hub.db, hub.blobs, hub.releases, hub.devices, clock=place.clock).tick()
    assert place.wanted().trial is None


def test_what_cannot_be_measured_is_refused_at_once(place: Place, tmp_path: Path) -> None:
    place.ask("nobody", 404)
    assert "no variant" in place.ask(status=422, variants=["cuda-fp16"])["error"]
    place.ask(status=422, calls=0)
    digest = f"sha256:{'0' * 64}"
    assert "was not sent" in place.post("trials", {"device": "cam-1", "digest": digest}, 409)["error"]
    place.hub.blobs.put_file(place.package.root / "manifest.json", manifest := _sha256(place.package))
    assert "no release index" in place.post("trials", {"device": "cam-1", "digest": f"sha256:{manifest}"}, 422)["error"]
    other = make_package(tmp_path / "other", seed=3)
    place.hub.blobs.put(other.digest.removeprefix("sha256:"), [other.index.to_bytes()])
    assert "was not sent" in place.post("trials", {"device": "cam-1", "digest": other.digest}, 409)["error"]


def test_files_that_only_trials_needed_go_and_those_of_releases_stay(place: Place, tmp_path: Path) -> None:
    released = place.publish(place.package)
    candidate = make_package(tmp_path / "candidate", head_seed=9)
    place.send(candidate)
    first = place.ask()
    second = place.post("trials", {"device": "cam-1", "digest": candidate.digest}, 202)
    place.post(f"trials/{first['id']}/cancel", {})
    place.clock.now += FILES_KEPT_S + 1
    place.hub.trials.tick()
    own = {entry.sha256 for entry in required_paths(candidate.manifest, candidate.index)}
    own -= {entry.sha256 for entry in place.package.index.entries}
    assert own and all(place.hub.blobs.has(sha256) for sha256 in own), "an open trial needs them"
    place.post(f"trials/{second['id']}/cancel", {})
    place.clock.now += FILES_KEPT_S + 1
    place.hub.trials.tick()
    assert not any(place.hub.blobs.has(sha256) for sha256 in own)
    assert all(place.hub.blobs.has(entry.sha256) for entry in place.package.index.entries)
    assert place.hub.releases.open(released).digest == released


def test_only_so_many_are_remembered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking.records, "MOST_ENDED", 2)
    ids = []
    for _ in range(4):
        ids.append(place.ask()["id"])
        place.post(f"trials/{ids[-1]}/cancel", {})
        place.clock.now += FILES_KEPT_S + 1
        place.hub.trials.tick()
        place.send(place.package)
    assert [one["id"] for one in place.get("trials")] == ids[:0:-1][:3]


def _sha256(package: Package) -> str:
    return package.index.by_path["manifest.json"].sha256
