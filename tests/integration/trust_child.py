"""A hub's channels and signatures in a process to be killed: changes one channel as fast as it can.

``python -m tests.integration.trust_child FOLDER``: what it would publish last is in ``FOLDER/sent``; what people sign
is taken from ``FOLDER/people/<role>.json``. Without that it ends once its keys are made.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

from cloud_hub.blobs import Blobs
from cloud_hub.channels import Channels
from cloud_hub.records.database import Database
from cloud_hub.releases import Releases
from cloud_hub.trust.key_files import KeyFiles
from cloud_hub.trust.online import OnlineTrust
from edgeloop.protocol import Topics

CHANNEL = "stable"


class Sent:
    """Keeps the newest payload, as a broker does a retained one."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> bool:
        fresh = self.place.with_suffix(".new")
        fresh.write_bytes(payload)
        fresh.replace(self.place)
        return True


def main(folder: Path) -> None:
    db = Database.in_folder(folder)
    db.migrate()
    keys = KeyFiles(folder / "trust" / "keys")
    keys.ensure()
    trust = OnlineTrust(db, keys)
    releases = Releases(db, Blobs(folder / "blobs"), folder / "releases")
    channels = Channels(db, releases, Topics("test"), Sent(folder / "sent"), hub_url=lambda: "http://hub", sealer=trust)
    trust.tells(channels.publish_all)
    trust.keeps(channels.in_use)
    (folder / "online.json").write_text(json.dumps(trust.view().to_document("test", signed=True)))
    people = sorted((folder / "people").glob("*.json"))  # root before targets
    for file in people:
        trust.accept(file.stem, file.read_bytes())
    trust.tick()
    channels.publish_all()
    (folder / "started").touch()
    for turn in itertools.count() if people else ():
        channels.set_policy(CHANNEL, {"insights": {"bytes_per_day": 100_000 + turn % 1000}})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
