"""Observing and messaging of an agent, joined as the agent's composition root does, without the data plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_agent.messaging import Identity, Messaging
from edge_agent.observing.assembly import Observing
from edge_agent.observing.pace import ReplayRules
from edge_agent.observing.sender import Sender
from edge_agent.ports import UpdateStatus, Vitals
from edge_agent.trust.open import OpenTrust
from edgeloop.protocol.link import Link
from tests.integration.toy_hub import FLEET


class RecordingUpdates:
    """The update machine, as far as messaging sees it: notes what it was told to follow."""

    def __init__(self) -> None:
        self.followed: list[Any] = []

    def follow(self, document: Any) -> None:
        self.followed.append(document)

    def status(self) -> UpdateStatus:
        return UpdateStatus("committed", "sha256:" + "a" * 64, "works", None, 1, 0.0)

    def committed(self) -> str | None:
        return "sha256:" + "a" * 64

    def previous(self) -> str | None:
        return None


class AgentParts:
    """An agent without serving and updates, following the channel ``stable`` as ``dev-1``."""

    def __init__(self, folder: Path, port: int, version: int | None = None, **options: Any) -> None:
        replay = ReplayRules(500.0, 1e7, 0.2)
        self.observing = Observing(
            folder / "agent.db", **{"window_s": 60.0, "replay": replay, **options}, closed=self._closed
        )
        self.updates = RecordingUpdates()
        identity = Identity(FLEET, "dev-1", "stable", "0.1.0")
        self.messaging = Messaging(
            identity,
            self.observing.store,
            lambda will: Link("127.0.0.1", port, "agent", will=will, backoff_s=(0.05, 0.3), version=version),
            self._sender,
            recorder=self.observing.recorder,
            policies={"insights": self.observing.policy.take},
            trust=OpenTrust(),
            ledger=self.observing.ledger,
            vitals=lambda: Vitals("cpu-int8", "CPUExecutionProvider", {"CPUExecutionProvider": 3}, {"disk_free": 5}),
            report_s=0.5,
        )

    def _sender(self, link: Link) -> Sender:
        return Sender(
            self.observing.outbox,
            self.observing.store.epoch,
            link,
            device="dev-1",
            topic=f"edgeloop/v1/{FLEET}/d/dev-1/insights",
            channel=lambda: self.messaging.channel,
            pace=self.observing.pace,
            ack_timeout_s=0.4,
        )

    def _closed(self) -> None:
        self.messaging.windows_closed()

    def start(self) -> None:
        self.observing.start()
        self.messaging.start(self.updates)

    def stop(self) -> None:
        self.observing.recorder.stop()
        self.messaging.stop()
        self.observing.stop()
