"""What the comparisons of one stretch of the fleet say, and which of it is one device's voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloud_hub import carriers
from cloud_hub.alarms import DEVICES, FLEET, SEGMENTS, Evidence
from cloud_hub.light_windows import Group
from cloud_hub.policy import DriftPolicy
from edgeloop.insights import AspectDrift, DriftReport, Profile, Window, compare
from edgeloop.insights.drift import Comparison, counts_of
from edgeloop.insights.suggest import Scope, suggest

#: A total of light windows has a say when it holds this share of a stretch: they may lag behind, after a restart.
ENOUGH_TO_SAY = 0.5


@dataclass(frozen=True)
class Finding:
    """What the comparisons of one stretch said.

    Attributes:
        reports: by what the stretch was compared with.
        outvoted: of these, where nothing has moved once no device weighs too much.
        local: what moved is only in the devices that carry it: the rest of the fleet is as ever.
    """

    reports: Mapping[str, DriftReport]
    outvoted: frozenset[str] = frozenset()
    local: bool = False

    @property
    def drifted(self) -> bool:
        """Whether anything moved."""
        return any(report.drifted for against, report in self.reports.items() if against not in self.outvoted)

    def plain(self) -> dict[str, Any]:
        """All comparisons, plain."""
        return {
            against: {
                "drifted": report.drifted,
                "outvoted": against in self.outvoted,
                "reference_size": report.reference_size,
                "aspects": [vars(aspect) for aspect in report.aspects],
            }
            for against, report in self.reports.items()
        }

    def evidence(self, group: Group, profile: Profile) -> Evidence:
        """What an alarm says of it."""
        found = [(name, aspect) for name, report in self.reports.items() for aspect in report.moved]
        plain = [{"against": against, **vars(aspect)} for against, aspect in found]
        p_value = min((report.p_value for report in self.reports.values()), default=1.0)
        return _evidence(DEVICES if self.local else FLEET, plain, p_value, group, profile)


def find(
    window: Window,
    references: Mapping[str, Window],
    group: Group,
    profile: Profile,
    policy: DriftPolicy,
    *,
    alpha: float,
) -> Finding:
    """Compare a stretch of the fleet with all that it is to be compared with.

    Args:
        window: the stretch, all devices merged.
        references: by what they are called.
        group: the light windows of the same time.
        profile: of the release.
        policy: of the channel.
        alpha: chance that this errs, over all references together.
    """
    settings: dict[str, Any] = {
        "alpha": alpha / len(references),
        "min_effect": policy.min_effect,
        "input_names": profile.input_names,
    }
    reports = {
        against: compare(window, reference, profile.schema, **settings) for against, reference in references.items()
    }
    drifted = {against: references[against] for against, report in reports.items() if report.drifted}
    if not drifted:
        return Finding(reports)
    outvoted = _quiet(group, (), drifted, policy, settings)
    names = carriers.named(group, "device")
    local = bool(names) and _quiet(group, names, drifted, policy, settings) == set(drifted)
    return Finding(reports, frozenset(outvoted), local)


def carried(group: Group, profile: Profile) -> Evidence | None:
    """What an alarm says of devices or segments that carry a drift, whatever the fleet does; None for none."""
    for kind, scope in (("device", DEVICES), ("segment", SEGMENTS)):
        if carriers.named(group, kind):  # type: ignore[arg-type]
            aspects, p_value = carriers.moved(group, kind)  # type: ignore[arg-type]
            return _evidence(scope, aspects, p_value, group, profile)
    return None


def _quiet(
    group: Group,
    without: Sequence[str],
    references: Mapping[str, Window],
    policy: DriftPolicy,
    settings: Mapping[str, Any],
) -> set[str]:
    """The references from which the devices, none with too much weight, have not drifted lately."""
    layout = group["device"].layout
    if (rows := carriers.bounded(group, without)) is None or layout.predictions(rows) < (
        ENOUGH_TO_SAY * policy.min_predictions
    ):
        return set()
    one = {name: array[None] for name, array in layout.counts(rows).items()}
    return {
        against
        for against, reference in references.items()
        if not Comparison(one, counts_of(reference, layout.starts), **settings).drifted[0]
    }


def _evidence(
    scope: str, aspects: Sequence[Mapping[str, Any]], p_value: float, group: Group, profile: Profile
) -> Evidence:
    devices, segments = carriers.named(group, "device"), carriers.named(group, "segment")
    names = {DEVICES: devices, SEGMENTS: segments}.get(scope, [])
    told = [AspectDrift(**{key: value for key, value in aspect.items() if key != "against"}) for aspect in aspects]
    where: Scope = "devices" if scope == DEVICES else "segments" if scope == SEGMENTS else "fleet"
    advice = suggest(told, scope=where, names=names, input_width=profile.input_width)
    return Evidence(aspects, scope, devices, segments, p_value, advice)
