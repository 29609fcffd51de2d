"""The variants of a package: one graph for each precision, run once on the validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from model_export.errors import ExportError, QuantizationError, UnsupportedModelError
from model_export.graph import Array
from model_export.measure import Metrics, accuracy, non_finite, size_of
from model_export.prepare import Prepared
from model_export.probe import Probe
from model_export.quantize import Int8Options, quantizable, to_int8

PRECISIONS = ("fp32", "int8")
#: A default int8 variant that loses more accuracy than this is left out.
MAX_LOSS = 0.03


@dataclass(frozen=True)
class Variant:
    """A graph, what it gives on the validation rows, and what it is worth."""

    precision: str
    model: ModelProto
    outputs: Mapping[str, Array]
    metrics: Metrics

    @property
    def name(self) -> str:
        """``<device>-<precision>``."""
        return f"cpu-{self.precision}"


def make_variants(
    prepared: Prepared,
    calibration: Array,
    validation: Array,
    *,
    precisions: Sequence[str] | None,
    int8: Int8Options,
    max_loss: float,
    latency: bool = True,
) -> tuple[list[Variant], list[str]]:
    """One variant a precision, and notes about what was left out.

    Args:
        prepared: the float model.
        calibration: row numbers that show int8 the ranges of the activations.
        validation: row numbers on which variants are measured.
        precisions: those asked for; None: fp32, and int8 where it is possible and good enough.
        int8: how to quantize.
        max_loss: of accuracy, by int8 against fp32, as a share.
        latency: whether to measure it.

    Raises:
        QuantizationError: int8 was asked for by name, and cannot be made or loses too much.
    """
    rows, truth = prepared.part(validation)
    plain = _measured("fp32", prepared.model, prepared, rows, truth, latency)
    if precisions is not None and "int8" not in precisions:
        return [plain], []
    try:
        small = _int8(prepared, calibration, int8, rows, truth, latency)
        loss = plain.metrics.accuracy - small.metrics.accuracy
        if loss > max_loss:
            raise QuantizationError(
                f"int8 loses {loss:.3f} of accuracy ({plain.metrics.accuracy:.3f} → {small.metrics.accuracy:.3f})",
                "try --calibration percentile or --int8-scheme s8s8, allow it with --max-loss, or use --precision fp32",
            )
    except (QuantizationError, UnsupportedModelError) as error:
        if precisions is not None:
            raise
        return [plain], [f"no int8 variant: {_sentence(error)}"]
    # onnxruntime takes the first variant that fits the provider, so the small one comes first.
    both = [small, plain]
    return [v for v in both if precisions is None or v.precision in precisions], []


def _sentence(error: ExportError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


def _int8(
    prepared: Prepared, calibration: Array, options: Int8Options, rows: Mapping[str, Array], truth: Array, latency: bool
) -> Variant:
    if not quantizable(prepared.model):
        raise QuantizationError("nothing besides the head would run in int8", "use --precision fp32")
    model = to_int8(prepared.model, prepared.part(calibration)[0], options)
    return _measured("int8", model, prepared, rows, truth, latency)


def _measured(
    precision: str, model: ModelProto, prepared: Prepared, rows: Mapping[str, Array], truth: Array, latency: bool
) -> Variant:
    probe = Probe(model)
    outputs = probe.run(rows)
    bad = non_finite(outputs)
    if bad:
        raise UnsupportedModelError(f"output {bad[0]} of the {precision} variant has numbers that are not finite")
    metrics = Metrics(
        accuracy=accuracy(outputs[prepared.scores], truth),
        size_bytes=size_of(model),
        latency_ms=probe.median_ms(rows) if latency else None,
    )
    return Variant(precision, model, outputs, metrics)
