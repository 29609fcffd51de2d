"""What serves: the committed release, loaded again at every start, or the one before it; and the ways back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from edge_agent.logs import Log
from edge_agent.ports import LoadedRelease, Serving
from edge_agent.updates import rules
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.errors import Refused
from edge_agent.updates.rules import ROLLED_BACK, UNPROVEN, CrashLoop
from edge_agent.updates.store import Installed, Position, UpdateStore
from edge_agent.updates.testing import TestingRules, forget_others, load_installed, measure_again

log = Log(__name__)


class Active:
    """Joins the store, the files and the data plane. Only the thread of updates uses it once that has started."""

    def __init__(
        self,
        store: UpdateStore,
        files: ReleaseFiles,
        serving: Serving,
        *,
        tests: Callable[[], TestingRules],
        tell: Callable[[Position], None],
        progress: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """Nothing serves yet.

        Args:
            store: what is committed.
            files: where releases lie.
            serving: who answers requests.
            tests: gives the owner's rules for loading.
            tell: told of every new position.
            progress: told of a load that takes long.
            clock: unix seconds; only written down.
        """
        self._store, self._files, self._serving = store, files, serving
        self._tests, self._tell, self._progress, self._clock = tests, tell, progress, clock
        #: What serves now, and since when on the clock that never goes back.
        self.loaded: LoadedRelease | None = None
        self.since = time.monotonic()
        #: Whether it was loaded as it ran before: nobody has looked yet whether that is still the best, or allowed.
        self.unmeasured = True
        #: Why it does not run as the owner wants it to, such as on a required provider; "" when it does.
        self.trouble = ""

    # ── starting ──────────────────────────────────────────────────────────────────────────────

    def recover(self, crash_loop: CrashLoop) -> None:
        """Take back what is unproven or kills the agent, then serve what is committed. All is stored before it acts."""
        at = self._store.position()
        ends = self._store.starts()
        if at.state in UNPROVEN and at.release is not None:
            self._take_back(at, at.release, ends)
        elif rules.too_many_ends(ends, crash_loop, something_before=self._store.previous() is not None):
            reason = f"the agent ended uncleanly {ends} times within {crash_loop.seconds:g} s of serving the release"
            try:
                self._tell(self.go_back(reason, by_hand=False))
                return
            except LookupError as error:  # then rather one that dies now and then than none
                log.error("a release kills the agent, and there is no way back", reason=f"{reason}; {error}")
        self.serve_committed()

    def _take_back(self, at: Position, release: str, ends: int) -> None:
        reason = f"the agent restarted while the release was {at.state} (attempt {at.attempt})"
        if ends >= rules.MOST_ENDS:
            key = rules.offer_key(release, at.rollout)
            reason = f"{reason}, for the {ends}th time; it is not tried again"
            self._tell(self._store.refuse([key], ROLLED_BACK, reason, self._clock()))
        else:
            self._tell(self._store.move(ROLLED_BACK, reason, self._clock()))

    def serve_committed(self) -> bool:
        """Serve the committed release, else the one before it; returns whether one of them serves.

        A release that cannot be loaded now (an accelerator that is not there yet, too little memory) stays committed
        when there is none before it: it is tried again later.
        """
        for installed in (self._store.committed(), self._store.previous()):
            if installed is not None and (loaded := self._load(installed)) is not None:
                self._fall_back_to(installed)
                self.switch(loaded)
                self.unmeasured = True
                log.info("serving", release=installed.release, variant=installed.variant, provider=installed.provider)
                return True
        return False

    def _load(self, installed: Installed) -> LoadedRelease | None:
        index = self._files.index(installed.release)
        try:
            if index is None:
                raise Refused("its index is damaged or gone")
            folder = self._files.folder(installed.release)
            return load_installed(folder, index, installed, self._tests(), progress=self._progress)
        except Refused as error:
            log.error("a committed release can no longer be loaded", release=installed.release, reason=str(error))
            return None

    def _fall_back_to(self, installed: Installed) -> None:
        committed = self._store.committed()
        if committed is not None and committed.release != installed.release:
            reason = "the committed release could not be loaded; the one before it serves"
            self._tell(self._store.fall_back(installed, reason, self._clock()))

    # ── while it runs ─────────────────────────────────────────────────────────────────────────

    def switch(self, loaded: LoadedRelease | None) -> None:
        """Have a loaded release answer from now on."""
        self._serving.switch(loaded)
        self.loaded, self.since = loaded, time.monotonic()

    def serve_tested(self, loaded: LoadedRelease) -> None:
        """Have a release answer that has just shown that it runs as the owner wants it to."""
        self.switch(loaded)
        self.unmeasured, self.trouble = False, ""

    def measure_again(self) -> None:
        """If hardware, driver, onnxruntime or the rules changed, find how what serves runs best now."""
        self.unmeasured = False
        serving = self.loaded
        if serving is None:
            return
        try:
            better = measure_again(serving, self._tests(), progress=self._progress)
        except Refused as error:
            self.trouble = f"{error}; the committed release goes on on {serving.session.provider}"
            log.error("no provider does what the rules want", reason=self.trouble)
        except Exception:  # a fault of ours must not end the thread: what serves goes on as it does
            log.exception("the committed release could not be measured again", release=serving.digest)
        else:
            self.trouble = ""
            if better is not None:
                self.switch(better.loaded)
                reason = better.note or "it was measured for the first time"
                log.warning("the committed release runs differently now", reason=reason)

    def switch_back(self) -> None:
        """Serve what is committed; its session was closed by the switch away from it, so it is loaded again."""
        if self._store.committed() is None or not self.serve_committed():
            self.switch(None)

    def go_back(self, reason: str, *, by_hand: bool) -> Position:
        """Leave the committed release for the one before it; no request is lost.

        Args:
            reason: a sentence for people.
            by_hand: whether a person did it, see `UpdateStore.go_back`.

        Raises:
            LookupError: there is none before it, or it cannot be loaded any more; nothing has changed.
        """
        previous = self._store.previous()
        if previous is None:
            raise LookupError("no release is kept to go back to")
        loaded = self._load(previous)
        if loaded is None:
            raise LookupError(f"the release before it, {previous.release}, can no longer be loaded; the log says why")
        at = self._store.go_back(reason, self._clock(), by_hand=by_hand)
        self.switch(loaded)
        self.unmeasured = True
        return at

    def settle(self, crash_loop: CrashLoop) -> None:
        """Stop counting ends against a release that has served for long enough."""
        if self._store.life().young is not None and time.monotonic() - self.since >= crash_loop.seconds:
            self._store.settle()

    def collect(self, also: str | None = None, spare: Collection[str] = ()) -> None:
        """Remove what no kept release needs.

        Args:
            also: digest of one more release to keep: the candidate.
            spare: SHA-256 of its files.
        """
        kept = [found.release for found in (self._store.committed(), self._store.previous()) if found is not None]
        kept += [also] if also else []
        try:
            # First: what providers have compiled may hold hard links to files of the releases.
            forget_others(self._tests(), kept)
            self._files.collect(kept, spare)
        except OSError as error:
            log.warning("old releases could not be removed", reason=str(error))
