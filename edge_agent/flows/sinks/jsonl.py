"""A file with one result a line: bounded, rotated, and whole after a kill.

A killed agent loses nothing that was written; a power cut loses what was not forced to the disk yet, which the settings
bound. With ``fsync = "always"`` a result counts as delivered only when it is on the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from edge_agent.flow_settings import JsonlSinkSettings
from edge_agent.flows.backoff import Backoff
from edge_agent.flows.lines import LinesFile
from edge_agent.flows.ports import Result, Stopped, Trouble
from edge_agent.logs import Log

log = Log(__name__)

RETRY_S = (0.1, 10.0)


class JsonlSink:
    """Implements `edge_agent.flows.ports.Sink`.

    Args:
        settings: see docs/reference/flows.md.
    """

    def __init__(self, settings: JsonlSinkSettings) -> None:
        self.name, self._settings = settings.name, settings
        self._lock = threading.Lock()
        self._file: LinesFile | None = None
        self._unsynced = False
        self._accepted = self._delivered = self._failures = 0
        self._trouble = ""
        self._stopping = threading.Event()
        self._syncing = threading.Thread(target=self._sync_now_and_then, name=f"sink:{self.name}", daemon=True)

    def start(self) -> None:
        """Open the file; what a kill left of a line is cut off."""
        self._file = LinesFile(self._settings.path, self._settings.max_bytes, self._settings.keep)
        if self._file.repaired_bytes:
            log.warning("a torn line was cut off", file=str(self._settings.path), bytes=self._file.repaired_bytes)
        if self._settings.fsync == "interval":
            self._syncing.start()

    def put(self, result: Result, stopping: threading.Event) -> None:
        """Write the line; a full disk keeps the sources waiting."""
        backoff = Backoff(*RETRY_S)
        while not stopping.is_set() and not self._stopping.is_set():
            try:
                with self._lock:
                    self._write(result.document)
                    return
            except Trouble as error:
                self._failures += 1
                if str(error) != self._trouble:
                    log.warning("a sink cannot write; it is tried again", sink=self.name, reason=str(error))
                self._trouble = str(error)
            stopping.wait(backoff.next())
        raise Stopped("the sink stops")

    def stop(self, timeout_s: float) -> None:
        """Force the rest to the disk, and close."""
        self._stopping.set()
        if self._syncing.ident is not None:
            self._syncing.join(timeout_s)
        with self._lock:
            self._sync()
            if self._file is not None:
                self._file.close()
                self._file = None

    def counts(self) -> Mapping[str, int]:
        """Running totals; nothing waits and nothing is dropped."""
        return {
            "accepted": self._accepted,
            "delivered": self._delivered,
            "failures": self._failures,
            "dropped": 0,
            "waiting": 0,
        }

    @property
    def trouble(self) -> str:
        """Why it does not write now, or ""."""
        return self._trouble

    def _write(self, document: bytes) -> None:
        if self._file is None:
            raise Stopped("the sink is closed")
        self._file.append(document)
        if self._settings.fsync == "always":
            self._file.sync()
        else:
            self._unsynced = True
        self._accepted += 1
        self._delivered += 1
        self._trouble = ""

    def _sync_now_and_then(self) -> None:
        while not self._stopping.wait(self._settings.fsync_s):
            with self._lock:
                self._sync()

    def _sync(self) -> None:
        if self._file is None or not self._unsynced or self._settings.fsync == "never":
            return
        try:
            self._file.sync()
            self._unsynced = False
        except Trouble as error:
            self._trouble = str(error)
