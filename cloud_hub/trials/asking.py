"""Asking devices to measure candidates: one trial of a device at a time, in its ``desired`` document.

The answer stands in the document that the device reports, which the hub keeps anyway; so neither needs a topic of its
own, and both survive a restart on either side. Whether a device measures anything is its owner's choice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloud_hub.access import audit
from cloud_hub.access.principals import acting
from cloud_hub.blobs import Blobs
from cloud_hub.devices import Devices
from cloud_hub.errors import BadRequest, Conflict, NotFound
from cloud_hub.records.database import Database
from cloud_hub.releases import MAX_INDEX_BYTES, Releases, parse_index
from cloud_hub.trials import records
from cloud_hub.trials.records import ASKED, CANCELLED, DONE, EXPIRED, OPEN, QUEUED, REFUSED, Trial
from edgeloop.package import Index, Manifest, PackageError, required_paths
from edgeloop.package.documents import MAX_JSON_BYTES
from edgeloop.package.manifest import MANIFEST
from edgeloop.protocol import ProtocolError, TrialReport, TrialRequest, check_name

#: Trials that wait or are under way, of one device and of all.
MOST_EACH, MOST = 8, 256
#: Bytes of what a device would fetch, at most; its owner may allow less.
MOST_BYTES = 4 << 30
#: Files are kept for so long after a trial, seconds: the next candidates, or the release, mostly need the same.
FILES_KEPT_S = 3600.0
#: Seconds that a trial may take, from asking on.
LEAST_S, MOST_S = 10.0, 7 * 86400.0


class Trials:
    """The trials of a hub.

    Args:
        db: the records.
        blobs: where the files of candidates are.
        releases: says which files are those of releases.
        devices: carry wishes, and answers.
        clock: unix seconds.
    """

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        releases: Releases,
        devices: Devices,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db, self._blobs, self._releases, self._devices, self._clock = db, blobs, releases, devices, clock
        self._steered_all = False

    def ask(
        self,
        device: str,
        digest: str,
        *,
        variants: Sequence[str] = (),
        calls: int = 200,
        seconds: float = 900.0,
        check: Callable[[str], None] = lambda _model: None,
    ) -> Trial:
        """Have a device measure candidates whose files are here.

        Args:
            device: its name.
            digest: of the package's index, which is here as a blob.
            variants: that are measured; empty: all.
            calls: runs that are timed of each, at most.
            seconds: after which nobody waits any more.
            check: is given the model's name, and raises where the caller may not have it measured.

        Raises:
            NotFound: no such device has ever been here.
            BadRequest: the package, or what is asked, is not what it has to be.
            Conflict: files are missing, or too many trials wait.
        """
        _check_device(device)
        if not LEAST_S <= seconds <= MOST_S:
            raise BadRequest(f"a trial may take {LEAST_S:g} to {MOST_S:g} seconds, not {seconds:g}")
        self._devices.get(device)
        index, manifest = self._read(digest)
        check(manifest.name)
        self._check_files(index, manifest, variants)
        now, trial = self._clock(), f"t-{secrets.token_hex(8)}"
        try:
            size = len(index.to_bytes())
            request = TrialRequest(trial, digest, manifest.name, size, tuple(variants), calls).to_wire()
        except ProtocolError as error:
            raise BadRequest(str(error)) from error
        with self._db.begin() as connection:
            everyone, mine = records.count_open(connection, device)
            if mine >= MOST_EACH or everyone >= MOST:
                raise Conflict(
                    f"{mine} trials of {device} and {everyone} of all devices wait; at most {MOST_EACH} and {MOST} may",
                    "wait for them, or cancel some: GET /api/v1/trials lists them",
                )
            reason = "it waits for another trial of the device" if mine else "the device is asked"
            records.add(
                connection,
                Trial(
                    id=trial,
                    device=device,
                    model=manifest.name,
                    digest=digest,
                    state=QUEUED,
                    reason=reason,
                    asked_by=str(acting()),
                    created=now,
                    expires=now + seconds,
                    ended=None,
                    request=request,
                    report={},
                ),
            )
            audit.changed(connection, "trial.ask", None, {"device": device, "digest": digest}, about=trial, at=now)
        self._steer(device)
        return self.get(trial)

    def get(self, trial: str) -> Trial:
        """The trial with this id; raises `NotFound`."""
        with self._db.read() as connection:
            if (found := records.find(connection, trial)) is None:
                raise NotFound(f"there is no trial {trial[:80]!r}", "GET /api/v1/trials lists them")
            return found

    def newest(self, device: str | None = None, limit: int = 200) -> list[Trial]:
        """Trials, the newest first."""
        with self._db.read() as connection:
            return records.newest(connection, device, limit)

    def cancel(self, trial: str, reason: str) -> Trial:
        """End a trial; one that has ended is left as it is.

        Raises:
            NotFound: there is none.
        """
        found = self.get(trial)
        if found.state in OPEN:
            self._end(found, CANCELLED, reason)
            self._steer(found.device)
        return self.get(trial)

    # ── in the background ─────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """Take answers, end what nobody waits for any more, and ask for what is next."""
        with self._db.read() as connection:
            opened = records.open_ones(connection)
        devices = dict.fromkeys(trial.device for trial in opened)
        for trial in opened:
            self._look(trial)
        if not self._steered_all:  # a hub that was stopped between an end and the wish that follows from it
            self._steered_all = True
            devices |= dict.fromkeys(device.device for device in self._devices.all() if device.desired.get("trial"))
        for device in devices:
            self._steer(device)
        self._drop_files()

    def _look(self, trial: Trial) -> None:
        """What has become of one."""
        now = self._clock()
        report = self._report(trial) if trial.state == ASKED else None
        if report is not None and report.state in (DONE, REFUSED):
            self._end(trial, report.state, report.reason, report.to_wire())
        elif now >= trial.expires:
            said = str(trial.report.get("reason", "")) or "it is not connected, or knows no trials"
            self._end(trial, EXPIRED, f"{trial.device} has not answered in {now - trial.created:.0f} s: {said}")
        elif report is not None and (told := report.to_wire()) != trial.report:
            with self._db.begin() as connection:
                records.change(connection, trial.id, reason=report.reason, report=told)

    def _report(self, trial: Trial) -> TrialReport | None:
        """What the device says of this trial, in the document that it reported last."""
        try:
            said = self._devices.get(trial.device).reported.get("trial")
            report = None if said is None else TrialReport.from_wire(said)
        except (NotFound, ProtocolError):
            return None
        return report if report is not None and report.id == trial.id else None

    def _end(self, trial: Trial, state: str, reason: str, report: Mapping[str, Any] | None = None) -> None:
        now = self._clock()
        with self._db.begin() as connection:
            values = {} if report is None else {"report": report}
            records.change(connection, trial.id, state=state, reason=reason, ended=now, **values)
            audit.changed(connection, "trial.end", trial.state, state, about=trial.id, at=now)

    def _steer(self, device: str) -> None:
        """Have the device's wish name its oldest open trial, or none."""
        with self._db.begin() as connection:
            mine = [trial for trial in records.open_ones(connection) if trial.device == device]
            if mine and mine[0].state == QUEUED:
                records.change(connection, mine[0].id, state=ASKED, reason="the device is asked")
            self._devices.set_trial(device, TrialRequest.from_wire(mine[0].request) if mine else None)

    def _drop_files(self) -> None:
        """Let go of files that only trials needed which are over."""
        with self._db.read() as connection:
            due, needed = records.with_files(connection, self._clock() - FILES_KEPT_S)
            dropped = [found for found in (records.find(connection, trial) for trial in due) if found is not None]
        if not due:
            return
        spare = {sha256 for digest in needed for sha256 in self._files_of(digest)}
        unused = {sha256 for trial in dropped for sha256 in self._files_of(trial.digest)} - spare
        self._releases.drop_unused(unused)
        with self._db.begin() as connection:
            for trial in dropped:
                records.change(connection, trial.id, files_dropped=True)

    def _files_of(self, digest: str) -> set[str]:
        """SHA-256 of a package's files, and of its index."""
        try:
            index, _ = self._read(digest)
        except (BadRequest, Conflict):
            return set()
        return {digest.removeprefix("sha256:"), *(entry.sha256 for entry in index.entries)}

    # ── packages ──────────────────────────────────────────────────────────────────────────────

    def _read(self, digest: str) -> tuple[Index, Manifest]:
        """Index and manifest of a package whose files are here; the device audits all of it."""
        try:
            index = parse_index(self._blob(digest.removeprefix("sha256:"), MAX_INDEX_BYTES))
            entry = index.by_path.get(MANIFEST)
            if entry is None:
                raise BadRequest(f"the package has no {MANIFEST}")
            manifest = Manifest.parse(self._blob(entry.sha256, MAX_JSON_BYTES))
        except PackageError as error:
            raise BadRequest(f"the package is refused: {error}", "model-export verify shows the same") from error
        if index.digest != digest:
            raise BadRequest(f"{digest[:80]} is not the digest of an index", "sha256: and the index's SHA-256")
        return index, manifest

    def _blob(self, sha256: str, most: int) -> bytes:
        try:
            if self._blobs.size(sha256) > most:
                raise BadRequest(f"{sha256} has more than {most} bytes")
            return self._blobs.path(sha256).read_bytes()
        except NotFound as error:
            raise Conflict(f"the file {sha256[:80]} was not sent", "PUT it to /api/v1/blobs/<sha256>") from error

    def _check_files(self, index: Index, manifest: Manifest, variants: Sequence[str]) -> None:
        try:
            needed = required_paths(manifest, index, variants or None)
        except PackageError as error:
            raise BadRequest(str(error)) from error
        if (size := sum(entry.size for entry in needed)) > MOST_BYTES:
            raise BadRequest(f"a device would have to fetch {size} bytes; a trial has at most {MOST_BYTES}")
        absent = [entry.path for entry in needed if not self._blobs.has(entry.sha256)]
        if absent:
            raise Conflict(
                f"{len(absent)} files were not sent, such as {absent[0]}", "PUT each to /api/v1/blobs/<sha256>"
            )


def _check_device(device: str) -> None:
    try:
        check_name(device, "device")
    except ProtocolError as error:
        raise BadRequest(str(error)) from error
