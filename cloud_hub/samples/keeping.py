"""Everything that has to do with samples, put together, with its background work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cloud_hub.access import audit
from cloud_hub.channels import Channels
from cloud_hub.errors import BadRequest
from cloud_hub.ports import Publisher
from cloud_hub.quarantine import Quarantine
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from cloud_hub.samples.dataset import SampleDatasets
from cloud_hub.samples.deletion import Checked, Deletions, verify
from cloud_hub.samples.files import SampleFiles
from cloud_hub.samples.intake import Intake, class_index
from cloud_hub.samples.store import SampleRow, SampleStore
from cloud_hub.supervise import Supervisor, every
from edgeloop.protocol import Topics

RETENTION_TICK_S = 10.0
#: Folders below the hub's data folder: of inputs, and of lists of what was deleted.
INPUTS, LISTS = "samples", "samples-deleted"


class Samples:
    """The samples of a hub.

    Args:
        data: the hub's data folder.
        db: the records.
        quarantine: keeps messages that are none.
        channels: what their owners ask for.
        releases: whose classes are meant.
        topics: of the fleet.
        publisher: sends acknowledgements.
        most_bytes: of all inputs.
        may_follow: whether a device may follow a channel.
        clock: unix seconds.

    Attributes:
        store: what is kept.
        intake: takes what devices send.
        deletions: deletes, and proves it.
        datasets: what training programs get.
    """

    def __init__(
        self,
        data: Path,
        db: Database,
        quarantine: Quarantine,
        channels: Channels,
        releases: Releases,
        topics: Topics,
        publisher: Publisher,
        *,
        most_bytes: int,
        may_follow: Callable[[str, str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._releases, self._clock = db, releases, clock
        self.store = SampleStore(db, SampleFiles(data / INPUTS), most_bytes=most_bytes, clock=clock)
        self.store.tidy()
        self.intake = Intake(
            db,
            self.store,
            quarantine,
            channels,
            releases.classes,
            topics,
            publisher,
            may_follow=may_follow,
            clock=clock,
        )
        self.deletions = Deletions(db, self.store, data / LISTS, clock=clock)
        self.datasets = SampleDatasets(self.store)

    def start(self, workers: Supervisor) -> None:
        """Start the background work."""
        workers.start("samples", self.intake.run)
        workers.start("samples-retention", every(RETENTION_TICK_S, self.tick))

    def tick(self) -> None:
        """Delete a part of what was kept long enough."""
        self.store.forget()

    def label(self, number: int, label: int | str | None) -> SampleRow:
        """Somebody says what is right of a sample; None takes back what somebody said.

        Raises:
            NotFound: there is no such sample.
            BadRequest: it is none of the classes of the release that answered.
        """
        sample = self.store.get(number)
        index = None
        if label is not None:
            names, count = self._releases.classes(sample.release)
            if (index := class_index(label, names, count)) is None:
                known = ", ".join(names[:20]) or f"0 … {count - 1}"
                raise BadRequest(f"{label!r:.80} is no class of {sample.release}", f"there are {known}")
        with self._db.begin() as connection:
            self.store.label(connection, number, index)
            audit.changed(connection, "samples.label", sample.label, index, about=f"samples/{number}", at=self._clock())
        return self.store.get(number)


def verify_folder(data: Path, db: Database) -> Checked:
    """Hold every deletion in a hub's data folder to its audit log, records and disk, with or without a hub."""
    store = SampleStore(db, SampleFiles(data / INPUTS), most_bytes=0)
    return verify(db, store, data / LISTS)
