"""Models beside the channel's: packages in a folder of the device, loaded and unloaded by hand.

The model repository extension of the Open Inference Protocol asks for this. A package's name and version are its
manifest's; several versions of a name are served side by side. What lies in the folder passes the same audit and the
same golden cases as what comes from the hub.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.errors import BadRequest, Forbidden, NotFound
from edgeloop.package import MANIFEST, PackageError, read_manifest

log = Log(__name__)

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
#: Packages that are looked at; a folder full of other things must not take for ever.
MOST_PACKAGES = 256


class Refusal(Exception):
    """A package cannot be served here; the message says why."""


class Repository:
    """The packages of a folder."""

    def __init__(
        self, folder: Path | None, plane: DataPlane, load: Callable[[Path], LoadedRelease], *, allowed: bool
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            folder: whose sub-folders are packages; None: there are none.
            plane: serves them.
            load: audits and loads a package folder; raises `Refusal`.
            allowed: whether clients may load and unload.
        """
        self._folder, self._plane, self._load, self._allowed = folder, plane, load, allowed
        self._lock = threading.Lock()
        self._reasons: dict[tuple[str, str], str] = {}

    def load_all(self) -> None:
        """Load every package of the folder; one that is refused is left out, with its reason in the index."""
        with self._lock:
            for key, path in self._packages():
                try:
                    self._load_one(key, path)
                except Refusal as error:
                    log.error("a package of the repository is refused", folder=str(path), reason=str(error))

    def index(self, ready_only: bool = False) -> list[dict[str, str]]:
        """Every model: ``name``, ``version``, ``state`` and, if it does not serve, the ``reason``."""
        with self._lock:
            serving = {(s["name"], s["version"]) for s in self._plane.statistics(None, None)}
            known = dict.fromkeys([*serving, *(key for key, _ in self._packages())])
            found = [
                {"name": name, "version": version, "state": READY, "reason": ""}
                if (name, version) in serving
                else {
                    "name": name,
                    "version": version,
                    "state": UNAVAILABLE,
                    "reason": self._reasons.get((name, version), "unloaded"),
                }
                for name, version in sorted(known)
            ]
        return [entry for entry in found if entry["state"] == READY or not ready_only]

    def load(self, name: str) -> None:
        """Load every version of a model, anew where it serves already.

        Raises:
            Forbidden: the owner has not allowed it, or the model is the channel's.
            NotFound: there is no such package.
            BadRequest: a package is refused; the message says why.
        """
        self._check(name)
        with self._lock:
            chosen = [(key, path) for key, path in self._packages() if key[0] == name]
            if not chosen:
                raise NotFound(f"there is no package of the name {name:.200} in the repository")
            try:
                for key, path in chosen:
                    self._load_one(key, path)
            except Refusal as error:
                raise BadRequest(f"{name} cannot be loaded: {error}") from error

    def unload(self, name: str) -> None:
        """Serve no version of a model any more; requests that are under way end first.

        Raises:
            Forbidden: the owner has not allowed it, or the model is the channel's.
            NotFound: no such model was loaded from the repository.
        """
        self._check(name)
        with self._lock:
            versions = [version for other, version in self._plane.others() if other == name]
            if not versions:
                raise NotFound(f"no model {name:.200} was loaded from the repository")
            for version in versions:
                self._plane.remove(name, version)

    def _check(self, name: str) -> None:
        if not self._allowed:
            raise Forbidden("this agent's owner has not allowed to load and unload models (repository_api)")
        loaded = self._plane.loaded
        if loaded is not None and loaded.package.name == name:
            raise Forbidden(f"{name:.200} is the channel's model; its releases come from the hub")

    def _load_one(self, key: tuple[str, str], path: Path) -> None:
        try:
            loaded = self._load(path)
            if (loaded.package.name, loaded.package.version) != key:
                loaded.session.close()
                raise Refusal("it has been changed while it was read; try again")
            self._plane.add(loaded)
        except Refusal as error:
            self._reasons[key] = str(error)
            raise
        self._reasons.pop(key, None)

    def _packages(self) -> Iterator[tuple[tuple[str, str], Path]]:
        """Name and version of each package, and its folder."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir())[:MOST_PACKAGES]:
            if path.is_symlink() or not (path / MANIFEST).is_file():
                continue
            try:
                manifest = read_manifest(path)
            except PackageError as error:
                log.warning("a folder of the repository is no package", folder=str(path), reason=str(error))
                continue
            yield (manifest.name, manifest.version), path
