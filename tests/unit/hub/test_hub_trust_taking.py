"""What the hub does not take of what it is sent as signed metadata: nothing changes, and the answer says why."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Metadata, TargetFile

from edgeloop.trust import keys, repository
from edgeloop.trust.names import CHANNELS, ONLINE, ROOT, TARGETS
from tests.doubles.people import People
from tests.unit.hub.api_kit import ApiHub

MODEL = "digits"
ROLE = f"releases.{MODEL}"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path_factory.mktemp("taking") / "data", insecure=False)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def people(api: ApiHub) -> People:
    people = People(api.get("trust"), api.clock.now, MODEL, "other")
    api.put("trust/metadata/targets", people.file(TARGETS), 409)  # nothing says yet who signs it
    for role in (ROOT, TARGETS):
        api.put(f"trust/metadata/{role}", people.file(role))
    people.fleet.release(MODEL, DIGEST, 100)
    api.put(f"trust/metadata/{ROLE}", people.file(ROLE))
    return people


def refused(api: ApiHub, role: str, content: bytes, status: int, reason: str) -> None:
    before = api.get("trust")["versions"]
    answer = api.put(f"trust/metadata/{role}", content, status)
    assert reason in answer["error"], answer
    assert api.get("trust")["versions"] == before


def signed(people: People, role: str, change: Callable[[Any], object], **signer: Any) -> bytes:
    """The next version of a role with a change, signed by its holders, and not kept."""
    draft = copy.deepcopy(people.fleet.draft(role))
    change(draft.signed)
    return repository.sign(draft, signer.get("signer", people.fleet.signer(role))).to_bytes()


NESTED = b'{"signed": ' + b"[" * 100_000 + b"]" * 100_000 + b', "signatures": []}'
BAD = {
    "nothing": (b"", 422, "no metadata"),
    "no JSON": (b"\xff\xfe", 422, "no metadata"),
    "a list": (b"[]", 422, "no metadata"),
    "deeply nested": (NESTED, 422, "no metadata"),
    "a number without end": (b'{"signed": ' + b"9" * 300_000 + b"}", 422, "no metadata"),
    "too large": (b" " * 512_001, 413, "512000"),
    "another role's": (b'{"signed": {"_type": "snapshot"}, "signatures": []}', 422, "no metadata"),
}


@pytest.mark.parametrize("role", [ROOT, TARGETS, ROLE])
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_metadata(api: ApiHub, people: People, role: str, case: str) -> None:
    refused(api, role, *BAD[case])


@pytest.mark.parametrize("role", [*ONLINE, "nonsense", "releases.", "releases...", "releases.a*b"])
def test_what_nobody_may_send(api: ApiHub, people: People, role: str) -> None:
    refused(api, role, people.file(TARGETS), 422, "")


@pytest.mark.parametrize("role", [ROOT, TARGETS, ROLE])
def test_what_is_signed_by_others_or_by_nobody(api: ApiHub, people: People, role: str) -> None:
    refused(api, role, signed(people, role, lambda _: None, signer=keys.generate()), 422, "0 of the 1 signatures")
    document = json.loads(signed(people, role, lambda _: None))
    refused(api, role, json.dumps({**document, "signatures": []}).encode(), 422, "0 of the 1 signatures")
    changed = json.loads(signed(people, role, lambda _: None))
    changed["signed"]["expires"] = "2030-01-01T00:00:00Z"
    refused(api, role, json.dumps(changed).encode(), 422, "0 of the 1 signatures")


def test_the_hub_cannot_publish_with_its_own_keys(api: ApiHub, people: People) -> None:
    """Nor can whoever has stolen them."""
    for key in api.hub.trust.keys.all():
        refused(api, ROLE, signed(people, ROLE, lambda _: None, signer=key.signer), 422, "signatures")
        refused(api, TARGETS, signed(people, TARGETS, lambda _: None, signer=key.signer), 422, "signatures")


@pytest.mark.parametrize(("role", "version"), [(ROOT, 3), (TARGETS, 7), (ROLE, 3), (ROLE, 999)])
def test_a_version_that_is_not_the_next(api: ApiHub, people: People, role: str, version: int) -> None:
    refused(api, role, signed(people, role, lambda new: setattr(new, "version", version)), 409, "")


def test_a_version_of_thousands_of_millions_is_no_version(api: ApiHub, people: People) -> None:
    refused(api, ROLE, signed(people, ROLE, lambda new: setattr(new, "version", 10**9)), 422, "version")


@pytest.mark.parametrize("role", [TARGETS, ROLE])
def test_what_has_expired(api: ApiHub, people: People, role: str) -> None:
    past = people.fleet.now - timedelta(seconds=1)
    refused(api, role, signed(people, role, lambda new: setattr(new, "expires", past)), 422, "expired")


def name(path: str, length: int = 100, **hashes: str) -> Callable[[Any], None]:
    def change(new: Any) -> None:
        new.targets[path] = TargetFile(length, hashes or {"sha256": "b" * 64}, path)

    return change


@pytest.mark.parametrize(
    "change",
    [
        name("releases/other/1"),
        name("releases/digits/../other/1"),
        name("retrained/digits/1/1"),
        name("channels/stable"),
        name("releases/digits/02"),
        name("releases/digits/1"),  # another release under a number that was given
        name("releases/digits/9"),  # leaves numbers out
        name("releases/digits/2", length=5 << 20),
        name("releases/digits/2", sha256="B" * 64),
        name("releases/digits/2", sha512="b" * 128),
        lambda new: setattr(new, "delegations", repository.new_targets(_public(), now=new.expires).signed.delegations),
    ],
)
def test_a_publisher_may_name_releases_of_its_model_and_nothing_else(
    api: ApiHub, people: People, change: Callable[[Any], object]
) -> None:
    refused(api, ROLE, signed(people, ROLE, change), 422, "refused")


def _public() -> dict[str, Any]:
    return {role: keys.generate().public_key for role in ONLINE}


def widen(role: str, **changes: Any) -> Callable[[Any], None]:
    def change(new: Any) -> None:
        for attribute, value in changes.items():
            setattr(new.delegations.roles[role], attribute, value)

    return change


def add(role: str, path: str) -> Callable[[Any], None]:
    def change(new: Any) -> None:
        new.delegations.roles[role] = DelegatedRole(
            role, list(new.delegations.roles[CHANNELS].keyids), 1, True, paths=[path]
        )

    return change


@pytest.mark.parametrize(
    "change",
    [
        name("releases/digits/1"),
        widen(ROLE, paths=["releases/*"]),
        widen(ROLE, paths=["releases/digits/*", "channels/*"]),
        widen(ROLE, terminating=False),
        widen(CHANNELS, threshold=2),
        add("everything", "*"),
        add("releases.third", "releases/third/*"),  # with the hub's key: it could publish by itself
        lambda new: new.delegations.roles.pop(CHANNELS),
        lambda new: setattr(new, "delegations", None),
    ],
)
def test_targets_delegate_what_a_role_has_and_nothing_else(
    api: ApiHub, people: People, change: Callable[[Any], object]
) -> None:
    refused(api, TARGETS, signed(people, TARGETS, change), 422, "refused")


def test_a_targets_that_would_silence_the_hub(api: ApiHub, people: People) -> None:
    other = {CHANNELS: keys.generate().public_key}
    refused(
        api,
        TARGETS,
        signed(people, TARGETS, lambda new: repository.set_keys(new, CHANNELS, [other[CHANNELS]], 1)),
        409,
        CHANNELS,
    )


def test_two_of_three_have_to_sign_where_that_was_chosen(tmp_path: Path) -> None:
    api = ApiHub(tmp_path / "data", insecure=False)
    try:
        people = People(api.get("trust"), api.clock.now, MODEL)
        holders = [keys.generate() for _ in range(3)]
        root = copy.deepcopy(people.fleet.root)
        repository.set_keys(root.signed, TARGETS, [key.public_key for key in holders], 2)
        root.signatures.clear()
        api.put("trust/metadata/root", people.sign(ROOT, root))
        targets = Metadata(people.fleet.targets.signed)
        one = repository.sign(copy.deepcopy(targets), holders[0]).to_bytes()
        assert "1 of the 2 signatures" in api.put("trust/metadata/targets", one, 422)["error"]
        api.put("trust/metadata/targets", repository.sign(copy.deepcopy(targets), holders[0], holders[2]).to_bytes())
        assert api.get("trust")["ready"]
    finally:
        api.close()
