"""Samples, switched on and off: nothing of them is made, imported or written before both owners want them.

As soon as one of them does not any more, nothing is taken, nothing is sent, and what waits is deleted.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.clock import Clock, SystemClock
from edge_agent.observing.policy import PolicyInForce
from edge_agent.observing.store import Store, StoreError
from edge_agent.ports import Sampling
from edgeloop.records import dataclass
from edgeloop.sampling.policy import KEY, SamplesLimits, SamplesPolicy

if TYPE_CHECKING:
    from edge_agent.sampling.sampler import Sampler
    from edge_agent.sampling.sender import SampleSender
    from edge_agent.sampling.store import SampleStore
    from edgeloop.protocol import Ack
    from edgeloop.protocol.link import Link

log = logging.getLogger(__name__)

#: Which function has redacted what waits.
_REDACTED_BY = "samples/redact"


@dataclass(frozen=True)
class Line:
    """The way to the hub.

    Attributes:
        link: to the broker.
        topic: of the device's samples.
        hub: gives the hub's base URL.
        tls: gives the context for HTTPS; None: plain HTTP.
    """

    link: Link
    topic: str
    hub: Callable[[], str]
    tls: Callable[[], ssl.SSLContext] | None


@dataclass(frozen=True)
class SamplesRules:
    """What the owner of the device decides besides `SamplesLimits`.

    Attributes:
        limit_bytes: of what waits.
        bytes_per_s: that leave; 0: any.
        redact: name of the function that each sample passes, or "".
    """

    limit_bytes: int = 64 << 20
    bytes_per_s: float = 65_536.0
    redact: str = ""


@dataclass(frozen=True)
class SamplesStatus:
    """What ``edge-agent status`` shows of samples; counts are since the start.

    Attributes:
        on: whether samples are taken and sent.
        strategies: by which.
        travels: what leaves the device.
        waiting: samples that the hub has not acknowledged.
        bytes: of them.
        looked_at: requests.
        kept: samples.
        sent: samples, again included.
        sent_bytes: of them.
        acknowledged: by the hub.
        refused: by the hub, for good.
        dropped: that had to make room.
        missed: requests that were not looked at for want of room.
        redacted: rows that the owner's function took out.
        failed: rows that could not be kept.
        trouble: why none are kept or sent, or "".
    """

    on: bool = False
    strategies: tuple[str, ...] = ()
    travels: str = ""
    waiting: int = 0
    bytes: int = 0
    looked_at: int = 0
    kept: int = 0
    sent: int = 0
    sent_bytes: int = 0
    acknowledged: int = 0
    refused: int = 0
    dropped: int = 0
    missed: int = 0
    redacted: int = 0
    failed: int = 0
    trouble: str = ""


@dataclass
class _Working:
    store: SampleStore
    sampler: Sampler
    policy: SamplesPolicy
    sender: SampleSender | None = None


class Samples:
    """All of samples on this device.

    Args:
        device: this one.
        agent: agent.db.
        path: of samples.db.
        limits: of the owner.
        rules: of the owner.
        channel: gives the channel that the device follows.
        offers: has the data plane offer what it answers, or, given None, no more.
        drifted: whether the device sees a drift of a release.
        clock: the device's.
    """

    def __init__(
        self,
        device: str,
        agent: Store,
        path: Path,
        limits: SamplesLimits,
        rules: SamplesRules,
        *,
        channel: Callable[[], str],
        offers: Callable[[Sampling | None], None],
        drifted: Callable[[str], bool] = lambda release: False,
        clock: Clock | None = None,
    ) -> None:
        self._device, self._agent, self._path, self._rules = device, agent, path, rules
        self._channel, self._offers, self._drifted = channel, offers, drifted
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._working: _Working | None = None
        self._line: Line | None = None
        self._trouble = ""
        self._ended = False
        self.policy: PolicyInForce[SamplesPolicy, SamplesLimits] = PolicyInForce(agent, limits, SamplesPolicy, KEY)

    def start(self) -> None:
        """Take samples, where both owners want them; else delete what waits."""
        self.policy.follow(self._use)

    def connect(self, line: Line) -> None:
        """There is a way to the hub."""
        with self._lock:
            self._line = line
            if self._working is not None:
                self._send(self._working)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End in order; what waits stays for the next start."""
        with self._lock:
            self._ended = True
            self._switch_off(timeout_s)

    def labelled(self, items: Sequence[tuple[str, int, int]]) -> None:
        """True labels have come: (prediction id, row in the request, class index)."""
        if (working := self._working) is not None:
            working.sampler.labelled(items)

    def acknowledged(self, ack: Ack) -> None:
        """The hub has samples."""
        working = self._working
        if working is not None and working.sender is not None:
            working.sender.acknowledged(ack)

    def status(self) -> SamplesStatus:
        """What status shows."""
        with self._lock:
            working = self._working
            if working is None:
                return SamplesStatus(trouble=self._trouble)
            from edge_agent.sampling.store import SamplesError

            sampler, sender, policy = working.sampler, working.sender, working.policy
            try:
                waiting, size = working.store.size()
            except SamplesError as error:
                return SamplesStatus(on=True, trouble=str(error))
            sent: dict[str, Any] = {} if sender is None else vars(sender.tally)
            return SamplesStatus(
                on=True,
                strategies=tuple(policy.strategies),
                travels=policy.travels,
                waiting=waiting,
                bytes=size,
                dropped=working.store.dropped,
                trouble=sampler.trouble or ("" if sender is None else sender.trouble),
                **vars(sampler.tally),
                **sent,
            )

    def _use(self, policy: SamplesPolicy) -> None:
        with self._lock:
            if self._ended:
                return
            working = self._working
            if working is not None and policy.on and _leaves_alike(working.policy, policy):
                working.policy = working.sampler.policy = policy
                return
            if working is not None:
                self._switch_off()
            if (working is not None or not policy.on) and self._path.exists():
                self._delete()  # what waits was taken under a policy that does not count any more
            if policy.on:
                self._switch_on(policy)

    def _switch_on(self, policy: SamplesPolicy) -> None:
        from edge_agent.sampling.redaction import RedactionError, load
        from edge_agent.sampling.sampler import Sampler
        from edge_agent.sampling.store import SamplesError, SampleStore

        redact = self._rules.redact
        try:
            function = load(redact) if redact else None
            if (self._agent.note(_REDACTED_BY) or b"").decode() != redact:
                self._delete()
                self._agent.set_note(_REDACTED_BY, redact.encode())
            store = SampleStore(self._path, self._agent, self._rules.limit_bytes)
        except (RedactionError, SamplesError, StoreError) as error:
            log.error("no samples are taken: %s", error)
            self._trouble = str(error)
            return
        self._trouble = ""
        sampler = Sampler(
            self._device,
            self._agent,
            store,
            policy,
            channel=self._channel,
            drifted=self._drifted,
            redact=function,
            kept=self._kept,
            clock=self._clock,
        )
        self._working = _Working(store, sampler, policy)
        sampler.start()
        if self._line is not None:
            self._send(self._working)
        self._offers(sampler)
        log.info("samples are taken: %s", ", ".join(policy.strategies))

    def _send(self, working: _Working) -> None:
        from edge_agent.sampling.sender import SampleSender

        assert self._line is not None, "asked before"
        line = self._line
        working.sender = SampleSender(
            working.store,
            self._agent.epoch,
            line.link,
            topic=line.topic,
            hub=line.hub,
            tls=line.tls,
            bytes_per_s=self._rules.bytes_per_s,
            clock=self._clock,
        )
        working.sender.start()

    def _switch_off(self, timeout_s: float = 5.0) -> None:
        self._offers(None)
        working, self._working = self._working, None
        if working is None:
            return
        if working.sender is not None:
            working.sender.stop(timeout_s / 2)
        working.sampler.stop(timeout_s / 2)
        working.store.close()

    def _delete(self) -> None:
        from edge_agent.sampling.store import delete

        try:
            if delete(self._path):
                log.warning("samples that waited for the hub are deleted")
        except OSError as error:
            log.error("%s cannot be deleted: %s; delete it by hand", self._path, error)
            self._trouble = f"{self._path} cannot be deleted: {error}"

    def _kept(self) -> None:
        working = self._working
        if working is not None and working.sender is not None:
            working.sender.wake()


def _leaves_alike(one: SamplesPolicy, other: SamplesPolicy) -> bool:
    """Whether what leaves the device under two policies is of the same kind."""
    return (one.travels, one.small_side) == (other.travels, other.small_side)
