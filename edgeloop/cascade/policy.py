"""What a channel's owner asks of devices about hard inputs. It travels in the channel document, as ``escalation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated

from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.fields import Integer, ListOf, MapOf, Nullable, Real, Text
from edgeloop.protocol.inputs import FORMS
from edgeloop.protocol.parts import Part
from edgeloop.records import dataclass

#: Key of the policy in ``ChannelDocument.policy``.
KEY = "escalation"
MODES = ("off", "async", "wait")
"""Nothing is escalated; the edge's answer now and the better one later, under the same id; the client waits for it."""
SIGNALS = ("confidence", "entropy", "margin", "distance", "opinion")
"""What may make an input hard; ``distance`` is how far its features lie from those of the class that was answered, and
``opinion`` what a discriminant makes of them that the device fits to the teacher's answers so far."""


@dataclass(frozen=True)
class EscalationPolicy(Part):
    """The policy. Every input has a known probability of being escalated, above zero, so that learning is not biased.

    Attributes:
        mode: one of `MODES`.
        travels: what leaves the device, one of `FORMS`, or ``nothing``.
        small_side: pixels of the longer side of a picture that travels ``small``.
        signals: of `SIGNALS`; an input is as hard as the worst of them says; with ``opinion`` the device learns of
            the teacher's answers how hard that is.
        threshold: hardness in 0…1 from which an input is more likely than not to be escalated.
        softness: width of the step around the threshold, in hardness.
        floor: least probability of any input, however sure its answer: audits of confident answers.
        max_share: share of the predictions that may be escalated; the threshold gives way to it.
        per_hour: escalations an hour, or None for any number.
        per_day: escalations a day, or None.
        bytes_per_hour: of escalations, or None.
        bytes_per_day: of escalations, or None.
        cooldown_s: seconds in which nothing is escalated after the hub could not answer.
        deadline_ms: a client waits no longer for the better answer, in mode ``wait``.
        max_weight: of a label: the inverse of its probability, clipped: docs/decisions/cascade-whose-answer.md.
        thresholds: digest of a release → threshold that the hub has fitted to it, in place of ``threshold``.
    """

    mode: Annotated[str, Text(16)] = "off"
    travels: Annotated[str, Text(16)] = "input"
    small_side: Annotated[int, Integer(1, 4096)] = 224
    signals: Annotated[tuple[str, ...], ListOf(Text(16), 8)] = ("confidence", "distance", "opinion")
    threshold: Annotated[float, Real(0.0, 1.0)] = 0.3
    softness: Annotated[float, Real(1e-6, 1.0)] = 0.1
    floor: Annotated[float, Real(1e-4, 1.0)] = 0.02
    max_share: Annotated[float, Real(0.0, 1.0)] = 0.2
    per_hour: Annotated[int | None, Nullable(Integer(0))] = None
    per_day: Annotated[int | None, Nullable(Integer(0))] = None
    bytes_per_hour: Annotated[int | None, Nullable(Integer(0))] = None
    bytes_per_day: Annotated[int | None, Nullable(Integer(0))] = None
    cooldown_s: Annotated[float, Real(0.0, 86_400.0)] = 5.0
    deadline_ms: Annotated[int, Integer(1, 600_000)] = 1000
    max_weight: Annotated[float, Real(1.0, 1e4)] = 5.0
    thresholds: Annotated[Mapping[str, float], MapOf(Real(0.0, 1.0), 8)] = field(default_factory=dict)

    @property
    def on(self) -> bool:
        """Whether anything is escalated."""
        return self.mode != "off" and self.travels != "nothing" and self.max_share > 0

    def check(self) -> EscalationPolicy:
        """The policy itself.

        Raises:
            ProtocolError: a word in it is none that this version knows: of a newer hub, or a mistake.
        """
        for word, known, what in (
            (self.mode, MODES, "mode"),
            (self.travels, (*FORMS, "nothing"), "travels"),
            *((signal, SIGNALS, "signals") for signal in self.signals),
        ):
            if word not in known:
                raise ProtocolError(f"{KEY}.{what} is {word!r}; there are {', '.join(known)}")
        if self.mode != "off" and not self.signals:
            raise ProtocolError(f"{KEY}.signals is empty; name some of {', '.join(SIGNALS)}")
        return self

    def of_release(self, digest: str) -> EscalationPolicy:
        """The policy with the threshold of this release."""
        return replace(self, threshold=self.thresholds.get(digest, self.threshold))

    def within(self, limits: EscalationLimits) -> EscalationPolicy:
        """The policy as the owner of a device lets it be: only ever stricter."""
        allowed = self.travels in limits.travels
        return replace(
            self,
            travels=self.travels if allowed else "nothing",
            per_day=_least(self.per_day, limits.per_day),
            bytes_per_day=_least(self.bytes_per_day, limits.bytes_per_day),
        )


@dataclass(frozen=True)
class EscalationLimits:
    """What the owner of a device lets leave it, whatever a hub asks for.

    Attributes:
        travels: of `FORMS`; () for nothing.
        per_day: escalations a day, or None for any number.
        bytes_per_day: of escalations, or None.
    """

    travels: tuple[str, ...] = ()
    per_day: int | None = None
    bytes_per_day: int | None = None


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)
