"""The ``head`` trainer: a candidate package from what the fleet sent, without any input.

Statistics of one backbone are added over all releases that share it, so labels outlive a new head. The new package has
every file of its base but the head, the reference outputs, the profile's reference and the manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from cloud_hub.drift_references import independent_of_head
from cloud_hub.insights_store import InsightStore
from cloud_hub.records.database import Database
from cloud_hub.records.tables import windows
from cloud_hub.training.gate import Evidence
from cloud_hub.training.head import HeadFit, fit_head, holdout_accuracy, holdout_error
from cloud_hub.training.head_statistics import HeadError, HeadStatistics
from cloud_hub.training.trainer import Candidate, Job, TrainingError
from edgeloop.insights import Profile, Window
from edgeloop.package import Package, revise_head
from edgeloop.provenance import Material
from edgeloop.runtime import ModelSession, evaluate

Array = npt.NDArray[Any]
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a candidate is made of.

    Attributes:
        statistics: head statistics, merged.
        normal: histograms of inputs and features since the alarm, the new normal; None to keep the base's.
        since: unix seconds of the first interval, or None for all there are.
        until: unix seconds, end.
        releases: digests of the releases whose windows are in it.
        intervals: number of intervals with labels.
    """

    statistics: HeadStatistics
    normal: Window | None
    since: float | None
    until: float
    releases: tuple[str, ...]
    intervals: int

    @property
    def material(self) -> Material:
        """The sums that a head is fitted to, for its provenance."""
        told = self.plain()
        facts = {name: told[name] for name in ("since", "until", "labels", "holdout", "intervals", "releases")}
        return Material("head statistics of the fleet", "data", self.statistics.sha256, facts)

    def plain(self) -> dict[str, Any]:
        """For lineage: where the labels come from, and how many there are of each class."""
        both = self.statistics.all
        return {
            "since": self.since,
            "until": self.until,
            "labels": both.total,
            "holdout": self.statistics.holdout.total,
            "labels_per_class": [int(n) for n in both.count],
            "releases": list(self.releases),
            "intervals": self.intervals,
        }


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
        conditions = [windows.c.channel == channel, windows.c.release.in_(family)]
        if since is not None:
            conditions.append(windows.c.interval_start >= since)
        query = select(func.coalesce(func.sum(windows.c.feedback), 0)).where(*conditions)
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

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
        )
        job.uses(data.material)
        return make(job.base, job.profile, data, job.folder, version=job.version, lineage=job.lineage)


def gather(
    db: Database,
    insights: InsightStore,
    channel: str,
    releases: Sequence[str],
    *,
    since: float | None,
    settled: float | None,
    until: float,
) -> TrainingData:
    """Add up what the fleet sent; one interval at a time, since head statistics are large.

    Args:
        db: the records.
        insights: the merged windows.
        channel: the channel.
        releases: digests of releases that share a backbone, newest first.
        since: first interval start for labels, unix seconds; None for all.
        settled: first interval start for the new normal; None when nothing has moved.
        until: interval start that is no longer taken.

    Raises:
        TrainingError: there are no labels, or the model sends no head statistics.
    """
    statistics: HeadStatistics | None = None
    normal: Window | None = None
    used: dict[str, None] = {}
    labelled = 0
    for release, start, has_labels in _intervals(db, channel, releases, since, settled, until):
        window = insights.merged(channel, release, start, start + insights.interval_s / 2)
        if window is None:
            continue
        used[release] = None
        window.release = ""  # windows of one backbone add up, whatever head was on it
        if has_labels and (since is None or start >= since):
            statistics = _add(statistics, window)
            labelled += 1
        if settled is not None and start >= settled:
            part = independent_of_head(window)
            normal = part if normal is None else normal.merge(part)
    if statistics is None or statistics.labels == 0:
        raise TrainingError("no labels with features have arrived; send feedback to the agents")
    return TrainingData(statistics, normal, since, until, tuple(used), labelled)


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
        fit = fit_head(data.statistics)
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
        "profile": normal.with_calibration(
            None
        ),  # what the head before meant by its confidence is not what this one does
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
    evidence = _evidence(base, data.statistics, fit)
    kept = {"weight": fit.weight, "bias": fit.bias}
    return Candidate(package, evidence, facts, (data.material,), kept)


def _intervals(
    db: Database,
    channel: str,
    releases: Sequence[str],
    since: float | None,
    settled: float | None,
    until: float,
) -> Sequence[tuple[str, float, bool]]:
    """(release, interval start, has labels) of intervals that are needed, without reading any window."""
    table = windows.c
    conditions = [table.channel == channel, table.release.in_(releases), table.interval_start < until]
    feedback = func.sum(table.feedback).label("feedback")  # of all segments
    query = select(table.release, table.interval_start, feedback).where(*conditions)
    query = query.group_by(table.interval_start, table.release).order_by(table.interval_start, table.release)
    with db.read() as connection:
        rows = connection.execute(query).all()
    return [
        (row.release, row.interval_start, row.feedback > 0)
        for row in rows
        if (row.feedback > 0 and (since is None or row.interval_start >= since))
        or (settled is not None and row.interval_start >= settled)
    ]


def _add(statistics: HeadStatistics | None, window: Window) -> HeadStatistics:
    try:
        part = HeadStatistics.of_window(window)
    except HeadError as error:
        raise TrainingError(str(error)) from error
    return part if statistics is None else statistics + part


def _evidence(base: Package, statistics: HeadStatistics, fit: HeadFit) -> Evidence:
    weight, bias = (np.asarray(array, dtype=np.float64) for array in base.head_arrays())
    held = statistics.holdout
    return Evidence(
        candidate_error=fit.holdout_error,
        current_error=holdout_error(held, weight, bias),
        holdout_labels=held.total,
        candidate_accuracy=fit.holdout_accuracy,
        current_accuracy=holdout_accuracy(held, weight, bias),
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
