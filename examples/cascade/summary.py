"""The figures of the cascade, and the bounds that they are held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from examples.digits.summary import Check, Figures, least, most, same


@dataclass
class CascadeFigures(Figures):
    """What a run measured; shares and accuracies in 0…1.

    Attributes:
        shares: of the answers that were escalated: clean, at the peak, learned.
        given: phase → accuracy of what clients got, and of the edge alone on the very same inputs.
        gain: of the edge on held-out digits: from the teacher's answers, and from true labels of as many inputs.
        human_labels: that anybody gave.
    """

    shares: dict[str, float] = field(default_factory=dict)
    given: dict[str, tuple[float, float]] = field(default_factory=dict)
    gain: tuple[float, float] = (0.0, 0.0)
    human_labels: int = 0
    teacher_labels: int = 0
    note: ClassVar[str] = "with the training of both models"

    def checks(self) -> list[Check]:
        """Every bound of the cascade."""
        clean, worst = self.given["clean"], min(told - alone for told, alone in self.given.values())
        return [
            most("clean: share escalated", self.shares["clean"], 0.20),
            most("clean: behind sending everything", self.accuracy["clean_teacher"] - clean[0], 0.02),
            least("slipped: share at its peak", self.shares["peak"], 0.25),
            most("learned: share, of its peak", self.shares["learned"] / self.shares["peak"], 0.50),
            least("what clients get, above the edge alone, at the least", worst, 0.0),
            least("learned: what clients get", self.given["learned"][0], 0.85),
            # Single runs scatter: 0.83 and 1.04 were seen. benchmarks.cascade holds the mean of six to 0.9.
            least("edge's gain, of that from as many true labels", self.gain[0] / max(self.gain[1], 1e-9), 0.75),
            same("labels that anybody gave", self.human_labels, 0),
            same("requests that failed", self.failed_requests, 0),
            same("programs that did not end in order", sum(map(bool, self.exit_statuses.values())), 0),
            Check(
                "hub's totals",
                f"{self.totals['hub']['escalations']} escalations",
                f"= devices' {self.totals['devices']['escalations']}, count by count",
                self.totals["hub"] == self.totals["devices"],
            ),
        ]
