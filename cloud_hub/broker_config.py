"""What Mosquitto is told: its configuration, and its access rules. The hub's own child and one elsewhere get the same.

A device has the rights that its block in the rules gives it, and who has no block has none: not the bearer of a
certificate of the same authority that no device of the fleet has, and not a device that was revoked.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.protocol import MAX_BYTES, Topics
from edgeloop.protocol.topics import DEVICE_KINDS, DeviceKind

#: What a device sends; the others it only reads.
DEVICE_WRITES: tuple[DeviceKind, ...] = ("presence", "reported", "insights", "samples", "escalations")


@dataclass(frozen=True)
class BrokerFiles:
    """Where Mosquitto finds what it needs for mutual TLS.

    Attributes:
        ca: certificates by which clients are known.
        crl: revoked ones, or None where nobody keeps a list.
        certificate: its own, with its chain.
        key: of that.
        rules: who may do what.
    """

    ca: Path
    crl: Path | None
    certificate: Path
    key: Path
    rules: Path


def mosquitto_config(host: str, port: int, files: BrokerFiles | None, user: str | None = None) -> str:
    """A whole configuration: one listener, nothing stored.

    Args:
        host: address that it listens on.
        port: its port.
        files: for mutual TLS; None for a hub that is insecure: whoever reaches the address may do all.
        user: that Mosquitto runs as when root starts it; None for the present one: as another one it could not be tied
            to the hub's life, nor read a private data folder.
    """
    lines = [
        f"listener {port} {host}",
        *(["allow_anonymous true"] if files is None else _mutual_tls(files)),
        f"user {user or getpass.getuser()}",
        "persistence false",
        f"max_packet_size {MAX_BYTES + 4096}",
        # The defaults (20 in flight, 1,000 queued) are small for a hub that acknowledges by batch.
        "max_inflight_messages 1000",
        "max_queued_messages 20000",
        f"max_queued_bytes {256 << 20}",
        # Of a device that does not come back nothing is kept for ever.
        "persistent_client_expiration 14d",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    return "\n".join([*lines, ""])


def _mutual_tls(files: BrokerFiles) -> list[str]:
    return [
        f"cafile {files.ca}",
        *([f"crlfile {files.crl}"] if files.crl is not None else []),
        f"certfile {files.certificate}",
        f"keyfile {files.key}",
        "tls_version tlsv1.2",
        "require_certificate true",
        # A client's name is its certificate's, and its client id is its name: nobody takes over another's session.
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {files.rules}",
    ]


def mosquitto_rules(topics: Topics, hub: str, observer: str, rights: Mapping[str, Sequence[str]]) -> str:
    """The access rules: a block for the hub, one for who looks on, and one for each device.

    Args:
        topics: of the fleet.
        hub: name of the hub's own client.
        observer: name of the client that reads everything.
        rights: device → channels that it may read.
    """
    # What stands before the first user is for everybody: nothing.
    blocks = [f"user {hub}\ntopic readwrite {topics.everything}", f"user {observer}\ntopic read {topics.everything}"]
    for device, channels in rights.items():
        lines = [f"user {device}"]
        for kind in DEVICE_KINDS:
            way = "write" if kind in DEVICE_WRITES else "read"
            lines.append(f"topic {way} {topics.device(kind, device)}")
        lines += [f"topic read {topics.channel(channel)}" for channel in channels]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, ""])
