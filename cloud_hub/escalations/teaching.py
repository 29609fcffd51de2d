"""Everything that has to do with teachers, put together, with its background work."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloud_hub.channels import Channels
from cloud_hub.escalations.labelling import Labelling
from cloud_hub.escalations.office import Office
from cloud_hub.escalations.records import EscalationRecords
from cloud_hub.escalations.thresholds import Thresholds
from cloud_hub.escalations.writing import Writing
from cloud_hub.ports import Publisher
from cloud_hub.quarantine import Quarantine
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from cloud_hub.settings import Settings
from cloud_hub.supervise import Supervisor, every
from cloud_hub.teachers.keys import Keys
from cloud_hub.teachers.kinds import Hiring
from cloud_hub.teachers.spending import Spending
from cloud_hub.teachers.staff import Staff
from edgeloop.protocol import Topics

TICK_S = 2.0
#: A device that is away for longer has forgotten the prediction, seconds.
TOLD_WITHIN_S = 86_400.0


class Teaching:
    """The teachers of a hub, and those who ask them.

    Args:
        settings: how much may wait, and how long records are kept.
        db: the records.
        quarantine: keeps messages that are none.
        channels: their policies.
        releases: whose classes are meant; packages that are teachers.
        topics: of the fleet.
        publisher: sends the answers.
        may_follow: whether a device may follow a channel.
        stopped: why no teacher may be asked for a channel now, or "".
        online: whether a device is connected.
        clock: unix seconds.

    Attributes:
        records: what was asked and answered.
        spending: what they have cost.
        staff: the teachers.
        office: takes escalations.
        labelling: what people are asked.
        thresholds: fits those of channels that have a target.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        quarantine: Quarantine,
        channels: Channels,
        releases: Releases,
        topics: Topics,
        publisher: Publisher,
        *,
        may_follow: Callable[[str, str], bool],
        stopped: Callable[[str], str],
        online: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._online, self._clock = settings, online, clock
        bounds = {"most": settings.escalation_queue, "most_bytes": settings.escalation_queue_bytes}
        self.records = EscalationRecords(db)
        self.writing = Writing(db, self.records, quarantine)
        self.spending = Spending(db, clock=clock)
        self.staff = Staff(db, Hiring(releases, Keys(settings.teacher_keys), self.spending), clock=clock, **bounds)
        self.labelling = Labelling(db, self.records, self.staff, channels, releases, clock=clock)
        self.thresholds = Thresholds(db, channels, releases, self.staff, self.records, clock=clock)
        self.office = Office(
            self.records,
            self.writing,
            self.staff,
            channels,
            releases.classes,
            topics,
            publisher,
            may_follow=may_follow,
            stopped=stopped,
            patience_s=settings.escalation_patience_s,
            clock=clock,
            **bounds,
        )

    def start(self, workers: Supervisor) -> None:
        """Start the background work."""
        workers.start("escalation-records", self.writing.run)
        workers.start("escalations", self.office.run)
        workers.start("labelling", every(TICK_S, self.tick))
        workers.start("thresholds", every(TICK_S, self.thresholds.tick))

    def tick(self) -> None:
        """Give up what nobody labels, tell devices that are back, and forget what is older than it is kept."""
        self.labelling.expire()
        self.tell()
        self.records.forget(self._clock(), self._settings.keep_escalations_s)

    def tell(self) -> None:
        """Send the labels that devices do not know yet to those that are connected."""
        since = self._clock() - TOLD_WITHIN_S
        for device in filter(self._online, self.records.left_untold(since)):
            sent = [one for one in self.records.untold(since, device) if self.office.tell(device, one.answer)]
            if sent:
                self.records.tell([record.number for record in sent])

    def close(self, timeout_s: float) -> None:
        """Ask no teacher any more; before the workers are stopped, so that answers are told and written."""
        self.staff.close(timeout_s)
