"""The composition root: the only place that picks the hub's adapters and joins its parts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from cloud_hub import parts
from cloud_hub.accuracy import FleetAccuracy
from cloud_hub.addresses import Addresses
from cloud_hub.alarms import Alarms
from cloud_hub.announce import Announcer
from cloud_hub.attestations import Attestations, Unwitnessed
from cloud_hub.blobs import Blobs
from cloud_hub.channels import Channels
from cloud_hub.costs import Costs
from cloud_hub.data_folder import DataFolder
from cloud_hub.devices import Devices
from cloud_hub.drift import DriftWatch
from cloud_hub.errors import NotFound
from cloud_hub.escalations.teaching import Teaching
from cloud_hub.identities import RENEWAL_TICK_S, Identities
from cloud_hub.ingest import KINDS, Ingest
from cloud_hub.insights_store import InsightStore
from cloud_hub.labels import Labels
from cloud_hub.light_rows import Layout
from cloud_hub.light_windows import LightWindows
from cloud_hub.lineage import Lineages
from cloud_hub.quarantine import Quarantine
from cloud_hub.releases import Releases
from cloud_hub.retention import Keep, Retention
from cloud_hub.rollouts import Rollouts
from cloud_hub.samples.keeping import Samples
from cloud_hub.sealing import Unsigned
from cloud_hub.settings import Settings
from cloud_hub.supervise import Supervisor, every
from cloud_hub.training.command_trainer import CommandTrainer
from cloud_hub.training.head_trainer import HeadTrainer
from cloud_hub.training.runs import Training
from cloud_hub.trials import Trials
from cloud_hub.trust.view import NOTHING, TrustView
from cloud_hub.trust.witness import Witness
from cloud_hub.webhooks import Webhooks
from edgeloop.protocol import Topics

log = logging.getLogger(__name__)

ROLLOUTS_TICK_S = 0.5
DRIFT_TICK_S = 1.0
RETENTION_TICK_S = 10.0
TRAINING_TICK_S = 1.0
WEBHOOKS_TICK_S = 0.5
TRIALS_TICK_S = 0.5
COSTS_TICK_S = 10.0
TRUST_TICK_S = 10.0


class Hub:
    """A hub with everything embedded. `start` it, serve ``cloud_hub.api.app.create_api(hub)``, `stop` it.

    Args:
        settings: what it is started with.
        http_port: the port that the HTTP interface really has, when the settings leave the choice open.
        clock: unix seconds.

    Raises:
        StartError: it cannot start with these settings on this machine.
    """

    def __init__(
        self, settings: Settings, *, http_port: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings, self.clock = settings, clock
        with ExitStack() as opened:  # a hub that cannot start leaves nothing open
            self._open(opened, settings.listen_port if http_port is None else http_port)
            self._join()
            self._opened = opened.pop_all()

    def _open(self, opened: ExitStack, http_port: int) -> None:
        """Take what may not be there for a hub: its folder, its records, its keys and its broker."""
        settings, clock = self.settings, self.clock
        self.folder = DataFolder(settings.data)
        opened.callback(self.folder.close)
        self.db = parts.records(settings)
        opened.callback(self.db.close)
        self.topics = Topics(settings.fleet)
        self.trust = parts.trust(settings, self.db, clock)
        self.identities = None
        if not settings.insecure:
            self.identities = Identities(settings, self.db, self.topics, self._roots, clock=clock)
        self.broker = parts.broker(settings, self.identities)
        if self.broker is not None:
            opened.callback(self.broker.stop)
        self.addresses = Addresses(settings, http_port, self.broker)

    def _join(self) -> None:
        """Make the parts and let them know of one another."""
        settings, topics, clock = self.settings, self.topics, self.clock
        self.access = parts.access(settings, self.db, self.identities, clock)
        self.workers = Supervisor()
        self.link = parts.link(settings, self.addresses, self.broker, self.identities)
        self.announcer = Announcer(self.link)
        self.blobs = Blobs(settings.data / "blobs", max_bytes=settings.max_blob_bytes)
        self.releases = Releases(self.db, self.blobs, settings.data / "releases", clock=clock)
        sealer = self.trust or Unsigned()
        self.attestations = Attestations(
            self.db,
            settings.data / "attestations",
            self.releases,
            witness=Unwitnessed() if self.trust is None else Witness(self.db, self.trust.keys),
            clock=clock,
        )
        self.channels = Channels(
            self.db,
            self.releases,
            topics,
            self.announcer,
            hub_url=lambda: self.addresses.public_url,
            sealer=sealer,
            clock=clock,
        )
        self.devices = Devices(self.db, topics, self.announcer, sealer=sealer, moved=self._publish_channel, clock=clock)
        self._steer_trust()
        self.insights = InsightStore(
            self.db, self.releases.schema, interval_s=settings.insights_interval_s, clock=clock
        )
        self.accuracy = FleetAccuracy(self.channels, self.releases, self.insights, clock=clock)
        self.retention = Retention(
            self.db,
            self.insights,
            Keep(settings.keep_intervals_s, settings.keep_hours_s, settings.keep_days_s),
            clock=clock,
        )
        self.quarantine = Quarantine(self.db, rows_each=settings.quarantine_rows)
        self.costs = Costs(self.db, self.releases, clock=clock)
        self.ingest = Ingest(
            self.db,
            self.devices,
            self.insights,
            self.quarantine,
            topics,
            self.announcer,
            known_channel=lambda name: self.channels.find(name) is not None,
            account=self.costs.count,
            queue=settings.ingest_queue,
            batch=settings.ingest_batch,
            clock=clock,
        )
        self.rollouts = Rollouts(self.db, self.channels, self.releases, self.devices, self.insights, clock=clock)
        self.webhooks = Webhooks(self.db, clock=clock)
        self.alarms = Alarms(self.db, self.webhooks.tell_alarm)
        self.light = LightWindows(self.db, self._layout_of, clock=clock)
        self.ingest.observes(self.light.observed)
        self.drift = DriftWatch(
            self.db, self.channels, self.releases, self.insights, self.alarms, self.light, clock=clock
        )
        self.samples = Samples(
            settings.data,
            self.db,
            self.quarantine,
            self.channels,
            self.releases,
            topics,
            self.announcer,
            most_bytes=settings.samples_max_bytes,
            may_follow=self._may_follow,
            clock=clock,
        )
        self.training = Training(
            self.db,
            self.channels,
            self.releases,
            self.alarms,
            self.accuracy,
            self.rollouts,
            settings.data / "training",
            [
                HeadTrainer(self.db, self.insights),
                CommandTrainer(settings.training_programs, self.samples.datasets, parts.runners(settings)),
            ],
            at_once=settings.training_at_once,
            sealer=sealer,
            record=self.attestations.record,
            stopped=partial(self.costs.stopped, "training"),
            clock=clock,
        )
        self.labels = Labels(self.db, self.devices, topics, self.announcer)
        self.teaching = Teaching(
            settings,
            self.db,
            self.quarantine,
            self.channels,
            self.releases,
            topics,
            self.announcer,
            may_follow=self._may_follow,
            stopped=partial(self.costs.stopped, "escalations"),
            online=self._online,
            clock=clock,
        )
        self.trials = Trials(self.db, self.blobs, self.releases, self.devices, clock=clock)
        self.lineages = Lineages(self.db, settings.data / "attestations")
        if self.identities is not None:
            self.identities.steer(self.broker, self.link)
        self._subscribe(topics)

    @property
    def restarts(self) -> int:
        """Times that the embedded broker was started again."""
        return 0 if self.broker is None else self.broker.restarts

    def start(self) -> None:
        """Begin to work: connect, and start the background work."""
        if self.trust is not None:
            self.trust.tick()
        self.workers.start("ingest", self.ingest.run)
        self.workers.start("announce", self.announcer.run)
        self.workers.start("rollouts", every(ROLLOUTS_TICK_S, self.rollouts.tick))
        self.workers.start("drift", every(DRIFT_TICK_S, self.drift.tick))
        self.workers.start("retention", every(RETENTION_TICK_S, self.retention.work))
        self.workers.start("training", every(TRAINING_TICK_S, self.training.tick))
        self.workers.start("costs", every(COSTS_TICK_S, self.costs.tick))
        self.workers.start("trials", every(TRIALS_TICK_S, self.trials.tick))
        self.workers.start("webhooks", every(WEBHOOKS_TICK_S, self.webhooks.tick))
        self.teaching.start(self.workers)
        self.samples.start(self.workers)
        if self.trust is not None:
            self.workers.start("trust", every(TRUST_TICK_S, self.trust.tick))
        if self.identities is not None:
            self.workers.start("certificates", every(RENEWAL_TICK_S, self.identities.renew_own))
        self.link.start()

    def stop(self) -> None:
        """Stop in order: runs, decisions, then ingest with its last acknowledgements, then broker and records."""
        self.training.stop(self.settings.stop_timeout_s / 4)  # a program that trains may take a while to end
        self.teaching.close(self.settings.stop_timeout_s / 4)
        self.workers.stop(self.settings.stop_timeout_s)
        self.link.stop(2.0)
        self.light.flush()
        self._opened.close()

    def trust_view(self) -> TrustView:
        """Who signs what, and what people have to do."""
        return NOTHING if self.trust is None else self.trust.view()

    def checks(self) -> dict[str, str]:
        """What the hub needs → why it does not have it, or "" where all is well."""
        host, port = self.addresses.broker
        broker = "" if self.link.connected else f"not connected to the broker at {host}:{port}: {self.link.last_error}"
        try:
            self.db.check_writable()
            records = ""
        except SQLAlchemyError as error:
            records = f"the records cannot be written: {error.__cause__ or error}"
        dead = [state.name for state in self.workers.states if not state.alive]
        return {"broker": broker, "records": records, "workers": f"not running: {', '.join(dead)}" if dead else ""}

    def _roots(self) -> Iterator[bytes]:
        """Every version of the signed root, the newest first."""
        if self.trust is not None:
            for version in range(self.trust.version("root"), 0, -1):
                yield self.trust.newest("root", version)

    def _may_follow(self, device: str, channel: str) -> bool:
        return self.identities is None or self.identities.registry.may_follow(device, channel)

    def _online(self, device: str) -> bool:
        try:
            return self.devices.get(device).online
        except NotFound:
            return False

    def _publish_channel(self, channel: str) -> None:
        if self.identities is not None:
            self.identities.registry.changed()  # the device may read it before it is told to
        if self.channels.find(channel) is not None:
            self.channels.publish(channel)

    def _layout_of(self, release: str) -> Layout | None:
        profile = self.releases.profile(release)
        return None if profile is None else Layout(profile.schema, profile.reference)

    def _steer_trust(self) -> None:
        if self.trust is not None:
            self.trust.tells(self.channels.publish_all)
            self.trust.tells(self.devices.publish_all)
            self.trust.keeps(self.channels.in_use)

    def _subscribe(self, topics: Topics) -> None:
        self.announcer.announces(self.channels.publish_all)
        self.announcer.announces(self.devices.publish_all)
        self.link.on_connect(self.ingest.connected)
        for kind in KINDS:
            self.link.subscribe(topics.every(kind), self.ingest.submit)
        self.link.subscribe(topics.every("escalations"), self.teaching.office.submit)
        self.link.subscribe(topics.every("samples"), self.samples.intake.submit)
