"""What is believed of metadata that came from somebody, and what a hub takes as the next version."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata

from edgeloop.trust import checking, keys, names, repository
from edgeloop.trust.errors import OutdatedError, TrustError, UnsignedError
from tests.doubles.secure_fleet import SecureFleet

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def fleet() -> SecureFleet:
    made = SecureFleet.make("digits")
    made.release("digits", DIGEST, 10)
    return made


def changed(metadata: Metadata, **fields: Any) -> bytes:
    """The file with other values in what is signed; the signatures no longer fit."""
    document = json.loads(metadata.to_bytes())
    document["signed"] |= fields
    return json.dumps(document).encode()


def test_a_chain_is_checked_from_a_believed_root_to_a_delegated_role(fleet: SecureFleet):
    pinned, new = fleet.pinned, keys.generate()
    draft = fleet.draft("root")
    repository.set_keys(draft.signed, "root", [new.public_key], 1)
    fleet.put("root", draft, fleet.root_key, new)
    releases = fleet.newest["releases.digits"].to_bytes()
    chain = checking.verify_chain(
        pinned, [fleet.files["2.root.json"]], fleet.targets.to_bytes(), {"releases.digits": releases}, now=fleet.now
    )
    assert (chain.root.signed.version, set(chain.roles)) == (2, {"releases.digits"})
    late = fleet.now + timedelta(days=366)
    with pytest.raises(TrustError, match="targets 1 expired"):
        checking.verify_chain(pinned, [fleet.files["2.root.json"]], fleet.targets.to_bytes(), {}, now=late)
    with pytest.raises(UnsignedError):
        checking.verify_chain(SecureFleet.make().pinned, [], fleet.targets.to_bytes(), {})


def test_a_root_needs_the_signatures_of_the_one_before_and_its_own(fleet: SecureFleet):
    new = keys.generate()
    for signers in ([fleet.root_key], [new]):
        draft = repository.draft(fleet.root, "root", now=fleet.now)
        repository.set_keys(draft.signed, "root", [new.public_key], 1)
        repository.sign(draft, *signers)
        with pytest.raises(UnsignedError):
            checking.next_root(fleet.root, draft.to_bytes())
    repository.sign(draft, fleet.root_key)
    assert checking.next_root(fleet.root, draft.to_bytes()).signed.version == 2
    skipped = repository.draft(draft, "root", now=fleet.now)
    with pytest.raises(OutdatedError):
        checking.next_root(fleet.root, repository.sign(skipped, fleet.root_key, new).to_bytes())
    files = {2: draft.to_bytes(), 3: repository.sign(skipped, new).to_bytes()}
    assert [root.signed.version for _, root in checking.walk_roots(fleet.root, files.get)] == [2, 3]


def test_signatures_are_counted_towards_the_threshold(fleet: SecureFleet):
    alice, bob = keys.generate(), keys.generate()
    targets = fleet.draft("targets")
    repository.set_keys(targets.signed, "releases.digits", [alice.public_key, bob.public_key], 2)
    draft = fleet.draft("releases.digits")
    repository.sign(draft, alice)
    with pytest.raises(UnsignedError, match="1 of the 2 signatures") as found:
        checking.require(targets.signed, "releases.digits", draft)
    assert found.value.missing == 1
    repository.sign(draft, fleet.publishers["digits"])  # no key of the role: counts nothing
    assert set(checking.progress(targets.signed, "releases.digits", draft).signed) == {alice.public_key.keyid}
    repository.sign(draft, bob)
    checking.require(targets.signed, "releases.digits", draft)
    with pytest.raises(TrustError, match="is no role of this targets"):
        checking.require(targets.signed, "releases.words", draft)


def test_a_hub_takes_only_the_version_after_its_newest(fleet: SecureFleet):
    role, before = "releases.digits", fleet.newest["releases.digits"]
    fleet.release("digits", DIGEST, 10)
    second = fleet.newest[role]
    checking.check_next(role, fleet.targets.signed, before, second)
    checking.check_next(role, fleet.targets.signed, None, before)
    for last in (second, None):
        with pytest.raises(OutdatedError):
            checking.check_next(role, fleet.targets.signed, last, second)
    with pytest.raises(OutdatedError):
        checking.check_next(role, fleet.targets.signed, second, before)
    second.signatures.clear()
    with pytest.raises(UnsignedError):
        checking.check_next(role, fleet.targets.signed, before, second)


def test_a_counter_never_means_another_release_and_none_is_left_out(fleet: SecureFleet):
    role, signer = "releases.digits", fleet.publishers["digits"]
    for number in (1, 2):
        fleet.release("digits", f"sha256:{number:064x}", 10)
    before = fleet.newest[role]

    def refused(change: Any, why: str) -> None:
        draft = fleet.draft(role)
        change(draft.signed)
        with pytest.raises(TrustError, match=why):
            checking.check_next(role, fleet.targets.signed, before, repository.sign(draft, signer))

    def replace(targets: Any) -> None:
        repository._add(targets, "releases/digits/2", "sha256:" + "f" * 64, 10)

    def exhaust(targets: Any) -> None:
        repository._add(targets, f"releases/digits/{10**18 - 1}", DIGEST, 10)

    def lose_count(targets: Any) -> None:
        del targets.targets["releases/digits/3"]

    def count_too_far(targets: Any) -> None:
        targets.unrecognized_fields[repository.NEWEST] = 9

    refused(replace, "another release than before")
    refused(exhaust, "leaves out counters after 3")
    refused(lose_count, "2 is its newest counter; 3 was it before")
    refused(count_too_far, "9 is its newest counter")


def test_a_release_that_was_taken_back_leaves_its_counter_behind(fleet: SecureFleet):
    role = "releases.digits"
    fleet.release("digits", f"sha256:{2:064x}", 10)
    before, draft = fleet.newest[role], fleet.draft(role)
    repository.forget(draft.signed, "releases/digits/2")
    fleet.put(role, draft)
    checking.check_next(role, fleet.targets.signed, before, draft)
    assert str(fleet.release("digits", DIGEST, 10)) == "releases/digits/3"
    checking.check_next(role, fleet.targets.signed, draft, fleet.newest[role])
    with pytest.raises(TrustError, match="does not name"):
        repository.forget(draft.signed, "releases/digits/2")


def test_a_forgotten_counter_is_not_given_again(fleet: SecureFleet):
    role = "releases.digits"
    for number in range(4):
        fleet.release("digits", f"sha256:{number:064x}", 10)
    draft = fleet.draft(role)
    repository.prune(draft.signed, (), 1)
    fleet.put(role, draft)
    again = fleet.draft(role)
    repository._add(again.signed, "releases/digits/3", DIGEST, 10)
    repository.sign(again, fleet.publishers["digits"])
    with pytest.raises(TrustError, match="not above 5"):
        checking.check_next(role, fleet.targets.signed, draft, again)


@pytest.mark.parametrize(
    ("role", "fields", "why"),
    [
        ("root", {"consistent_snapshot": False}, "consistent snapshots"),
        ("root", {"version": 10**9}, "version"),
        ("root", {"version": 1.5}, "no metadata"),
        ("root", {"version": "2"}, "no metadata"),
        ("root", {"version": True}, "version"),
        ("root", {"expires": "never"}, "no metadata"),
        ("root", {"_type": "targets"}, "no metadata"),
        ("root", {"spec_version": "2.0.0"}, "no metadata"),
        ("targets", {"targets": {"releases/digits/9": {"hashes": {"sha256": "0" * 64}, "length": 1}}}, "names nothing"),
        ("targets", {"delegations": {"keys": {}, "roles": []}}, "has to delegate to"),
        ("targets", {"delegations": {"keys": {}, "roles": {}, "succinct_roles": {}}}, "no metadata"),
        ("releases.digits", {"delegations": {"keys": {}, "roles": []}}, "may not delegate"),
        (
            "releases.digits",
            {"targets": {"releases/words/1": {"hashes": {"sha256": "0" * 64}, "length": 1}}},
            "may not",
        ),
        (
            "releases.digits",
            {"targets": {"retrained/digits/1/1": {"hashes": {"sha256": "0" * 64}, "length": 1}}},
            "not",
        ),
        ("releases.digits", {"targets": {"../evil": {"hashes": {"sha256": "0" * 64}, "length": 1}}}, "is no release"),
        ("releases.digits", {"targets": {"releases/digits/9": {"hashes": {"md5": "0" * 32}, "length": 1}}}, "sha256"),
        ("releases.digits", {"targets": {"releases/digits/9": {"hashes": {"sha256": "0"}, "length": 1}}}, "64 hex"),
        (
            "releases.digits",
            {"targets": {"releases/digits/9": {"hashes": {"sha256": "0" * 64}, "length": 0}}},
            "length",
        ),
        (
            "releases.digits",
            {"targets": {"releases/digits/9": {"hashes": {"sha256": "0" * 64}, "length": 1 << 23}}},
            "has",
        ),
        (
            "retrained",
            {"targets": {"releases/digits/9": {"hashes": {"sha256": "0" * 64}, "length": 1}}},
            "may not name",
        ),
        (
            "channels",
            {"targets": {"releases/digits/9": {"hashes": {"sha256": "0" * 64}, "length": 1}}},
            "is no channel",
        ),
    ],
)
def test_metadata_of_another_form_are_refused_before_anything_else(
    fleet: SecureFleet, role: str, fields: Any, why: str
):
    read = checking.read_root if role == "root" else lambda data: checking.read_targets(data, role)
    read(fleet.newest[role].to_bytes())
    with pytest.raises(TrustError, match=why):
        read(changed(fleet.newest[role], **fields))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"signed":{"_type":"root"}}', b"1" * 600_000]
)
def test_bytes_that_are_no_metadata_are_refused(data: bytes):
    for read in (checking.read_root, checking.read_targets):
        with pytest.raises(TrustError):
            read(data)


def test_a_delegation_has_the_paths_of_its_role_and_ends_the_search(fleet: SecureFleet):
    for change in ({"paths": ["releases/*/*"]}, {"terminating": False}, {"name": "releases.words"}):
        document = json.loads(fleet.targets.to_bytes())
        role = next(each for each in document["signed"]["delegations"]["roles"] if each["name"] == "releases.digits")
        role |= change
        with pytest.raises(TrustError, match="has to end the search"):
            checking.read_targets(json.dumps(document).encode())


def test_one_key_under_two_ids_does_not_count_twice(fleet: SecureFleet):
    honest = keys.generate().public_key
    twin = SSlibKey("f" * 64, honest.keytype, honest.scheme, dict(honest.keyval))
    document = json.loads(fleet.root.to_bytes())
    document["signed"]["keys"] |= {key.keyid: key.to_dict() for key in (honest, twin)}
    document["signed"]["roles"]["root"] = {"keyids": [honest.keyid, twin.keyid], "threshold": 2}
    with pytest.raises(TrustError, match="another's id"):
        checking.read_root(json.dumps(document).encode())


def test_the_hub_holds_no_key_of_people_and_people_s_releases_need_people(fleet: SecureFleet):
    root = fleet.draft("root")
    repository.set_keys(root.signed, "timestamp", [fleet.root_key.public_key], 1)
    with pytest.raises(TrustError, match="hold a key of people"):
        checking.read_root(root.to_bytes())
    targets = fleet.draft("targets")
    repository.allow(targets.signed, "digits", [fleet.online["retrained"].public_key])
    with pytest.raises(TrustError, match="publish by itself"):
        checking.read_targets(targets.to_bytes())


def test_every_name_of_a_file_leads_to_what_the_file_is(fleet: SecureFleet):
    fleet.refresh()
    for name, data in fleet.files.items():
        role, version = names.parse_file(name)
        if version is not None:
            assert repository.read_version(data) == version
        assert role in fleet.newest
