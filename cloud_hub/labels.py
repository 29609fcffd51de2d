"""Labels that people give in the cloud: passed on to the device that made the prediction, which counts them.

The hub keeps nothing of them: a label reaches its totals by the device's own windows, like every other, exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud_hub.access import audit
from cloud_hub.devices import Devices
from cloud_hub.errors import BadRequest, Conflict
from cloud_hub.ports import Publisher
from cloud_hub.records.database import Database
from edgeloop.protocol import Answers, ProtocolError, Topics

#: Items in one message; ``Answers`` takes no more.
ITEMS_A_MESSAGE = 1000


class Labels:
    """Sends labels to devices.

    Args:
        db: the records, for the audit log.
        devices: which there are, and which are connected.
        topics: of the fleet.
        publisher: sends the messages.
    """

    def __init__(self, db: Database, devices: Devices, topics: Topics, publisher: Publisher) -> None:
        self._db, self._devices, self._topics, self._publisher = db, devices, topics, publisher

    def send(self, device: str, items: Sequence[tuple[str, int | str]]) -> int:
        """Send labels of a device's earlier predictions; returns how many were sent.

        Args:
            device: the device.
            items: (prediction id, label), a label being a class's index or its name.

        Raises:
            NotFound: there is no such device.
            BadRequest: an id or a label is not one.
            Conflict: the device, or the hub, is not connected; nothing is kept for later.
        """
        if not self._devices.get(device).online:
            raise Conflict(f"the device {device} is not connected", "labels are not kept here: repeat when it is back")
        try:
            messages = [
                Answers(tuple(items[start : start + ITEMS_A_MESSAGE])).to_bytes()
                for start in range(0, len(items), ITEMS_A_MESSAGE)
            ]
        except ProtocolError as error:
            raise BadRequest(f"these are no labels: {error}", "an item has the prediction's id and a label") from error
        topic = self._topics.answers(device)
        with self._db.begin() as connection:
            audit.changed(connection, "labels.send", None, {"labels": len(items)}, about=device)
            if not all(self._publisher.publish(topic, message) for message in messages):
                raise Conflict(
                    "the hub is not connected to its broker", "a label that is sent twice counts once: repeat"
                )
        return len(items)
