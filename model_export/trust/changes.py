"""What people change in a fleet's offline metadata: each change leaves a draft in the folder, for signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata

from edgeloop.trust import repository
from edgeloop.trust.names import OFFLINE, ONLINE, ROOT, TARGETS, TOP_LEVEL, check_role, model_of, release_role
from model_export.errors import DestinationError, RequestError
from model_export.trust.folder import TrustFolder, asked
from model_export.trust.key_files import PublicKey

ONLINE_ROLES = "online"
"""What `rotate` takes for all roles of the hub."""


def begin(
    folder: TrustFolder,
    root: tuple[Sequence[PublicKey], int],
    targets: tuple[Sequence[PublicKey], int],
    online: Mapping[str, Key],
    now: datetime,
) -> None:
    """Draft the first version of root and targets.

    Args:
        folder: where there is none yet.
        root: keys, and how many have to sign.
        targets: the same.
        online: role → key of the hub.
        now: for expiry.

    Raises:
        DestinationError: a fleet's metadata are there already.
        RequestError: more signatures than keys, or a key of the hub among those of people.
    """
    if folder.roles():
        raise DestinationError(f"{folder.path} has a fleet's metadata already", "choose another folder")
    keys = {ROOT: root[0], TARGETS: targets[0]}
    with asked():
        held = {role: [public.key for public in found] for role, found in keys.items()}
        held |= {role: [online[role]] for role in TOP_LEVEL if role in ONLINE}
        first = repository.new_root(held, {ROOT: root[1], TARGETS: targets[1]}, now=now)
        top = repository.new_targets(online, now=now)
    if {key.keyid for key in online.values()} & {public.keyid for found in keys.values() for public in found}:
        raise RequestError("a key of the hub is given as a key of people", "make keys with model-export keys create")
    folder.remember([*root[0], *targets[0]])
    folder.write(ROOT, first)
    folder.write(TARGETS, top)


def allow(
    folder: TrustFolder, model: str, publishers: Sequence[PublicKey], threshold: int | None, now: datetime
) -> str:
    """Draft targets in which more people may publish a model; returns the role."""
    with asked():
        role = release_role(model)
        draft = folder.next_draft(TARGETS, now)
        repository.allow(draft.signed, model, [public.key for public in publishers], threshold)
    folder.remember(list(publishers))
    folder.write(TARGETS, draft)
    return role


def revoke(folder: TrustFolder, keyid: str, role: str | None, now: datetime) -> list[str]:
    """Draft metadata in which a key has no role, or not this one.

    Returns:
        The roles that it had.

    Raises:
        RequestError: it had none, or a role would have too few keys left.
    """
    taken: list[str] = []
    drafts: dict[str, Metadata[Any]] = {}
    for parent in OFFLINE:
        draft = folder.next_draft(parent, now)
        roles = TOP_LEVEL if parent == ROOT else sorted(repository.delegated(draft.signed))
        held = [each for each in roles if role in (None, each) and _has(draft.signed, each, keyid)]
        with asked("give the role another key in its place: model-export keys rotate FOLDER ROLE --to NAME.pub"):
            for each in held:
                repository.revoke(draft.signed, each, keyid)
        if held:
            drafts[parent], taken = draft, taken + held
    if not taken:
        raise RequestError(f"the key {keyid[:16]} has no role here" if role is None else f"{role} has no such key")
    _write(folder, drafts, now)
    return taken


def rotate(
    folder: TrustFolder, keys: Mapping[str, Sequence[PublicKey]], threshold: int | None, now: datetime
) -> list[str]:
    """Draft metadata in which roles have other keys.

    Args:
        folder: with root and targets.
        keys: role → all keys that it has from now on.
        threshold: signatures that each needs; None leaves it, or lowers it to the number of keys.
        now: for expiry.

    Returns:
        The roles whose keys are others now.
    """
    changed: list[str] = []
    drafts: dict[str, Metadata[Any]] = {}
    for role, found in keys.items():
        with asked():
            parent = ROOT if check_role(role) in TOP_LEVEL else TARGETS
            draft = drafts.get(parent) or folder.next_draft(parent, now)
            before, needs = repository.keys_of(draft.signed, role)
            wanted = min(needs, len(found)) if threshold is None else threshold
            if ([key.keyid for key in before], needs) == ([public.keyid for public in found], wanted):
                continue
            repository.set_keys(draft.signed, role, [public.key for public in found], wanted)
        drafts[parent] = draft
        changed.append(role)
        folder.remember([public for public in found if role not in ONLINE])
    _write(folder, drafts, now)
    return changed


def renew(folder: TrustFolder, role: str, forget: Sequence[str], now: datetime) -> None:
    """Draft the next version of a role, the same but for its expiry and for releases that it is to forget.

    Raises:
        RequestError: it does not name one of those releases, or people do not sign this role.
    """
    with asked():
        if check_role(role) not in OFFLINE and model_of(role) is None:
            raise RequestError(f"the hub renews {role} itself", f"renew {ROOT}, {TARGETS} or releases.<model>")
    draft = folder.next_draft(role, now)
    if forget and model_of(role) is None:
        raise RequestError(f"{role} names no releases", "--forget is for releases.<model>")
    with asked("model-export keys show lists what it names"):
        for path in forget:
            repository.forget(draft.signed, path)
    folder.write(role, draft)


def _write(folder: TrustFolder, drafts: Mapping[str, Metadata[Any]], now: datetime) -> None:
    for role, draft in drafts.items():
        folder.write(role, draft)
    if folder.state(TARGETS).missing and not folder.is_draft(TARGETS):
        folder.write(TARGETS, folder.next_draft(TARGETS, now))  # its keys are others now: they have to sign it


def _has(delegator: object, role: str, keyid: str) -> bool:
    return any(key.keyid == keyid for key in repository.keys_of(delegator, role)[0])  # type: ignore[arg-type]
