"""Who may do what in a hub that is not insecure, put together: certificates, tokens, and the broker's rules."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from cloud_hub.broker import EmbeddedBroker
from cloud_hub.broker_access import BrokerAccess
from cloud_hub.errors import HubError
from cloud_hub.identity.enrolments import Enrolment, Enrolments, Redeemed
from cloud_hub.identity.own import OwnIdentity
from cloud_hub.identity.registry import Registry
from cloud_hub.records.database import Database
from cloud_hub.settings import Settings, is_wildcard
from edgeloop.protocol import Topics
from edgeloop.protocol.enrolment import EnrolmentToken
from edgeloop.protocol.link import Link

log = logging.getLogger(__name__)

#: How often the hub looks whether its own certificates near their end.
RENEWAL_TICK_S = 600.0
#: How long the broker may take to have read its rules.
FENCE_S = 5.0
RELOAD_COMMAND_S = 60.0


class Identities:
    """Identities of the hub and of its devices.

    Args:
        settings: of the hub.
        db: the records.
        topics: of the fleet.
        roots: gives every version of the root metadata of signed releases, the newest first.
        clock: unix seconds.

    Attributes:
        own: the hub's own certificates.
        registry: the devices' certificates.
        enrolments: the tokens.
        access: the broker's rules.

    Raises:
        StartError: certificates cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        topics: Topics,
        roots: Callable[[], Iterator[bytes]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._topics = settings, topics
        self.own = OwnIdentity(settings, clock=clock)
        self.registry = Registry(
            db,
            self.own.authority,
            days=settings.certificate_days,
            grace_days=settings.certificate_grace_days,
            clock=clock,
        )
        reuse = not settings.ca_command or settings.crl_file is not None
        self.enrolments = Enrolments(db, self.registry, clock=clock, reuse=reuse)
        self.access = BrokerAccess(settings.data.absolute(), self.registry, topics)
        self.registry.on_change(self.access.changed)
        self._roots = roots

    def steer(self, broker: EmbeddedBroker | None, link: Link) -> None:
        """Have this broker go by the rules; ``link`` is the hub's own."""

        def reload(restart: bool) -> None:
            if broker is None:
                self._run_command(restart)
            elif not broker.mutual_tls:
                return
            elif restart:
                broker.restart()
            else:
                broker.reload()
                # Mosquitto reads them between two rounds of its loop: a second answer is from after that.
                for _ in range(2):
                    link.confirm(self._topics.fence(), b"", timeout_s=FENCE_S)

        self.access.reloads(reload)

    def create_token(
        self, *, device: str, channels: Sequence[str], expires_s: float, uses: int, replaces: bool
    ) -> tuple[EnrolmentToken, Enrolment]:
        """A token that a person brings to a device; it is nowhere else. Raises as `Enrolments.create`."""
        token = EnrolmentToken.new(self.own.trust, next(self._roots(), None))
        made = self.enrolments.create(
            token, device=device, channels=channels, expires_s=expires_s, uses=uses, replaces=replaces
        )
        return token, made

    def redeem(self, token: EnrolmentToken, device: str, request: bytes) -> Redeemed:
        """Exchange a token for a certificate; raises as `Enrolments.redeem`."""
        return self.enrolments.redeem(token, device, request)

    def root_of(self, token: EnrolmentToken) -> bytes | None:
        """The root metadata that a token pins: the newest when it was made, which people may have replaced since."""
        pinned = (root for root in self._roots() if hashlib.sha256(root).hexdigest() == token.root)
        return next(pinned, None) if token.root else None

    def renew_own(self) -> None:
        """Background work: the hub's own certificates, and another authority's list of revoked ones."""
        if self.own.refresh() or self._list_changed():
            self.access.changed(True)

    def public_broker(self, port: int) -> tuple[str, int]:
        """Host and port at which devices reach the broker; the host is "" where it is that of the hub."""
        if self._settings.public_broker:
            host, _, given = self._settings.public_broker.rpartition(":")
            return host.strip("[]"), int(given)
        host = self._settings.broker_host
        return (urlsplit(self._settings.public_url).hostname or "") if is_wildcard(host) else host, port

    def _list_changed(self) -> bool:
        given, used = self._settings.crl_file, self.access.files.crl
        return given is not None and used is not None and given.read_bytes() != used.read_bytes()

    def _run_command(self, restart: bool) -> None:
        command = shlex.split(self._settings.broker_reload_command)
        if not command:
            log.warning(
                "who may do what has changed, and broker_reload_command is not set: have the broker read %s", self
            )
            return
        change = {"EDGELOOP_CHANGE": "restart" if restart else "reload"}
        try:
            subprocess.run(command, env={**os.environ, **change}, timeout=RELOAD_COMMAND_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise HubError(
                f"the broker could not be told of new rights: {error}", "mend broker_reload_command, then repeat"
            ) from error

    def __str__(self) -> str:
        """The folder that a broker elsewhere needs."""
        return str(self._settings.data / "broker")
