"""A fleet's offline metadata between a folder and a hub: fetched and checked by the folder's own root, or sent."""

from __future__ import annotations

from datetime import datetime

from tuf.api.metadata import Metadata, Targets

from edgeloop.trust import checking
from edgeloop.trust.checking import Chain
from edgeloop.trust.errors import TrustError, UnsignedError
from edgeloop.trust.names import ROOT, TARGETS, file_name, model_of
from edgeloop.trust.state import TrustState
from model_export.errors import HubRefusedError, RequestError, SignaturesMissingError, UntrustedError
from model_export.hub import Hub
from model_export.trust.folder import TrustFolder, untrusted

_API = "/api/v1/trust"


def state_of(hub: Hub) -> TrustState:
    """What a hub says of its fleet.

    Raises:
        RequestError: the hub signs nothing.
        UntrustedError: it answers what no hub does.
    """
    try:
        answer = hub.ask("GET", _API)
    except HubRefusedError as error:
        raise hub.stranger() if error.status == 404 else error from error
    if answer.get("signed") is False:
        raise RequestError("this hub is insecure: nothing is signed there", "publish without --key")
    with untrusted(f"{hub.address}: "):
        return TrustState.from_document(answer)


def fetch(hub: Hub, role: str, version: int) -> bytes | None:
    """A version of a role's metadata, unchecked; None where the hub has none."""
    return hub.fetch(f"/tuf/{file_name(role, version)}")


def chain(hub: Hub, folder: TrustFolder, state: TrustState, now: datetime | None) -> Chain:
    """Root and targets of a hub, checked from the root in a folder.

    Args:
        hub: that has them.
        folder: with the root that is believed.
        state: what the hub says of itself.
        now: what had expired by then is refused; None judges no time.

    Raises:
        UntrustedError: they are not signed as the root says, have expired, or are older than those in the folder.
    """
    pinned = folder.root()
    with untrusted(f"{hub.address}: "):
        later = [data for data, _ in checking.walk_roots(pinned, lambda version: fetch(hub, ROOT, version))]
        top = _newest(hub, TARGETS, state)
        found = checking.verify_chain(folder.read(ROOT, pinned.signed.version), later, top, {}, now=now)
    known = [version for version in folder.versions(TARGETS) if _is_whole(folder, found, version)]
    if known and found.targets.signed.version < known[-1]:
        raise UntrustedError(
            f"{hub.address} has targets {found.targets.signed.version}, and {folder.path} has {known[-1]} already",
            "model-export keys push, or somebody has set the hub back",
        )
    return found


def role_of(hub: Hub, found: Chain, role: str, state: TrustState) -> Metadata[Targets] | None:
    """The newest metadata of a delegated role, checked; None where nothing was ever signed for it."""
    if role not in state.versions:
        return None
    with untrusted(f"{hub.address}: "):
        metadata = checking.read_targets(_newest(hub, role, state), role)
        try:
            checking.require(found.targets.signed, role, metadata)
        except UnsignedError as error:
            raise UntrustedError(
                f"{error}: its keys have changed since",
                f"model-export keys renew FOLDER {role}, with a key that it has now",
            ) from error
    return metadata


def pull(hub: Hub, folder: TrustFolder) -> list[str]:
    """Fetch what a hub has newer than a folder, expired or not; drafts of the same version there are replaced.

    Returns:
        Names of the files that were written.
    """
    state, written = state_of(hub), []

    def put(role: str, version: int, data: bytes) -> None:
        have = folder.read(role, version) if version in folder.versions(role) else None
        if data != have:
            folder.write_bytes(role, version, data)
            written.append(file_name(role, version))

    pinned = folder.root()
    with untrusted(f"{hub.address}: "):
        for data, root in checking.walk_roots(pinned, lambda version: fetch(hub, ROOT, version)):
            put(ROOT, root.signed.version, data)
    found = chain(hub, folder, state, None)
    put(TARGETS, found.targets.signed.version, _newest(hub, TARGETS, state))
    for role in sorted(state.versions):
        if model_of(role) is not None:
            # Also what its present keys have not signed: they are to look at it, and to sign it again or forget some.
            data = _newest(hub, role, state)
            with untrusted(f"{hub.address}: "):
                version = checking.read_targets(data, role).signed.version
            put(role, version, data)
    folder.note_taken({role: version for role, version in state.versions.items() if role in folder.roles()})
    return written


def push(hub: Hub, folder: TrustFolder) -> list[str]:
    """Send a hub every version that it lacks: roots, then targets, then publishers' roles.

    Returns:
        Names of the files that the hub took.

    Raises:
        SignaturesMissingError: one still lacks signatures; nothing is sent.
        RequestError: the hub has another file of the same version: somebody else was faster.
    """
    state = state_of(hub)
    for role in folder.roles():
        if folder.versions(role)[-1] > state.versions.get(role, 0):
            require_whole(folder, role)
        elif (data := fetch(hub, role, folder.versions(role)[-1])) != folder.read(role, folder.versions(role)[-1]):
            raise RequestError(
                f"the hub has {'another' if data else 'a newer'} {role} than {folder.path}",
                "model-export keys pull, then make the change again",
            )
    sent = []
    for role in folder.roles():
        for version in folder.versions(role):
            if version > state.versions.get(role, 0):
                put(hub, role, folder.read(role, version))
                folder.note_taken({role: version})
                sent.append(file_name(role, version))
    return sent


def put(hub: Hub, role: str, data: bytes) -> None:
    """Send a role's next version; raises HubRefusedError."""
    headers = {"Content-Type": "application/json"}
    hub.send("PUT", f"{_API}/metadata/{role}", lambda: {"content": data, "headers": headers})


def require_whole(folder: TrustFolder, role: str) -> None:
    """Refuse the newest file of a role while signatures are missing; raises SignaturesMissingError."""
    state = folder.state(role)
    if state.missing:
        raise SignaturesMissingError(
            f"{role} {state.version} lacks {state.missing} of {state.threshold} signatures; "
            f"{', '.join(state.unsigned)} could sign",
            f"model-export keys sign {folder.path} --key KEY",
        )


def _newest(hub: Hub, role: str, state: TrustState) -> bytes:
    version = state.versions.get(role)
    data = None if version is None else fetch(hub, role, version)
    if data is None:
        raise UntrustedError(f"{hub.address} has no {role}", "model-export keys push sends the fleet's first metadata")
    return data


def _is_whole(folder: TrustFolder, found: Chain, version: int) -> bool:
    """Whether a version of targets in a folder is one that a hub could have had."""
    try:
        checking.require(found.root.signed, TARGETS, checking.read_targets(folder.read(TARGETS, version)))
    except TrustError:
        return False
    return True
