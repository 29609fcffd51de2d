"""Keeps the broker's rules as the records say, and has it go by them before anybody is told of a change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from cloud_hub.broker_config import BrokerFiles, mosquitto_rules
from cloud_hub.identity.certificates import hub_name, observer_name
from cloud_hub.identity.registry import Registry
from edgeloop.protocol import Topics
from edgeloop.whole_files import make_private_folder, write_whole

FOLDER, CA, CRL, RULES = "broker", "ca.crt", "crl.pem", "rules.acl"


class BrokerAccess:
    """The files in ``<data>/broker`` from which Mosquitto takes who may do what.

    Args:
        data: the hub's data folder; absolute, since the broker may run elsewhere.
        registry: of the devices.
        topics: of the fleet.

    Attributes:
        files: where they are.
    """

    def __init__(self, data: Path, registry: Registry, topics: Topics) -> None:
        self._folder, self._registry, self._topics = data / FOLDER, registry, topics
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._asked = self._done = 0
        self._restart = False
        self._reload: Callable[[bool], None] = lambda _restart: None
        make_private_folder(data / FOLDER)
        self._write()
        self.files = files_in(data)

    def reloads(self, reload: Callable[[bool], None]) -> None:
        """Have ``reload(restart)`` called after the files have changed; it returns when the broker goes by them.

        ``restart`` says that connections have to end: a certificate was revoked, or the broker's own is a new one.
        """
        self._reload = reload

    def changed(self, restart: bool) -> None:
        """Write the files anew and have them read. Several callers at once are served together.

        Raises:
            OSError: the files cannot be written; the broker goes by those before.
        """
        with self._counting:
            self._asked += 1
            mine = self._asked
            self._restart |= restart
        with self._lock:
            if self._done >= mine:
                return
            with self._counting:
                upto, restart, self._restart = self._asked, self._restart, False
            try:
                self._write()
                self._reload(restart)
            except BaseException:
                with self._counting:
                    self._restart |= restart
                raise
            self._done = upto

    def _write(self) -> None:
        write_whole(self._folder / CA, self._registry.anchors)
        crl, file = self._registry.crl(), self._folder / CRL
        if crl is None:
            file.unlink(missing_ok=True)
        else:
            write_whole(file, crl)
        fleet = self._topics.fleet
        rules = mosquitto_rules(self._topics, hub_name(fleet), observer_name(fleet), self._registry.rights())
        write_whole(self._folder / RULES, rules.encode())


def files_in(data: Path) -> BrokerFiles:
    """Where a hub keeps what its broker needs."""
    folder, own = data / FOLDER, data / "identity"
    crl = folder / CRL
    return BrokerFiles(
        ca=folder / CA,
        crl=crl if crl.exists() else None,
        certificate=own / "server.crt",
        key=own / "server.key",
        rules=folder / RULES,
    )
