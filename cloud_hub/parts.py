"""Parts of a hub that take more than a line to make of its settings."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cloud_hub import exit_codes
from cloud_hub.access.grants import parse_grant
from cloud_hub.access.identify import Access
from cloud_hub.addresses import Addresses
from cloud_hub.broker import EmbeddedBroker, choose
from cloud_hub.errors import StartError
from cloud_hub.identities import Identities
from cloud_hub.records.database import Database
from cloud_hub.settings import Settings
from cloud_hub.training.bounded import Runner
from cloud_hub.trust.key_files import KeyFiles
from cloud_hub.trust.online import OnlineTrust
from edgeloop.protocol.link import Link

if TYPE_CHECKING:
    from cloud_hub.access.oidc import Provider

#: Acknowledgements of a batch come in thousands.
GATHER_S = 0.003
#: The largest Receive Maximum that MQTT 5 knows.
MAX_IN_FLIGHT = 65_535


def records(settings: Settings) -> Database:
    """The records, of this version.

    Raises:
        StartError: they cannot be used.
    """
    try:
        db = Database.in_folder(settings.data)
        db.migrate()
        db.check_writable()
    except Exception as error:  # Alembic and SQLAlchemy have no common root
        raise StartError(
            f"the records in {settings.data} cannot be used: {error}",
            "they may be damaged, of a newer version, or on a full disk; restore a copy, or name another folder",
            exit_codes.DATA_UNUSABLE,
        ) from error
    return db


def trust(settings: Settings, db: Database, clock: Callable[[], float]) -> OnlineTrust | None:
    """Who signs, with the keys that the hub holds; None: nothing is signed."""
    if settings.insecure:
        return None
    keys = KeyFiles(settings.data / "trust" / "keys")
    keys.ensure()
    return OnlineTrust(db, keys, clock=clock)


def broker(settings: Settings, identities: Identities | None) -> EmbeddedBroker | None:
    """The broker that runs as the hub's child, started; None: one runs elsewhere.

    Raises:
        StartError: it cannot start.
    """
    if settings.broker == "none":
        return None
    made = EmbeddedBroker(
        choose(settings.broker),
        settings.data / "broker",
        host=settings.broker_host,
        port=settings.broker_port,
        files=None if identities is None else identities.access.files,
    )
    made.start()
    return made


def link(
    settings: Settings, addresses: Addresses, broker: EmbeddedBroker | None, identities: Identities | None
) -> Link:
    """The hub's own connection to the broker; nothing is connected yet."""
    host, port = addresses.broker
    return Link(
        host,
        port,
        # A second client with the same id would drive this one out.
        f"cloud-hub-{secrets.token_hex(4)}",
        username=settings.broker_username,
        password=settings.broker_password,
        tls=identities.own.client_context if identities is not None and addresses.broker_tls else None,
        manual_ack=True,
        # What has no room here waits at the broker, which drops it when it has none either: devices send again.
        # Half of the queue: a read that has begun may bring more.
        gather_s=GATHER_S,
        receive_maximum=min(settings.ingest_queue // 2, MAX_IN_FLIGHT),
        max_queued=10_000,
        version=4 if broker is not None and broker.choice.kind == "amqtt" else None,
        backoff_s=(0.1, 5.0),
    )


def access(settings: Settings, db: Database, identities: Identities | None, clock: Callable[[], float]) -> Access:
    """Who asks the hub."""
    made = Access(
        db,
        settings.data,
        secure=not settings.insecure,
        rate=settings.request_rate,
        provider=_identity_provider(settings),
        session_s=settings.session_s,
        clock=clock,
    )
    if identities is not None:
        made.recognise = identities.registry.recognise
    return made


def runners(settings: Settings) -> Mapping[str, Runner]:
    """Where training programs may run, besides as children of the hub."""
    if not settings.ray_address:
        return {}
    from cloud_hub.training.ray_runner import RayRunner

    return {"ray": RayRunner(settings.ray_address, settings.ray_token)}


def _identity_provider(settings: Settings) -> Provider | None:
    if not settings.oidc_issuer:
        return None
    from cloud_hub.access.oidc import Client, Provider

    return Provider(
        Client(
            settings.oidc_issuer,
            settings.oidc_client_id,
            settings.oidc_client_secret,
            settings.oidc_audience or settings.oidc_client_id,
            settings.oidc_roles_claim,
            {value: parse_grant(grant) for value, grant in settings.oidc_roles.items()},
        )
    )
