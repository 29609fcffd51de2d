"""Whose word counts about how a release was made: the keys that the fleet's metadata name for its role."""

from __future__ import annotations

from collections.abc import Sequence

from securesystemslib.signer import Key, Signer

from cloud_hub.records.database import Database
from cloud_hub.trust import records
from cloud_hub.trust.key_files import KeyFiles
from cloud_hub.trust.signing import CannotSign, parse, usable
from edgeloop.protocol import ProtocolError
from edgeloop.trust import repository
from edgeloop.trust.errors import TrustError
from edgeloop.trust.names import RETRAINED, TARGETS, release_role


class Witness:
    """An `Attesting` of a fleet whose people have signed; until they have, nobody's signature is asked for.

    Args:
        db: the records.
        keys: the hub's.
    """

    def __init__(self, db: Database, keys: KeyFiles) -> None:
        self._db, self._keys = db, keys

    def keys(self, model: str, *, retrained: bool) -> Sequence[Key] | None:
        """Keys of a model's publishers, or of the hub's trainer for a release of the hub's own."""
        targets = self._targets()
        if targets is None:
            return None
        try:
            role = RETRAINED if retrained else release_role(model)
            return repository.keys_of(parse(targets).signed, role)[0]
        except (TrustError, ProtocolError):
            return []  # nobody publishes this model

    def trainer(self) -> Signer | None:
        """The newest key of ``retrained`` that the fleet's metadata name."""
        targets = self._targets()
        try:
            return None if targets is None else usable(self._keys.all(), parse(targets).signed, RETRAINED)[-1].signer
        except CannotSign:
            return None

    def _targets(self) -> bytes | None:
        with self._db.read() as connection:
            return records.find(connection, TARGETS)
