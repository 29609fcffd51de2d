"""A device on which a release is already committed: what the update machine would have left behind, without a hub."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from edge_agent.updates import rules
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.rules import Offer
from edge_agent.updates.store import Installed, UpdateStore
from edgeloop.package import Package, required_paths


def install(package: Package, data: Path, *, variant: str | None = None, provider: str = "CPUExecutionProvider") -> str:
    """Commit a package in a data folder; returns its digest. An agent that starts on the folder serves it at once."""
    files = ReleaseFiles(data)
    files.save_index(package.index)
    entries = required_paths(package.manifest, package.index, None)
    for entry in entries:
        if not files.has(entry):
            shutil.copyfile(package.root / entry.path, files.part(entry.sha256))
            files.place(entry.sha256)
    files.assemble(package.digest, entries)
    store = UpdateStore(data / "updates.db")
    offer = Offer(package.digest, package.name, package.version, None, "")
    now = time.time()
    store.begin(offer, rules.FETCHING, "installed by a test", now)
    for state in (rules.VERIFYING, rules.STAGED, rules.TESTING, rules.PROBATION):
        store.move(state, "installed by a test", now)
    store.commit(Installed(package.digest, variant or next(iter(package.variants)), provider), "a test", now)
    store.close()
    return package.digest
