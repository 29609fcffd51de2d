"""What a search looks for, and how long."""

from __future__ import annotations

from dataclasses import dataclass

from model_export.tuning.elsewhere import Elsewhere
from model_export.tuning.trials import Objective


@dataclass(frozen=True)
class TuneOptions:
    """What is looked for, and how long.

    Attributes:
        objective: what shall be least.
        accuracy_drop: share of accuracy that a variant may lose against fp32.
        trials: at most, for each target that is measured.
        time_limit_s: for each target that is measured; what runs then is finished.
        seed: of the sampler.
        timing_s: seconds of timing for one trial, fp32's turns included.
        elsewhere: measures the best candidates on another machine, which then decides; None: this one does.
        name: of the model, by which a hub knows who may ask that of a device.
    """

    objective: Objective = "latency"
    accuracy_drop: float = 0.01
    trials: int = 40
    time_limit_s: float = 300.0
    seed: int = 0
    timing_s: float = 1.5
    elsewhere: Elsewhere | None = None
    name: str = "trial"
