"""Sending a package to a hub: only the files that it lacks, again where the network failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from edgeloop.package import Package
from model_export.hub import Hub
from model_export.publishing.sending import API, JSON, send_missing
from model_export.trust import provenance
from model_export.trust.provenance import Documents
from model_export.trust.signing import ReleaseSigner


@dataclass(frozen=True)
class Published:
    """What happened.

    Attributes:
        digest: of the release.
        target: its path in the fleet's signed metadata; "" in a fleet without signatures.
        rollout: id of the rollout that the channel started; None where the release became current at once.
        serial: of the channel document.
        files_sent, bytes_sent: what the hub lacked.
        files, bytes: the whole package.
    """

    digest: str
    target: str
    name: str
    version: str
    channel: str
    rollout: str | None
    serial: int
    files_sent: int
    bytes_sent: int
    files: int
    bytes: int


def publish(
    package: Package,
    hub: Hub,
    channel: str,
    *,
    signer: ReleaseSigner | None = None,
    documents: Documents | None = None,
    on_file: Callable[[str, int], None] = lambda path, size: None,
) -> Published:
    """Make a package a release of a hub, and give it to a channel.

    Safe to repeat: what the hub has is not sent again, and a release is identified by its digest.

    Args:
        package: audited.
        hub: to publish at.
        channel: name of the channel.
        signer: signs the release between its files and itself; None in a fleet without signatures.
        documents: how the package was built; None where nobody knows.
        on_file: called with path and size after each file that was sent.

    Raises:
        HubUnreachableError: nobody answered, or no hub.
        HubRefusedError: the hub said no; the message carries its reason.
        ExportError: what `ReleaseSigner.sign` raises.
    """
    sent = send_missing(hub, package, on_file=on_file)
    target = "" if signer is None else str(signer.sign(package))
    release = hub.ask("POST", f"{API}/releases", content=package.index.to_bytes(), headers=JSON)
    if documents is not None:
        _attest(hub, package, documents if signer is None else signer.vouch(documents), signs=signer is not None)
    path = f"{API}/channels/{quote(channel, safe='')}/releases"
    assigned = hub.ask("POST", path, json={"digest": release["digest"]})
    return Published(
        digest=str(release["digest"]),
        target=target,
        name=package.name,
        version=package.version,
        channel=channel,
        rollout=assigned.get("rollout"),
        serial=int(assigned.get("serial", 0)),
        files_sent=len(sent),
        bytes_sent=sum(sent.values()),
        files=len(package.index.entries),
        bytes=sum(entry.size for entry in package.index.entries),
    )


def _attest(hub: Hub, package: Package, documents: Documents, *, signs: bool) -> None:
    """Send what is known of how the package was built, and keep the signatures beside it.

    A release that waited in a folder is published without a key: what nobody has signed is not sent then.
    """
    if signs:
        provenance.write(package.root, documents)
        if not documents.is_signed:
            return
    # The provenance first: it names the bill of materials.
    for kind, data in (("provenance", documents.provenance), ("sbom", documents.bill)):
        hub.put(f"{API}/releases/{package.digest}/attestations/{kind}", data)
