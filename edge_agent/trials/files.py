"""Files of a trial: a folder of their own beside those of releases, gone with the trial.

What a kept release has already is linked in and not fetched: candidates share most tensors with what serves.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.updates.blobs import ReleaseFiles
from edgeloop.package import IndexEntry

FOLDER = "trial"


class TrialFiles(ReleaseFiles):
    """``<data>/trial``; ``data`` of it is that folder, so a quota on it bounds the trial alone."""

    def __init__(self, data: Path) -> None:
        """Begin with an empty folder.

        Args:
            data: the agent's.
        """
        self._releases = data / "blobs"
        folder = data / FOLDER
        remove(data)
        folder.mkdir()
        super().__init__(folder)

    def has(self, entry: IndexEntry) -> bool:
        """Whether a file is here, or with a release. The audit checks its bytes."""
        if super().has(entry):
            return True
        try:
            os.link(self._releases / entry.sha256, self.blob(entry.sha256))
        except OSError:
            return False
        return super().has(entry)


def remove(data: Path) -> None:
    """Remove what a trial has left in the agent's folder.

    Raises:
        OSError: something could not be removed.
    """
    import shutil

    if (data / FOLDER).exists():
        shutil.rmtree(data / FOLDER)
