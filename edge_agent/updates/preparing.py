"""From an offer to a release that may serve: fetched, audited, tested. What serves meanwhile is not touched."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Trust, Untrusted, Vouched
from edge_agent.pulse import Pulse
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.errors import Refused, Transient, Unvouched
from edge_agent.updates.fetch import Fetched, Fetcher
from edge_agent.updates.rules import FETCHING, TESTING, VERIFYING, Offer
from edge_agent.updates.settings import UpdateSettings
from edge_agent.updates.store import Position, UpdateStore
from edge_agent.updates.testing import load_tested
from edge_agent.updates.vouching import objection
from edgeloop.package import PackageError, audit_in_child
from edgeloop.runtime import usable_providers

log = Log(__name__)

#: A test may build an engine for an accelerator, which was seen to take ten minutes; one that hangs takes for ever.
LONGEST_TEST_S = 3600.0
#: The HTTP client gives up after 15 s of silence; twice that is a thread that hangs.
SILENCE_S = 30.0
#: Verification gives up after 90 s; two may have to wait for one another.
LONGEST_VOUCHING_S = 200.0
#: An old SD card reads faster.
SLOWEST_DISK_BYTES_PER_S = 1e6


class Surroundings(NamedTuple):
    """What preparing needs of the machine.

    Attributes:
        settings: gives the owner's.
        tell: told of every new position.
        clock: unix seconds; only written down.
        trust: who vouches for releases.
        hold: says why updates have to wait now, or "".
        interrupted: waits for so many seconds; whether something else has come up than the offer.
        slow: told every few seconds of a load that takes long.
        make_room: removes what no kept release needs, and none of the release's nor of the files with these SHA-256.
        pulse: of the thread.
    """

    settings: Callable[[], UpdateSettings]
    tell: Callable[[Position], None]
    clock: Callable[[], float]
    trust: Trust
    hold: Callable[[], str]
    interrupted: Callable[[float, Offer], bool]
    make_room: Callable[[str, Collection[str]], None]
    slow: Callable[[str], None]
    pulse: Pulse


class Preparing:
    """The steps before probation; each enters its state first."""

    def __init__(self, store: UpdateStore, files: ReleaseFiles, around: Surroundings) -> None:
        """Join the parts.

        Args:
            store: where states are kept.
            files: where releases lie.
            around: the machine.
        """
        self._store, self._files, self._around = store, files, around
        #: Bytes that the latest update has fetched so far, also in earlier tries.
        self.fetched_bytes = 0

    def fetch(self, offer: Offer) -> Fetched:
        """Know who answers for the release, then bring what is missing of it, and of its base what the audit needs.

        Raises:
            Transient: it may pass.
            Unvouched: nobody answers for it, or this device does not take it.
            Refused: the release is wrong, or wrong for this device.
        """
        around, settings = self._around, self._around.settings()
        at = self._store.begin(offer, FETCHING, f"fetching {offer.name} {offer.version}", around.clock())
        self.fetched_bytes = at.bytes
        around.tell(at)
        self._wait_for_better_days()
        vouched = self._vouch(offer)
        with Fetcher(
            self._files,
            settings.limits,
            hub=settings.hub,
            providers=usable_providers(allowed=settings.tests.allowed_providers),
            required=settings.tests.required_providers,
            received=self._count_bytes,
            make_room=lambda spare: around.make_room(offer.release, spare),
            interrupted=lambda wait_s: around.interrupted(wait_s, offer),
            tls=settings.tls,
        ) as fetcher:
            return fetcher.fetch(offer, vouched)

    def verify(self, offer: Offer, fetched: Fetched) -> None:
        """Put the release together and audit it.

        Raises:
            Transient: the disk is full, or has damaged what lay on it.
            Refused: the audit has found something.
        """
        around, timeout_s = self._around, self._around.settings().audit_timeout_s
        reason = f"checking every byte of {offer.name} {offer.version}"
        around.tell(self._store.move(VERIFYING, reason, around.clock(), fetched=self.fetched_bytes))
        self._wait_for_better_days()
        # Hashing takes as long as reading does.
        size = sum(entry.size for entry in fetched.entries)
        around.pulse.beat(timeout_s + size / SLOWEST_DISK_BYTES_PER_S)
        try:
            folder = self._files.assemble(offer.release, fetched.entries)
            audit_in_child(
                folder,
                index=fetched.index,
                variants=fetched.variants,
                allow_hard_links=True,
                base=fetched.base,
                timeout_s=timeout_s,
            )
        except OSError as error:
            raise Transient(f"the release cannot be put together: {error}") from error
        except PackageError as error:
            if damaged := self._files.drop_damaged(fetched.entries):
                text = f"{damaged[0]} and {len(damaged) - 1} others" if len(damaged) > 1 else damaged[0]
                raise Transient(f"this disk has damaged {text}; they are fetched again") from error
            raise Refused(f"audit: {error}") from error

    def test(self, offer: Offer, fetched: Fetched) -> LoadedRelease:
        """Load it beside what serves, and have it prove itself on this device.

        Raises:
            Refused: it does not.
        """
        around = self._around
        around.pulse.beat(LONGEST_TEST_S)
        tests = around.settings().tests
        folder = self._files.folder(offer.release)
        return load_tested(folder, fetched.index, tests, variants=fetched.variants, progress=self.progress).loaded

    def progress(self, text: str) -> None:
        """A line about what takes long; during a test it becomes the reason that people read."""
        log.info("loading", what=text)
        self._around.slow(text)
        if self._store.position().state == TESTING:
            self._around.tell(self._store.note(text, self._around.clock()))

    def _vouch(self, offer: Offer) -> Vouched:
        around = self._around
        around.pulse.beat(LONGEST_VOUCHING_S)
        try:
            vouched = around.trust.vouch(offer.release, offer.index_size, offer.target)
        except Untrusted as error:
            reason = f"{offer.name} {offer.version} is not vouched for: {error}"
            raise (Transient if error.again else Unvouched)(reason) from error
        committed = self._store.committed()
        runs = committed.target if committed is not None else ""
        if reason := objection(vouched, self._store.floors(), runs, around.settings().models):
            raise Unvouched(f"{offer.name} {offer.version} is not taken: {reason}")
        return vouched

    def _count_bytes(self, count: int) -> None:
        self.fetched_bytes += count
        self._around.pulse.beat(SILENCE_S)

    def _wait_for_better_days(self) -> None:
        if reason := self._around.hold():
            raise Transient(f"the update waits: {reason}")
