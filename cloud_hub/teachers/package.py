"""A teacher that is a model package, on the hub's own runtime: several inputs in one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloud_hub.teachers.port import (
    Array,
    Malformed,
    Opinion,
    Outcome,
    Question,
    TeacherError,
    Unavailable,
    Unfit,
    same_numbers,
)
from cloud_hub.teachers.specs import PackageSpec
from edgeloop.insights.calibration import Calibration
from edgeloop.package import PackageError, TensorSpec
from edgeloop.runtime import DeadlineExceeded, InferenceError, Model, ModelLoadError, OptionsError, probabilities_of
from edgeloop.runtime.datatypes import numpy_dtype

#: Its provider, variant and threads are found by measurement, once, within this time, seconds.
_MEASURE_S = 0.5


class PackageTeacher:
    """A loaded package.

    Args:
        folder: of the package, which was audited when it was published.
        spec: how it is to run.
        calibration: of the package's profile, or None: then its confidence is what its probabilities say.

    Raises:
        Unavailable: it does not run here.
    """

    def __init__(self, folder: Path, spec: PackageSpec, calibration: Calibration | None = None) -> None:
        self._calibration = calibration
        try:
            self._model = Model.open(folder, providers=spec.providers, threads=spec.threads, time_budget_s=_MEASURE_S)
        except (PackageError, ModelLoadError, OptionsError, OSError) as error:
            raise Unavailable(f"its package does not run here: {error}"[:500]) from error
        self._roles = {output.role: output.name for output in reversed(self._model.outputs)}
        wanted = [self._roles[role] for role in ("probabilities", "logits") if role in self._roles][:1]
        if not wanted and "label" in self._roles:
            wanted = [self._roles["label"]]
        if not wanted:
            raise Unavailable("its package has neither probabilities, logits nor a label")
        self._outputs = wanted
        self._labels = tuple(self._model.labels)
        fixed = any(spec.shape[:1] == (1,) for spec in self._model.inputs)
        self.batch = 1 if fixed else spec.batch

    def answer(self, questions: Sequence[Question], timeout_s: float) -> Sequence[Outcome]:
        """Run those that fit together; raises `Unavailable` where the run takes too long."""
        outcomes: list[Outcome | None] = [None] * len(questions)
        groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, list[Array]]]] = {}
        for place, question in enumerate(questions):
            try:
                rows = self._rows(question)
            except TeacherError as error:
                outcomes[place] = error
            else:
                groups.setdefault(tuple(row.shape for row in rows), []).append((place, rows))
        for group in groups.values():
            places = [place for place, _ in group]
            found = self._run([rows for _, rows in group], [questions[place] for place in places], timeout_s)
            for place, outcome in zip(places, found, strict=True):
                outcomes[place] = outcome
        return [Malformed("no outcome") if one is None else one for one in outcomes]

    def close(self) -> None:
        """Free the model's memory."""
        self._model.close()

    def _rows(self, question: Question) -> list[Array]:
        """A row for each input of the model; raises `Unfit`."""
        specs = self._model.inputs
        if len(specs) == 1 and len(question.tensors) == 1:
            return [_fitted(next(iter(question.tensors.values())), specs[0])]
        missing = [spec.name for spec in specs if spec.name not in question.tensors]
        if missing:
            raise Unfit(f"its package has the input {missing[0]!r}, which did not travel")
        return [_fitted(question.tensors[spec.name], spec) for spec in specs]

    def _run(self, rows: list[list[Array]], questions: list[Question], timeout_s: float) -> list[Outcome]:
        inputs = {spec.name: np.stack([row[i] for row in rows]) for i, spec in enumerate(self._model.inputs)}
        try:
            outputs = self._model.run(inputs, self._outputs, timeout_s)
        except DeadlineExceeded as error:
            raise Unavailable(f"a run of {len(rows)} inputs was {error}") from error
        except InferenceError as error:
            if len(rows) == 1:
                return [Unfit(f"its package failed on this input: {error}"[:500])]
            # One input must not take the answers from the others.
            return [one for i in range(len(rows)) for one in self._run([rows[i]], [questions[i]], timeout_s)]
        probabilities = probabilities_of(self._roles, outputs)
        if probabilities is None:
            classes = [int(label) for label in np.asarray(outputs[self._outputs[0]]).reshape(-1)]
            sure: list[float | None] = [None] * len(classes)
        else:
            if probabilities.shape[:1] != (len(rows),) or not np.isfinite(probabilities).all():
                return [Malformed("its probabilities are not finite")] * len(rows)
            classes = [int(label) for label in probabilities.argmax(axis=-1)]
            top = np.clip(probabilities.max(axis=-1), 0.0, 1.0)
            sure = (top if self._calibration is None else self._calibration.chance(top)).tolist()
        if len(classes) != len(rows):
            return [Malformed(f"it gave {len(classes)} answers to {len(rows)} inputs")] * len(rows)
        return [self._opinion(*one) for one in zip(classes, sure, questions, strict=True)]

    def _opinion(self, label: int, confidence: float | None, question: Question) -> Outcome:
        """Its class as the class of the same name of the model that answered; of the same number without names."""
        if not 0 <= label < (len(self._labels) or question.classes):
            return Malformed(f"it answered class {label}, and has no such class")
        name = self._labels[label] if self._labels and question.labels else str(label)
        found = (
            question.index_of(name)
            if self._labels and question.labels
            else (label if label < question.classes else None)
        )
        if found is None:
            return Unfit(f"it answered {name!r:.80}, which is no class of the model that asks")
        return Opinion(found, confidence, calibrated=confidence is not None and self._calibration is not None)


def _fitted(row: Array, spec: TensorSpec) -> Array:
    """The row as the model's input takes it; raises `Unfit`."""
    dtype = numpy_dtype(spec.datatype)
    shape = spec.shape[1:]
    number = _text(row) if dtype.kind == row.dtype.kind == "O" else same_numbers(row, dtype)
    if number is None:
        raise Unfit(f"its package takes {spec.datatype} for {spec.name}, and {row.dtype} travelled")
    if len(shape) == number.ndim and all(want in (-1, has) for want, has in zip(shape, number.shape, strict=True)):
        return number
    if -1 not in shape and int(np.prod(shape)) == number.size:
        return number.reshape(shape)  # the same numbers, laid out otherwise: 64 as 8 x 8
    raise Unfit(f"its package takes {list(shape)} for {spec.name}, and {list(number.shape)} travelled")


def _text(row: Array) -> Array | None:
    """A text travels as bytes, which ONNX Runtime would take for what Python prints of them; None: it is no text."""
    found = np.empty(row.shape, np.object_)
    try:
        for place, text in np.ndenumerate(row):
            found[place] = text.decode() if isinstance(text, bytes) else str(text)
    except UnicodeDecodeError:
        return None
    return found
