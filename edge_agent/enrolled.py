"""The settings of an enrolled device: what its enrolment says stands in for every setting that nobody has changed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from edge_agent.identity import GivenTls, Identity, IdentityError, TlsOf, require
from edge_agent.settings import Settings, SettingsError
from edgeloop.loopback import is_loopback


def with_identity(settings: Settings) -> tuple[Settings, Identity | None]:
    """The settings by which the agent runs, and who it is.

    Args:
        settings: as file and environment give them.

    Returns:
        With fleet, hub, broker and channel of the enrolment where they were left at their defaults; and the identity,
        None for an agent that is insecure.

    Raises:
        NotEnrolled: the agent needs an identity, and has none.
        IdentityError: the identity is damaged, or another device's.
        SettingsError: a source or sink would use the fleet's broker for topics of its own.
    """
    if settings.insecure:
        return settings, None
    identity = require(settings.data)
    if identity.device != settings.device:
        raise IdentityError(
            f"{settings.data} holds the identity of {identity.device}, and the settings say device = "
            f"{settings.device}: change the setting, or enrol this device again"
        )
    for flow in (*settings.sources, *settings.sinks):
        if getattr(flow, "broker", flow) is None:
            raise SettingsError(
                f"{flow.name}: the fleet's broker takes one connection of a device, and none of its other topics. "
                "Name a broker of its own: docs/reference/flows.md, broker"
            )
    said: dict[str, Any] = {
        "fleet": identity.fleet,
        "hub": identity.hub,
        "broker_host": identity.broker_host,
        "broker_port": identity.broker_port,
        "channel": identity.channels[0] if identity.channels else settings.channel,
    }
    defaults = {field.name: field.default for field in fields(Settings)}
    unchanged = {name: value for name, value in said.items() if getattr(settings, name) == defaults[name]}
    return replace(settings, **unchanged), identity


def broker_tls(settings: Settings, identity: Identity | None) -> TlsOf | GivenTls | None:
    """How the broker is spoken to: by files of the settings, else as the hub is; None: without TLS.

    Without it goes an insecure agent, and one whose broker is on this machine and was said to ask for nothing.
    """
    if settings.broker_ca is not None:
        return GivenTls(settings.broker_ca, settings.broker_certificate, settings.broker_key)
    if identity is None or (not identity.broker_tls and is_loopback(settings.broker_host)):
        return None
    return TlsOf(identity)
