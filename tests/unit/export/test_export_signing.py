"""Signing a release for a hub: the next counter, races, crashes, several people, and hubs that lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.trust import keys, repository
from model_export.errors import (
    HubRefusedError,
    KeyFileError,
    RequestError,
    SignaturesMissingError,
    UntrustedError,
)
from model_export.hub import Hub
from model_export.publishing.publish import publish
from model_export.trust.signing import RACES, ReleaseSigner
from tests.doubles.packages import make_package
from tests.doubles.secure_fleet import Named, SecureFleet
from tests.unit.export.publisher import Publisher
from tests.unit.export.small_hub import SmallHub

ROLE = "releases.digits"


@pytest.fixture
def fleet() -> SecureFleet:
    return SecureFleet.make("digits", "words")


@pytest.fixture
def hub(fleet: SecureFleet) -> Iterator[SmallHub]:
    with SmallHub(fleet).running() as server:
        yield server


@pytest.fixture
def alice(hub: SmallHub, fleet: SecureFleet, tmp_path: Path) -> Publisher:
    return Publisher(hub, tmp_path / "alice", fleet.publishers["digits"])


def named(fleet: SecureFleet) -> dict[str, str]:
    return {path: file.hashes["sha256"] for path, file in fleet.newest[ROLE].signed.targets.items()}


def test_releases_are_counted_and_the_newest_is_not_signed_again(alice: Publisher, fleet: SecureFleet):
    assert [alice.sign(Named(str(number))) for number in (1, 2, 2, 1)] == [
        "releases/digits/1",
        "releases/digits/2",
        "releases/digits/2",
        "releases/digits/3",  # an old release that is to be used again
    ]
    assert fleet.newest[ROLE].signed.version == 3
    index = Named("1").index
    assert fleet.newest[ROLE].signed.targets["releases/digits/3"].length == len(index.to_bytes())
    assert named(fleet)["releases/digits/1"] == index.digest.removeprefix("sha256:")


def test_the_metadata_is_there_before_the_release_and_a_whole_publish_can_be_repeated(
    hub: SmallHub, alice: Publisher, tmp_path: Path
):
    package = make_package(tmp_path / "package", name="digits")
    for _ in range(2):
        with Hub(hub.url, pause_s=0.001) as opened:
            done = publish(package, opened, "stable", signer=ReleaseSigner(opened, alice.folder, alice.signers))
        assert (done.target, done.digest) == ("releases/digits/1", package.digest)
    wanted = [request for request in hub.requests if request.startswith(("PUT /trust", "POST /rel", "POST /ch"))]
    assert wanted[:4] == [
        "POST /releases/missing",
        f"PUT /trust/metadata/{ROLE}",
        "POST /releases",
        "POST /channels/stable/releases",
    ]
    assert wanted[4:] == [request for request in wanted[:4] if not request.startswith("PUT")]


def test_an_answer_that_got_lost_does_not_make_a_second_release(hub: SmallHub, alice: Publisher, fleet: SecureFleet):
    hub.lose = [f"PUT /trust/metadata/{ROLE}"]
    assert alice.sign(Named("1")) == "releases/digits/1"
    assert hub.requests.count(f"PUT /trust/metadata/{ROLE}") == 2
    assert list(named(fleet)) == ["releases/digits/1"]


def test_a_publisher_that_stopped_after_any_request_can_begin_again(
    hub: SmallHub, alice: Publisher, fleet: SecureFleet
):
    alice.sign(Named("1"))
    requests = len(hub.requests)
    for stopped in range(requests):
        hub.requests.clear()

        def stop(request: str, after: int = stopped) -> None:
            hub.refuse = {request: (400, {"error": "stopped"})} if len(hub.requests) > after else {}

        hub.before = stop
        alice.refused(HubRefusedError, "stopped", Named("2"))
    hub.before, hub.refuse = lambda request: None, {}
    assert alice.sign(Named("2")) == "releases/digits/2"
    assert list(named(fleet)) == ["releases/digits/1", "releases/digits/2"]


def test_who_loses_a_race_signs_the_next_counter(hub: SmallHub, alice: Publisher, fleet: SecureFleet):
    others = iter(range(10, 12))

    def faster(request: str) -> None:
        if request.startswith("PUT /trust") and (number := next(others, None)):
            fleet.release("digits", Named(str(number)).digest, 10)

    hub.before = faster
    assert alice.sign(Named("1")) == "releases/digits/3"
    assert len(named(fleet)) == 3


def test_who_loses_every_race_is_told_so(hub: SmallHub, alice: Publisher, fleet: SecureFleet):
    def faster(request: str) -> None:
        if request.startswith("PUT /trust"):
            fleet.release("digits", Named(str(len(hub.requests))).digest, 10)

    hub.before = faster
    error = alice.refused(HubRefusedError, f"does not follow it; tried {RACES} times")
    assert "try again" in error.hint
    assert len(named(fleet)) == RACES


def test_old_releases_are_forgotten_but_for_what_a_channel_names(hub: SmallHub, alice: Publisher, fleet: SecureFleet):
    for number in range(70):
        fleet.release("digits", Named(str(number)).digest, 10, *[f"releases/digits/{n}" for n in range(1, 71)])
    hub.named = ("releases/digits/3", "retrained/digits/3/1")
    alice.sign(Named("99"))
    counters = sorted(int(path.rpartition("/")[2]) for path in named(fleet))
    assert counters == [3, *range(8, 72)]


def test_who_gives_no_key_is_told_so(hub: SmallHub, tmp_path: Path):
    assert "--key" in Publisher(hub, tmp_path / "nobody").refused(KeyFileError, "no key was given").hint


def test_a_key_publishes_only_models_that_it_was_allowed_for(alice: Publisher, fleet: SecureFleet):
    error = alice.refused(KeyFileError, "none of the keys may publish words", Named("1", "words"))
    assert "keys allow" in error.hint
    alice.refused(RequestError, "nobody may publish others", Named("1", "others"))
    alice.refused(RequestError, "has to be 1 to 64", Named("1", "a/b"))
    assert "releases.words" not in fleet.newest


def test_two_people_have_to_sign_where_two_are_needed(
    hub: SmallHub, fleet: SecureFleet, alice: Publisher, tmp_path: Path
):
    bob = keys.generate()
    targets = fleet.draft("targets")
    repository.allow(targets.signed, "digits", [bob.public_key], 2)
    fleet.put("targets", targets)
    error = alice.refused(SignaturesMissingError, "waits in .*1.releases.digits.json for 1 more of 2", Named("1"))
    assert "keys sign" in error.hint
    assert ROLE not in fleet.newest
    alice.refused(UntrustedError, "is about another release", Named("2"))
    alice.folder.write_bytes("targets", 2, fleet.files["2.targets.json"])
    (state,) = alice.folder.sign([bob])
    assert (state.role, state.missing) == (ROLE, 0)
    without_keys = Publisher(hub, alice.folder.path)
    assert without_keys.sign(Named("1")) == "releases/digits/1"
    both = Publisher(hub, tmp_path / "both", bob, fleet.publishers["digits"])
    assert both.sign(Named("2")) == "releases/digits/2"


def test_what_waits_in_the_folder_and_was_overtaken_is_signed_anew(fleet: SecureFleet, alice: Publisher):
    bob = keys.generate()
    targets = fleet.draft("targets")
    repository.allow(targets.signed, "digits", [bob.public_key], 2)
    fleet.put("targets", targets)
    alice.refused(SignaturesMissingError, "1.releases.digits.json", Named("1"))
    draft = fleet.draft(ROLE)
    repository.add_release(draft.signed, "digits", Named("5").digest, 10)
    fleet.put(ROLE, draft, bob, fleet.publishers["digits"])
    alice.refused(SignaturesMissingError, "2.releases.digits.json", Named("1"))


def test_an_insecure_hub_and_a_publisher_without_a_root_are_told_apart(hub: SmallHub, alice: Publisher, tmp_path: Path):
    hub.fleet, fleet = None, hub.fleet
    assert "without --key" in alice.refused(RequestError, "insecure").hint
    hub.fleet = fleet
    (alice.folder.path / "1.root.json").unlink()
    assert "somebody whom you trust" in alice.refused(UntrustedError, "there is no root in").hint


def test_publishing_goes_on_after_the_root_was_rotated(alice: Publisher, fleet: SecureFleet):
    alice.sign(Named("1"))
    new = keys.generate()
    draft = fleet.draft("root")
    repository.set_keys(draft.signed, "root", [new.public_key], 1)
    fleet.put("root", draft, fleet.root_key, new)
    fleet.root_key = new
    draft = fleet.draft("root")
    fleet.targets_key = keys.generate()
    repository.set_keys(draft.signed, "targets", [fleet.targets_key.public_key], 1)
    fleet.put("root", draft)
    fleet.put("targets", fleet.draft("targets"))
    assert alice.sign(Named("2")) == "releases/digits/2"
    assert fleet.root.signed.version == 3
