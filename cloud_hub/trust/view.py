"""What a person is shown of a fleet's signed metadata: who signs what, until when, and what has to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from cloud_hub.trust.key_files import OnlineKey
from cloud_hub.trust.signing import delegator_of, is_signed, parse, problem
from edgeloop.trust import keys as formats
from edgeloop.trust import repository
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import ONLINE, ROOT, TARGETS

#: People are warned so long before what they signed expires.
WARNED = timedelta(days=30)


@dataclass(frozen=True)
class RoleView:
    """A role's newest metadata.

    Attributes:
        role: its name.
        version: its version.
        expires: unix seconds.
        threshold: signatures that it needs.
        keyids: keys that may sign it.
        signed: whether the present keys have signed it.
    """

    role: str
    version: int
    expires: float
    threshold: int
    keyids: tuple[str, ...]
    signed: bool


@dataclass(frozen=True)
class TrustView:
    """The whole of it.

    Attributes:
        ready: whether the hub signs.
        problem: why it does not, or "".
        online: role → the key that the hub wants to sign it with: its newest.
        online_keys: role → all of the hub's keys, the oldest first: ``number``, ``in_use`` and the public half.
        roles: every role that has metadata.
        in_use: path of each release that is in use → the channels.
        warnings: what people have to do something about.
    """

    ready: bool
    problem: str
    online: Mapping[str, Mapping[str, Any]]
    online_keys: Mapping[str, Sequence[Mapping[str, Any]]]
    roles: Sequence[RoleView]
    in_use: Mapping[str, Sequence[str]]
    warnings: Sequence[str]

    def to_document(self, fleet: str, *, signed: bool) -> dict[str, Any]:
        """As JSON values: what `edgeloop.trust.state.TrustState` reads, and more."""
        return {
            "signed": signed,
            "fleet": fleet,
            **asdict(self),
            "versions": {role.role: role.version for role in self.roles},
            "named": sorted(self.in_use),
        }


#: In a fleet without signatures.
NOTHING = TrustView(False, "this hub is insecure: it signs nothing", {}, {}, [], {}, [])


def view(
    newest: Mapping[str, bytes], keys: Sequence[OnlineKey], in_use: Mapping[str, Sequence[str]], now: datetime
) -> TrustView:
    """Everything that there is to show."""
    why = problem(newest, keys)
    roles = [_role(role, newest) for role in sorted(newest)]
    held = online_keys(newest, keys)
    wanted = {role: found[-1] for role, found in held.items() if found}
    return TrustView(not why, why, wanted, held, roles, in_use, _warnings(newest, roles, now))


def online_keys(newest: Mapping[str, bytes], keys: Sequence[OnlineKey]) -> dict[str, list[dict[str, Any]]]:
    """Role → the hub's keys as others see them."""
    return {
        role: [
            {
                "number": key.number,
                "in_use": key.keyid in _named(role, newest),
                **formats.to_document(key.signer.public_key),
            }
            for key in keys
            if key.role == role
        ]
        for role in ONLINE
    }


def _named(role: str, newest: Mapping[str, bytes]) -> Sequence[str]:
    return _keys(role, newest)[0]


def _keys(role: str, newest: Mapping[str, bytes]) -> tuple[tuple[str, ...], int]:
    """Ids of the keys that may sign a role, and how many have to; none for a role that nothing delegates to now."""
    if (delegator := newest.get(delegator_of(role))) is None:
        return (), 0
    try:
        found, threshold = repository.keys_of(parse(delegator).signed, role)
    except TrustError:
        return (), 0
    return tuple(key.keyid for key in found), threshold


def _role(role: str, newest: Mapping[str, bytes]) -> RoleView:
    signed, (keyids, threshold) = parse(newest[role]).signed, _keys(role, newest)
    vouched = is_signed(newest.get(delegator_of(role), b""), role, newest[role]) if keyids else False
    return RoleView(role, signed.version, signed.expires.timestamp(), threshold, keyids, vouched)


def _warnings(newest: Mapping[str, bytes], roles: Sequence[RoleView], now: datetime) -> list[str]:
    found = []
    for role in roles:
        if role.role in ONLINE:
            continue
        expires = parse(newest[role.role]).signed.expires
        if not role.keyids:
            found.append(f"{role.role} is no longer delegated to anybody: none of its releases can be installed")
        elif not role.signed:
            found.append(
                f"{role.role} {role.version} is not signed by its present keys: sign the next version with them"
            )
        elif expires < now:
            found.append(f"{role.role} {role.version} has expired on {expires:%Y-%m-%d}: devices take nothing new")
        elif expires - now < WARNED:
            found.append(f"{role.role} {role.version} expires on {expires:%Y-%m-%d}: sign the next version before")
    missing = [role for role in (ROOT, TARGETS) if role not in newest]
    if missing:
        found.append(
            f"there is no {' and no '.join(missing)} yet: nothing is signed; begin with model-export keys init"
        )
    return found
