"""``edge-agent enrol``: a key that is made here, a certificate for it, and what the device has to know of its fleet."""

from __future__ import annotations

import hashlib
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.identity import store
from edge_agent.identity.hub_call import ask
from edge_agent.identity.requests import begin_of, ensure_key, make_request, validity
from edge_agent.identity.store import Identity, IdentityError
from edge_agent.identity.tls import NO_CHECK_TIME
from edgeloop.protocol.enrolment import EnrolmentToken
from edgeloop.whole_files import write_whole


def enrol(
    data: Path,
    device: str,
    hub: str,
    token: EnrolmentToken,
    *,
    root: bytes | None = None,
    key: Path | None = None,
    request: bytes | None = None,
) -> Identity:
    """Enrol this device. What it was before holds until all is here.

    Args:
        data: the agent's data folder, which is locked.
        device: the name that it is to have.
        hub: base URL, https.
        token: from the hub.
        root: root metadata that was brought along; None: the token pins what the hub sends, or there is none.
        key: file of a key that is there, as a TPM's is; None: one is made in the identity folder.
        request: certificate request of that key, PEM; None: it is made here.

    Raises:
        HubAway: no answer; the same command may be given again.
        HubRefuses: the hub's reason.
        IdentityError: what came is not what the token is of.
        OSError: the folder cannot be written.
    """
    if root is not None and token.root and hashlib.sha256(root).hexdigest() != token.root:
        raise IdentityError("the root metadata is not what the token names: take the file that belongs to this fleet")
    folder = store.begin(data)
    key_file = folder / store.KEY if key is None else key
    if key is None:
        ensure_key(key_file)
    asked = make_request(key_file, device) if request is None else request
    if request is not None:
        write_whole(folder / store.REQUEST, request)
    ca = _pinned_ca(hub, token)
    context = ssl.create_default_context(cadata=ca.decode("ascii"))
    if time.time() < begin_of(ca):  # the clock is wrong: it was later when the authority was made
        context.verify_flags |= NO_CHECK_TIME
    body = {"token": token.text, "device": device, "request": asked.decode("ascii")}
    answer = ask(hub, "POST", "/api/v1/enrolments/redeem", context, body).document()
    try:
        certificate = str(answer["certificate"]).encode("ascii")
        begins, ends = validity(certificate, asked)
        identity = Identity(
            folder=folder,
            device=str(answer["device"]),
            fleet=str(answer["fleet"]),
            hub=str(answer["hub"]) or hub.rstrip("/"),
            broker_host=str(answer["broker_host"]) or urlsplit(hub).hostname or "",
            broker_port=int(answer["broker_port"]),
            channels=tuple(map(str, answer["channels"])),
            enrolled_at=float(answer["now"]),
            begins=begins,
            ends=ends,
            broker_tls=bool(answer["broker_tls"]),
            key_file="" if key is None else str(key.absolute()),
        )
        root = root if root is not None else _pinned_root(answer.get("root"), token)
        store.save(identity, certificate=certificate, ca=ca, root=root)
    except (KeyError, TypeError, ValueError) as error:
        raise IdentityError(f"the hub's answer is not as it has to be: {error!r}") from error
    store.commit(data)
    found = store.load(data)
    assert found is not None  # it was written a moment ago
    return found


def _pinned_ca(hub: str, token: EnrolmentToken) -> bytes:
    """The certificates by which the hub is known. Nobody is trusted for them but the token, which has their hash."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    ca = ask(hub, "GET", "/api/v1/enrolments/ca", anybody).body
    if hashlib.sha256(ca).hexdigest() != token.ca:
        raise IdentityError(
            f"{hub} is not the hub that made the token, or its authority has changed since: "
            "check the address, or make another token"
        )
    return ca


def _pinned_root(sent: object, token: EnrolmentToken) -> bytes | None:
    if not token.root:
        return None
    root = sent.encode() if isinstance(sent, str) else b""
    if hashlib.sha256(root).hexdigest() != token.root:
        raise IdentityError(
            "the root metadata that the hub sends is not what the token names: bring it with --root, or make another "
            "token"
        )
    return root
