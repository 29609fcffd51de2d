"""Links of sources and sinks to their brokers: the agent's own, or one of their settings."""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from edge_agent.flow_settings import BrokerSettings
from edge_agent.flows.ports import Trouble
from edgeloop.protocol.link import Link


class Device(NamedTuple):
    """Who this agent is on a broker, and the broker of its own messages."""

    fleet: str
    name: str
    host: str
    port: int
    username: str | None
    password: str | None


def open_link(device: Device, broker: BrokerSettings | None, role: str, **options: Any) -> Link:
    """A link that is not started yet.

    Args:
        device: who this is.
        broker: of the settings, or None for the agent's own.
        role: what makes the client id differ from the agent's others: ``source-door``.
        options: more of `Link`.

    Raises:
        Trouble: the certificates cannot be read.
    """
    client_id = f"{device.fleet}-{device.name}-{role}"
    if broker is None:
        return Link(device.host, device.port, client_id, username=device.username, password=device.password, **options)
    try:
        tls = ssl.create_default_context(cafile=broker.ca_file) if broker.tls else None
    except (OSError, ssl.SSLError) as error:
        raise Trouble(f"{broker.ca_file} cannot be read as certificates: {error}") from error
    return Link(
        broker.host, broker.port, client_id, username=broker.username, password=broker.password, tls=tls, **options
    )
