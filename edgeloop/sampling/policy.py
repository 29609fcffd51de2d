"""What a channel's owner asks of its devices about samples. It travels in the channel document, under ``samples``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated

from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.fields import Integer, MapOf, Nullable, Real, Text
from edgeloop.protocol.inputs import FORMS
from edgeloop.protocol.parts import Part
from edgeloop.records import dataclass

#: Key of the policy in ``ChannelDocument.policy``.
KEY = "samples"
STRATEGIES = ("random", "uncertainty", "diversity", "balance", "disagreement", "drift")
"""Drawn by chance; unsure answers; far from what was kept; rare classes; teacher and edge differ; a drifted segment."""


@dataclass(frozen=True)
class SamplesPolicy(Part):
    """The policy. Nothing is kept unless it names a strategy and the device's owner allows samples.

    Attributes:
        strategies: strategy → share of the kept samples that it may take, 0…1; {}: none.
        travels: what leaves the device, one of `FORMS`.
        small_side: pixels of the longer side of a picture that travels ``small``.
        per_day: samples a day.
        bytes_per_day: bytes of samples a day.
        keep_s: seconds that the hub keeps them, or None for ever.
    """

    strategies: Annotated[Mapping[str, float], MapOf(Real(0.0, 1.0), 16)] = field(default_factory=dict)
    travels: Annotated[str, Text(16)] = "input"
    small_side: Annotated[int, Integer(1, 4096)] = 224
    per_day: Annotated[int, Integer(0)] = 1000
    bytes_per_day: Annotated[int, Integer(0)] = 64 << 20
    keep_s: Annotated[float | None, Nullable(Real(1.0, 1e10))] = 90 * 86_400.0

    @property
    def on(self) -> bool:
        """Whether any sample is taken."""
        return bool(self.strategies) and self.per_day > 0 and self.bytes_per_day > 0

    def check(self) -> SamplesPolicy:
        """The policy itself.

        Raises:
            ProtocolError: a word in it is none that this version knows: of a newer hub, or a mistake.
        """
        if self.travels not in FORMS:
            raise ProtocolError(f"{KEY}.travels is {self.travels!r}; there are {', '.join(FORMS)}")
        if unknown := [name for name in self.strategies if name not in STRATEGIES]:
            raise ProtocolError(f"{KEY}.strategies has {unknown[0]!r}; there are {', '.join(STRATEGIES)}")
        return self

    def within(self, limits: SamplesLimits) -> SamplesPolicy:
        """The policy as the owner of a device lets it be: only ever stricter."""
        return replace(
            self,
            strategies=self.strategies if limits.consent else {},
            per_day=min(self.per_day, self.per_day if limits.per_day is None else limits.per_day),
            bytes_per_day=min(
                self.bytes_per_day, self.bytes_per_day if limits.bytes_per_day is None else limits.bytes_per_day
            ),
        )


@dataclass(frozen=True)
class SamplesLimits:
    """What the owner of a device lets leave it, whatever a hub asks for.

    Attributes:
        consent: whether any sample may.
        per_day: samples a day, or None for any number.
        bytes_per_day: bytes of samples a day, or None.
    """

    consent: bool = False
    per_day: int | None = None
    bytes_per_day: int | None = None
