"""Metadata of a fleet: what a client of python-tuf makes of what this library signs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from edgeloop.protocol import ChannelDocument
from edgeloop.trust import keys, names, repository
from edgeloop.trust.errors import TrustError
from tests.doubles.secure_fleet import SecureFleet, reference


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


class _Files(FetcherInterface):
    """The fleet's files as a mirror has them."""

    def __init__(self, fleet: SecureFleet) -> None:
        self.fleet, self.asked = fleet, []

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        self.asked.append(name)
        if name not in self.fleet.files:
            raise DownloadHTTPError(name, 404)
        yield self.fleet.files[name]


def client(fleet: SecureFleet, folder: Path, bootstrap: bytes | None = None) -> Updater:
    folder.mkdir(exist_ok=True)
    return Updater(
        str(folder),
        "http://hub/tuf/",
        fetcher=_Files(fleet),
        bootstrap=fleet.pinned if bootstrap is None else bootstrap,
    )


def test_a_client_finds_a_release_a_retrained_one_and_a_channel_under_their_roles(tmp_path: Path):
    fleet = SecureFleet.make("digits", "words")
    first = fleet.release("digits", digest(1), 700)
    retrained = fleet.retrain(first, digest(2), 800)
    document = ChannelDocument("stable", 1, current=reference(retrained, digest(2), 800))
    signed = fleet.channel(document)
    updater = client(fleet, tmp_path / "cache")
    assert (str(first), str(retrained)) == ("releases/digits/1", "retrained/digits/1/1")
    for path, number, length in ((first, 1, 700), (retrained, 2, 800)):
        target = updater.get_targetinfo(str(path))
        assert target is not None
        assert (target.hashes, target.length) == ({"sha256": f"{number:064x}"}, length)
    channel = updater.get_targetinfo("channels/stable")
    assert channel is not None
    channel.verify_length_and_hashes(signed.document)
    assert set(signed.metadata) <= set(fleet.files)


def test_a_publisher_cannot_name_a_release_of_another_model(tmp_path: Path):
    fleet = SecureFleet.make("digits", "words")
    draft = fleet.draft("releases.digits")
    repository._add(draft.signed, "releases/words/1", digest(1), 10)
    fleet.put("releases.digits", draft)
    fleet.release("words", digest(2), 20)
    fleet.refresh()
    found = client(fleet, tmp_path / "cache").get_targetinfo("releases/words/1")
    assert found is not None
    assert found.hashes["sha256"] == f"{2:064x}"


def test_a_revoked_key_signs_nothing_any_more(tmp_path: Path):
    fleet = SecureFleet.make("digits")
    fleet.release("digits", digest(1), 10)
    stolen, fresh = fleet.publishers["digits"], keys.generate()
    draft = fleet.draft("targets")
    repository.set_keys(draft.signed, "releases.digits", [fresh.public_key], 1)
    fleet.put("targets", draft)
    fleet.refresh()
    with pytest.raises(RepositoryError):
        client(fleet, tmp_path / "a").get_targetinfo("releases/digits/1")
    fleet.publishers["digits"] = fresh
    path = fleet.release("digits", digest(1), 10)
    fleet.refresh()
    assert path.counter == 2
    assert client(fleet, tmp_path / "b").get_targetinfo("releases/digits/2") is not None
    assert stolen.public_key.keyid not in fleet.targets.signed.delegations.keys


def test_counters_and_revisions_go_on_after_old_ones_are_forgotten():
    fleet = SecureFleet.make("digits")
    for number in range(70):
        path = fleet.release("digits", digest(number), 10, "releases/digits/2")
    named = fleet.newest["releases.digits"].signed.targets
    assert path.counter == 70
    assert len(named) == repository.KEPT["releases"] + 1
    assert "releases/digits/2" in named
    assert "releases/digits/1" not in named
    draft = fleet.draft("retrained").signed
    assert repository.add_retrained(draft, path, digest(0), 10).order == (70, 1)
    assert repository.add_retrained(draft, path, digest(1), 10).order == (70, 2)
    assert repository.add_retrained(draft, path, digest(1), 10, after=9).order == (70, 10)
    assert repository.find_release(draft, digest(1)).order == (70, 10)
    assert repository.find_release(draft, digest(5)) is None


def test_each_model_keeps_its_own_newest_releases():
    role = repository.new_role("retrained", now=SecureFleet.make().now).signed
    for model in ("a", "b"):
        for _ in range(5):
            repository.add_retrained(role, names.ReleasePath(model, 1), digest(1), 10)
    gone = repository.prune(role, {"retrained/a/1/1"}, 2)
    assert sorted(gone) == ["retrained/a/1/2", "retrained/a/1/3", *(f"retrained/b/1/{n}" for n in (1, 2, 3))]
    assert len(role.targets) == 5


def test_roles_last_as_long_as_they_should():
    fleet = SecureFleet.make("digits")
    fleet.release("digits", digest(1), 10)
    days = {
        role: (found.signed.expires - fleet.now.replace(microsecond=0)).days for role, found in fleet.newest.items()
    }
    assert days == {
        "root": 730,
        "targets": 365,
        "releases.digits": 365,
        "retrained": 30,
        "channels": 30,
        "snapshot": 30,
        "timestamp": 7,
    }
    assert repository.lifetime("releases.words") == timedelta(days=365)


def test_a_draft_has_the_next_version_no_signatures_and_changes_nothing_before_it():
    fleet = SecureFleet.make("digits")
    before = fleet.targets.to_bytes()
    draft = repository.draft(fleet.targets, "targets", now=fleet.now)
    repository.allow(draft.signed, "words", [keys.generate().public_key])
    assert (draft.signed.version, draft.signatures) == (2, {})
    assert fleet.targets.to_bytes() == before


def test_a_role_never_needs_more_signatures_than_it_has_keys_and_no_key_counts_twice():
    fleet, key = SecureFleet.make("digits"), keys.generate().public_key
    targets = fleet.draft("targets").signed
    with pytest.raises(TrustError, match="needs 2 signatures"):
        repository.allow(targets, "words", [key], 2)
    with pytest.raises(TrustError, match="twice"):
        repository.set_keys(targets, "releases.words", [key, key], 1)
    with pytest.raises(TrustError, match="and has 0 keys"):
        repository.revoke(targets, "releases.digits", fleet.publishers["digits"].public_key.keyid)
    with pytest.raises(TrustError, match="has no key"):
        repository.revoke(targets, "releases.digits", key.keyid)
    with pytest.raises(TrustError, match="root does not delegate"):
        repository.set_keys(fleet.draft("root").signed, "channels", [key], 1)
    with pytest.raises(TrustError, match="targets does not delegate"):
        repository.set_keys(targets, "snapshot", [key], 1)


def test_a_snapshot_lists_what_it_once_listed_and_never_goes_back():
    fleet = SecureFleet.make("digits")
    fleet.release("digits", digest(1), 10)
    old = fleet.files["1.releases.digits.json"]
    fleet.release("digits", digest(2), 10)
    fleet.refresh()
    nothing_new = repository.new_snapshot(fleet.newest["snapshot"], {}, now=fleet.now)
    assert nothing_new.signed.meta == fleet.newest["snapshot"].signed.meta
    with pytest.raises(TrustError, match="would go back from version 2 to 1"):
        repository.new_snapshot(fleet.newest["snapshot"], {"releases.digits": old}, now=fleet.now)
    with pytest.raises(TrustError, match="without targets"):
        repository.new_snapshot(None, {}, now=fleet.now)
