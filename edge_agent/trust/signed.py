"""Trust in a fleet that signs: the rules by which a device believes a document and a release.

1. A channel's document counts when the role ``channels`` names its bytes; a wish of the hub, when a key of that role
   has signed it.
2. A release counts when such a document and the release's own role name the same bytes; a retrained one, when the role
   of the model's publishers names its base as well.
3. No metadata is older than what was seen before (`floors`), and none has ended, as far as the clock can tell
   (`judging`).
4. Before anything is fetched, the hub is asked for a newer root: keys that people have taken back count no more, also
   where somebody keeps that from the broker.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from edge_agent.ports import TrustState, Untrusted, Vouched, Work
from edge_agent.trust.anchor import Anchor
from edge_agent.trust.asking import Examiner, Found, Named, Question
from edge_agent.trust.floors import gone_back, raised
from edge_agent.trust.judging import expired, impossible
from edge_agent.trust.latest import Latest
from edge_agent.trust.open import read_channel
from edgeloop.protocol import ChannelDocument, Desired, ProtocolError, SignedDesired
from edgeloop.records import dataclass
from edgeloop.trust.names import CHANNELS, ROOT, ReleasePath, channel_path, parse_release

#: A hub that was asked for a newer root is not asked again for so long, seconds.
ASK_AGAIN_S = 600.0


class Memory(Protocol):
    """Where versions of metadata are kept, durably, outside of python-tuf's cache."""

    def seen(self) -> Mapping[str, Any]:
        """What was stored last; empty at first."""

    def see(self, seen: Mapping[str, Any]) -> None:
        """Store it; it is on the disk when this returns."""


@dataclass(frozen=True)
class _Examined:
    """A document that was looked at: SHA-256 of its payload, what was asked of it, and what was found.

    ``asked_at`` is when the hub was asked for a newer root, by the clock that never goes back; None: it was not.
    """

    mark: str
    question: Question
    found: Found
    asked_at: float | None = None


class SignedTrust:
    """Implements `edge_agent.ports.Trust`."""

    def __init__(
        self,
        anchor: Anchor,
        memory: Memory,
        examiner: Examiner,
        *,
        device: str,
        hub: Callable[[], str],
        grace_s: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is known yet.

        Args:
            anchor: of the device.
            memory: keeps versions.
            examiner: verifies.
            device: its name.
            hub: gives the base URL of metadata that was not carried.
            grace_s: gives the seconds for which metadata counts after its end.
            clock: unix seconds, as the device believes.
        """
        self._anchor, self._memory, self._examiner = anchor, memory, examiner
        self._device, self._hub, self._grace_s, self._clock = device, hub, grace_s, clock
        self._latest = Latest("trust")
        self._lock = threading.Lock()
        #: What was looked at last, and what was trusted last.
        self._examined: _Examined | None = None
        self._trusted: _Examined | None = None
        self._refused = 0
        self._troubles: dict[str, str] = {}

    # ── ports.Trust ───────────────────────────────────────────────────────────────────────────

    def soon(self, subject: str, work: Work) -> None:
        """Do it on the thread of trust, unless something newer of the subject comes first."""
        self._latest.put(subject, work)

    def open_channel(self, channel: str, payload: bytes) -> ChannelDocument:
        """The document, if the role ``channels`` names its bytes."""
        sealed, document = read_channel(channel, payload)
        path, mark = channel_path(channel), hashlib.sha256(payload).hexdigest()
        with self._noted("channel"):
            at = self._examined
            if at is None or at.mark != mark:  # a broker sends the same again at every connection
                question = Question((path, *_paths(document)), sealed.metadata)
                self._examined = at = _Examined(mark, question, self._examine(question))
            _hold(at.found.named[path], path, len(sealed.document), hashlib.sha256(sealed.document).hexdigest())
            self._accept(at.found)
            with self._lock:
                self._trusted = at
        return document

    def open_desired(self, payload: bytes) -> Desired | None:
        """The document, if it is signed and meant for this device; None for an empty one, which says nothing."""
        if not payload:  # whoever owns the broker could send it
            return None
        sealed = SignedDesired.from_bytes(payload)
        document = Desired.from_bytes(sealed.document)
        if document.device != self._device:
            raise ProtocolError(f"the wish is for {document.device!r}; this device is {self._device!r}")
        with self._noted("desired"):
            self._accept(self._examine(Question(signed=(sealed.document, sealed.signature))))
        return document

    def era(self) -> str:
        """Hash of the keys of ``channels``: whoever stole the old ones has signed the greatest serial there is."""
        keyids = self._memory.seen().get(CHANNELS, {}).get("keyids", [])
        return hashlib.sha256("/".join(sorted(keyids)).encode()).hexdigest()[:16]

    def vouch(self, release: str, index_size: int, target: str) -> Vouched:
        """Who answers for a release, and for its base."""
        with self._noted("release"):
            path = _release(target)
            found = self._asked_for_root()
            self._accept(found)
            _hold(found.named.get(target), target, index_size, release.removeprefix("sha256:"))
            base = None
            if path.base != path:
                base = f"sha256:{_named(found.named.get(str(path.base)), str(path.base)).sha256}"
            return Vouched(path.model, path.order, path.role, base)

    def state(self) -> TrustState:
        """What is trusted, and what is wrong with it now."""
        with self._lock:
            trusted, refused = self._trusted, self._refused
            troubles = [f"{what}: {trouble}" for what, trouble in self._troubles.items() if trouble]
        now, at = self._clock(), self._anchor.enrolled_at
        troubles += [impossible(now, at)]
        if trusted is None:
            return TrustState(True, trouble="; ".join(filter(None, troubles)), refused=refused)
        roles = trusted.found.roles
        troubles += [expired(roles, now, at, self._grace_s())]
        ends = min((role.expires for role in roles.values() if role.expires is not None), default=0.0)
        told = "; ".join(dict.fromkeys(filter(None, troubles)))
        return TrustState(True, roles[ROOT].version or 0, ends, told, refused, round(trusted.found.ms))

    def stop(self, timeout_s: float) -> None:
        """End what is under way."""
        self._examiner.stop()
        self._latest.stop(timeout_s)

    # ── how ───────────────────────────────────────────────────────────────────────────────────

    def _examine(self, question: Question) -> Found:
        found = self._examiner.examine(question, self._hub())
        if not question.ask_for_root and gone_back(self._memory.seen(), found.roles):
            # Python-tuf's cache may be gone, and with it a root that did not come with the document.
            found = self._examiner.examine(replace(question, ask_for_root=True), self._hub())
        return found

    def _asked_for_root(self) -> Found:
        """What was found for the latest document, with the newest root that the hub has."""
        with self._lock:
            at = self._trusted
        if at is None:
            raise Untrusted("no document of the channel was verified yet", again=True)
        if at.asked_at is not None and time.monotonic() - at.asked_at < ASK_AGAIN_S:
            return at.found
        found = self._examine(replace(at.question, ask_for_root=True))
        newer = replace(at, found=found, asked_at=time.monotonic())
        with self._lock:
            if self._trusted is at:
                self._trusted = newer
            if self._examined is at:
                self._examined = newer
        return found

    def _accept(self, found: Found) -> None:
        """Hold what was found to what was seen before and to the clock, and remember it before it is acted on."""
        floors = self._memory.seen()
        if told := gone_back(floors, found.roles):
            raise Untrusted(told)
        if told := expired(found.roles, self._clock(), self._anchor.enrolled_at, self._grace_s()):
            raise Untrusted(told, again=True)
        if (now := raised(floors, found.roles)) != floors:
            self._memory.see(now)

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        """Keep the reason of a refusal for people to read, until the next of its kind is trusted."""
        try:
            yield
        except Untrusted as error:
            with self._lock:
                self._troubles[what] = str(error)
                self._refused += 1
            raise
        with self._lock:
            self._troubles.pop(what, None)


def _paths(document: ChannelDocument) -> tuple[str, ...]:
    """Paths of the releases that a document names, and of their bases; one that is no path is refused when wanted."""
    named = [document.current, document.rollout.candidate if document.rollout is not None else None]
    paths: dict[str, None] = {}
    for target in (reference.target for reference in named if reference is not None):
        try:
            path = parse_release(target)
        except ProtocolError:
            continue
        paths |= {str(path): None, str(path.base): None}
    return tuple(paths)


def _release(target: str) -> ReleasePath:
    if not target:
        raise Untrusted("the release is not signed: the document names no target of it")
    try:
        return parse_release(target)
    except ProtocolError as error:
        raise Untrusted(str(error)) from error


def _named(named: Named | None, path: str) -> Named:
    if named is None or named.problem:
        reason = "the document does not name it" if named is None else named.problem
        raise Untrusted(f"{path}: {reason}", again=named is not None and named.again)
    return named


def _hold(named: Named | None, path: str, length: int, sha256: str) -> None:
    found = _named(named, path)
    if (found.length, found.sha256) != (length, sha256):
        raise Untrusted(f"{path} is signed with other bytes than these: {found.sha256[:12]}…, not {sha256[:12]}…")
