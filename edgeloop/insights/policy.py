"""What a channel's owner asks of its devices' windows. It travels in the channel document, under ``insights``."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated

from edgeloop.insights.privacy.rule import PrivacyRule, stricter
from edgeloop.protocol.fields import Integer, ListOf, Nullable, Real, Text
from edgeloop.protocol.parts import Part, PartOf
from edgeloop.records import dataclass

#: Key of the policy in ``ChannelDocument.policy``.
KEY = "insights"
#: Counts and classes are what the ledger holds, and a noised window says that it is one: whatever else is not there.
ALWAYS = ("counts", "classes", "privacy")
#: Values of the segment field that get windows of their own; the rest share one, `OTHER`.
MAX_SEGMENTS = 8
OTHER = "other"
MAX_SEGMENT_CHARACTERS = 64
#: Printable ASCII, without leading or trailing spaces: it becomes a part of a key in the hub.
SEGMENT_PATTERN = r"[!-~]([ -~]*[!-~])?"

_SEGMENT = Text(MAX_SEGMENT_CHARACTERS, SEGMENT_PATTERN)


@dataclass(frozen=True)
class DriftRule(Part):
    """When a device raises its own alarm; the hub's fields of the same names.

    Attributes:
        alpha: chance that one comparison errs, at most.
        min_effect: smallest share of the mass that has to have moved (total variation).
        min_predictions: windows are merged until they hold this many.
        consecutive: drifted comparisons in a row that raise an alarm.
        false_alarms_per_year: of one device, at most; None: only alpha counts.
    """

    alpha: Annotated[float, Real(0.0, 0.5)] = 0.001
    min_effect: Annotated[float, Real(0.0, 1.0)] = 0.15
    min_predictions: Annotated[int, Integer(1)] = 500
    consecutive: Annotated[int, Integer(1, 1000)] = 2
    false_alarms_per_year: Annotated[float | None, Nullable(Real(1e-9, 1e9))] = 12.0


@dataclass(frozen=True)
class InsightsPolicy(Part):
    """The policy. Fields of a newer hub are kept; a value out of its range is a ProtocolError.

    Attributes:
        aspects: names of the aspects that are wanted, or None for all that the package knows. A name that this version
            does not know is ignored; `ALWAYS` are in every window.
        bytes_per_day: of insights that one device may send, or None for any number.
        segment_field: parameter of requests by whose values windows are kept apart, or None.
        segment_values: those values; () for the first `MAX_SEGMENTS` that come.
        min_group: predictions that a window holds at least before it leaves a device; 0 for any number.
        audit_share: share of the answers, drawn at random however confident they are, whose true label is asked for.
        drift: when a device raises its own alarm.
        privacy: noise that is added before anything leaves, or None.
    """

    aspects: Annotated[tuple[str, ...] | None, Nullable(ListOf(Text(64), 64))] = None
    bytes_per_day: Annotated[int | None, Nullable(Integer(1024))] = None
    segment_field: Annotated[str | None, Nullable(_SEGMENT)] = None
    segment_values: Annotated[tuple[str, ...], ListOf(_SEGMENT, MAX_SEGMENTS)] = ()
    min_group: Annotated[int, Integer(0, 1 << 31)] = 0
    audit_share: Annotated[float, Real(0.0, 1.0)] = 0.0
    drift: Annotated[DriftRule, PartOf(DriftRule)] = field(default_factory=DriftRule)
    privacy: Annotated[PrivacyRule | None, Nullable(PartOf(PrivacyRule))] = None

    def wants(self, aspect: str) -> bool:
        """Whether windows hold an aspect."""
        return self.aspects is None or aspect in self.aspects or aspect in ALWAYS

    def check(self) -> InsightsPolicy:
        """The policy itself: an aspect that this version does not know is ignored."""
        return self

    def within(self, limits: Limits) -> InsightsPolicy:
        """The policy as the owner of a device lets it be: only ever stricter."""
        aspects = self.aspects
        if limits.aspects is not None:
            aspects = limits.aspects if aspects is None else tuple(name for name in aspects if name in limits.aspects)
        budgets = [size for size in (self.bytes_per_day, limits.bytes_per_day) if size is not None]
        return replace(
            self,
            aspects=aspects,
            bytes_per_day=min(budgets, default=None),
            segment_field=self.segment_field if limits.segments else None,
            min_group=max(self.min_group, limits.min_group),
            privacy=stricter(self.privacy, limits.privacy),
        )


@dataclass(frozen=True)
class Limits:
    """What the owner of a device lets leave it, whatever a hub asks for.

    Attributes:
        aspects: that may leave, or None for any.
        bytes_per_day: of insights, or None for any number.
        min_group: predictions that a window holds at least.
        segments: whether windows may be kept apart by a field of the requests.
        privacy: noise that there is at least, or None.
    """

    aspects: tuple[str, ...] | None = None
    bytes_per_day: int | None = None
    min_group: int = 0
    segments: bool = True
    privacy: PrivacyRule | None = None
