"""Somebody who signs releases for a small hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import Signer

from model_export.errors import ExportError
from model_export.hub import Hub
from model_export.trust.folder import TrustFolder
from model_export.trust.signing import ReleaseSigner
from tests.doubles.secure_fleet import Named
from tests.unit.export.small_hub import SmallHub


class Publisher:
    """Somebody with a folder and a key."""

    def __init__(self, hub: SmallHub, folder: Path, *signers: Signer) -> None:
        assert hub.fleet is not None
        self.hub, self.folder, self.signers = hub, TrustFolder(folder), signers
        self.folder.write_bytes("root", 1, hub.fleet.pinned)

    def sign(self, package: Any) -> str:
        with Hub(self.hub.url, pause_s=0.001) as hub:
            return str(ReleaseSigner(hub, self.folder, self.signers).sign(package))

    def refused(self, kind: type[ExportError], why: str, package: Any = None) -> ExportError:
        with pytest.raises(kind, match=why) as caught:
            self.sign(package or Named("99"))
        return caught.value
