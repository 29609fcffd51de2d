"""The ``head`` trainer: a candidate package from what the fleet sent, without any input.

Statistics of one backbone are added over all releases that share it, so labels outlive a new head. The new package has
every file of its base but the head, the reference outputs, the profile's reference and the manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud_hub import head_groups
from cloud_hub.drift_references import independent_of_head
from cloud_hub.insights_store import InsightStore
from cloud_hub.records.database import Database
from cloud_hub.training.gate import Evidence
from cloud_hub.training.head import HeadFit, fit_head, holdout_accuracy, holdout_error
from cloud_hub.training.head_calibration import head_calibration
from cloud_hub.training.head_data import TrainingData, gather
from cloud_hub.training.head_slices import by_class, by_segment
from cloud_hub.training.head_statistics import HeadError, HeadStatistics
from cloud_hub.training.trainer import Candidate, Job, TrainingError
from edgeloop.insights import Profile
from edgeloop.insights.calibration import Calibration
from edgeloop.insights.summaries import feature_signs
from edgeloop.package import Package, revise_head
from edgeloop.runtime import ModelSession, evaluate

Array = npt.NDArray[Any]
_CPU = "CPUExecutionProvider"


class HeadTrainer:
    """Implements `Trainer`.

    Args:
        db: the records.
        insights: the merged windows.
    """

    name = "head"
    #: It takes a second or two: it is made anew.
    resumable = False

    def __init__(self, db: Database, insights: InsightStore) -> None:
        self._db, self._insights = db, insights

    def labels(self, channel: str, family: Sequence[str], since: float | None) -> int:
        """Labels whose features have arrived, without reading any window."""
        with self._db.read() as connection:
            return head_groups.labels(connection, channel, family, since)

    def train(self, job: Job) -> Candidate:
        """A package with a new head."""
        data = gather(
            self._db,
            self._insights,
            job.channel,
            job.family,
            since=job.since,
            settled=job.settled,
            until=job.until,
            policy=job.policy,
        )
        for note in data.notes:
            job.say(note, None)
        job.uses(data.material)
        return make(job.base, job.profile, data, job.folder, version=job.version, lineage=job.lineage)


def make(
    base: Package, profile: Profile, data: TrainingData, folder: Path, *, version: str, lineage: Mapping[str, Any]
) -> Candidate:
    """Fit a head, write the package that has it, and measure both.

    Args:
        base: the release whose head is replaced.
        profile: the base's.
        data: what the head is made of.
        folder: is made; holds the candidate's package afterwards.
        version: the candidate's.
        lineage: where it comes from; trainer and data are added.

    Raises:
        TrainingError: no head can be fitted or run.
    """
    if base.meta.head is None:
        raise TrainingError("the package names no head that could be replaced; build it with model-export")
    try:
        fit = fit_head(data.statistics, reserved=_reserved(base, data.statistics))
    except HeadError as error:
        raise TrainingError(str(error)) from error
    facts = {
        "trainer": HeadTrainer.name,
        "version": version,
        "method": fit.method,
        "regularisation": fit.regularisation,
        "data": data.plain(),
    }
    story = {**lineage, "trainer": {"name": "head", **_only(facts, "method", "regularisation")}, "data": facts["data"]}
    reference = independent_of_head(profile.reference if data.normal is None else data.normal)
    normal = profile.with_reference(replace(reference, release="", variant="", provider=""))
    settings: dict[str, Any] = {
        "weight": fit.weight,
        "bias": fit.bias,
        "profile": normal.with_calibration(_calibration(base, profile, data.statistics, fit)),
        "lineage": story,
        "version": version,
    }
    golden = base.golden()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # The reference outputs and the accuracy are those of the new package itself, so it is written twice.
    draft = revise_head(
        base, folder / "draft", golden_outputs=golden.outputs, metrics=dict(base.meta.metrics), **settings
    )
    outputs = {
        precision: _run(draft, precision, golden.inputs, list(before)) for precision, before in golden.outputs.items()
    }
    accuracy = _accuracies(draft)
    metrics = {
        variant: {**values, **({"accuracy": round(accuracy[variant], 4)} if variant in accuracy else {})}
        for variant, values in base.meta.metrics.items()
    }
    package = revise_head(base, folder / "package", golden_outputs=outputs, metrics=metrics, **settings)
    shutil.rmtree(folder / "draft")
    evidence = _evidence(base, data, fit)
    kept = {"weight": fit.weight, "bias": fit.bias}
    return Candidate(package, evidence, facts, (data.material,), kept)


def _reserved(base: Package, statistics: HeadStatistics) -> list[int]:
    """Classes that are there for later: the base's head has no weights for them, and nobody has labelled one."""
    weight, _ = base.head_arrays()
    unlabelled = statistics.all.count == 0
    return [k for k in range(len(unlabelled)) if unlabelled[k] and not np.asarray(weight)[k].any()]


def _calibration(base: Package, profile: Profile, statistics: HeadStatistics, fit: HeadFit) -> Calibration | None:
    """What the new head's confidence means; None where its scores are no softmax of its logits."""
    if base.meta.head is None or base.meta.head.activation == "sigmoid":
        return None
    sizes = profile.schema
    return head_calibration(statistics, fit, feature_signs(sizes.features, sizes.projections, profile.seed))


def _evidence(base: Package, data: TrainingData, fit: HeadFit) -> Evidence:
    weight, bias = (np.asarray(array, dtype=np.float64) for array in base.head_arrays())
    held, trial = data.statistics.holdout, (fit.trial_weight, fit.trial_bias)
    return Evidence(
        candidate_error=fit.holdout_error,
        current_error=holdout_error(held, weight, bias),
        holdout_labels=held.total,
        candidate_accuracy=fit.holdout_accuracy,
        current_accuracy=holdout_accuracy(held, weight, bias),
        classes=by_class(held, base.meta.labels, *trial),
        segments=by_segment(data.segments, *trial),
    )


def _accuracies(package: Package) -> dict[str, float]:
    """Variant → accuracy on the package's validation set, for the variants that run on this machine's processor."""
    found = package.validation()
    if found is None:
        return {}
    inputs, labels = found
    accuracies = {}
    for variant, spec in package.variants.items():
        if spec.device == "cpu":
            session = _load(package, variant)
            try:
                accuracies[variant] = float(evaluate(session, inputs, labels).accuracy)
            finally:
                session.close()
    return accuracies


def _run(package: Package, precision: str, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Outputs for ``inputs``, by a variant of this precision, or of fp32 where none of it runs here.

    ``names`` are those that the base has reference outputs of: every byte of them is moved to every device.
    """
    here = {spec.precision: name for name, spec in package.variants.items() if spec.device == "cpu"}
    variant = here.get(precision, here.get("fp32"))
    if variant is None:
        raise TrainingError(f"no variant of the package runs on this machine, so {precision} has no reference outputs")
    session = _load(package, variant)
    try:
        return dict(zip(names, session.run(dict(inputs), names), strict=True))
    finally:
        session.close()


def _load(package: Package, variant: str) -> ModelSession:
    return ModelSession.load(package, variant, _CPU, policy="quiet")


def _only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names}
