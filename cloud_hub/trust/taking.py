"""What people signed, decided: whether the hub takes a file. Pure; who may send one is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from cloud_hub.errors import BadRequest, Conflict, TooLarge
from cloud_hub.trust.key_files import OnlineKey
from cloud_hub.trust.signing import CannotSign, delegator_of, parse, problem, usable
from edgeloop.protocol import ProtocolError
from edgeloop.trust import checking
from edgeloop.trust.errors import OutdatedError, TrustError, UnsignedError
from edgeloop.trust.names import CHANNELS, ONLINE, RETRAINED, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, check_role

_SIGNED_FOR = {ROOT: (SNAPSHOT, TIMESTAMP), TARGETS: (CHANNELS, RETRAINED)}


@dataclass(frozen=True)
class Offer:
    """A file that somebody wants the hub to take.

    Attributes:
        role: whose metadata it says it is.
        content: its bytes.
        restored: it may follow a version that this hub does not have: its records come from a copy.
    """

    role: str
    content: bytes
    restored: bool = False


def take(
    offer: Offer,
    newest: Mapping[str, bytes],
    keys: Sequence[OnlineKey],
    in_use: Mapping[str, Sequence[str]],
    now: datetime,
) -> Metadata[Any]:
    """Decide on a file.

    Args:
        offer: the file.
        newest: role → the newest file that was taken.
        keys: the hub's own: it takes nothing that would leave it unable to sign.
        in_use: path of each release that a channel names → the channels.
        now: what had expired by then is refused, but a root, whose versions have to be taken one by one.

    Returns:
        What is in it.

    Raises:
        TooLarge: it is larger than a device reads.
        BadRequest: its form or its signatures are not what they have to be, or it has expired.
        Conflict: it does not follow the newest version, or would break what is in use.
    """
    try:
        check_role(offer.role)
    except ProtocolError as error:
        raise BadRequest(str(error)) from error
    if offer.role in ONLINE:
        raise BadRequest(f"the hub signs {offer.role} itself", "send root, targets or releases.<model>")
    if len(offer.content) > checking.MAX_BYTES:
        raise TooLarge(f"the metadata have {len(offer.content)} bytes; at most {checking.MAX_BYTES} are read")
    if offer.role != ROOT and delegator_of(offer.role) not in newest:
        missing = delegator_of(offer.role)
        raise Conflict(f"there is no {missing} that says who signs {offer.role}", f"send {missing} first")
    try:
        found = _root(offer, newest) if offer.role == ROOT else _targets(offer, newest, in_use, now)
    except UnsignedError as error:
        raise BadRequest(
            f"refused: {error}", "have more holders of its keys sign it: model-export keys sign"
        ) from error
    except OutdatedError as error:
        raise Conflict(f"refused: {error}", _OUTDATED) from error
    except TrustError as error:
        raise BadRequest(f"refused: {error}", "make it with model-export keys, which keeps every rule") from error
    _check_own_keys(offer.role, found.signed, newest, keys)
    return found


_OUTDATED = (
    "make the change again on the newest version, GET /api/v1/trust/metadata/<role>; at a hub whose records come from "
    "a copy: cloud-hub trust import"
)


def _root(offer: Offer, newest: Mapping[str, bytes]) -> Metadata[Root]:
    if ROOT in newest:
        return checking.next_root(parse(newest[ROOT]), offer.content)
    first = checking.pinned_root(offer.content)
    if first.signed.version != 1:
        raise OutdatedError(f"root {first.signed.version} cannot be the first: devices walk from 1 to the newest")
    return first


def _targets(
    offer: Offer, newest: Mapping[str, bytes], in_use: Mapping[str, Sequence[str]], now: datetime
) -> Metadata[Targets]:
    role, new = offer.role, checking.read_targets(offer.content, offer.role)
    delegator = parse(newest[delegator_of(role)]).signed
    previous: Metadata[Targets] | None = parse(newest[role]) if role in newest else None
    last = previous.signed.version if previous else 0
    if offer.restored and new.signed.version > last + 1:
        checking.require(delegator, role, new)
    else:
        checking.check_next(role, delegator, previous, new)
    if new.signed.is_expired(now):
        raise TrustError(f"{role} {new.signed.version} expired on {new.signed.expires:%Y-%m-%d}")
    for path in (previous.signed.targets if previous else {}).keys() - new.signed.targets.keys():
        if path in in_use:
            raise Conflict(
                f"refused: {path} is named no longer, and {', '.join(in_use[path])} still has it",
                "give the channel another release first, or keep this one in the list",
            )
    return new


def _check_own_keys(role: str, signed: Root | Targets, newest: Mapping[str, bytes], keys: Sequence[OnlineKey]) -> None:
    """A hub that can sign goes on being able to; one that cannot takes whatever may mend that."""
    if problem(newest, keys):
        return
    try:
        for own in _SIGNED_FOR.get(role, ()):
            usable(keys, signed, own)
    except CannotSign as error:
        raise Conflict(
            f"refused: {error}; it could tell devices nothing more", "cloud-hub trust show has the keys of this hub"
        ) from error
