"""What a person should see in the figures of a report, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_export.report.figures import Report, VariantFigures

#: Below this ratio of medians, and above its inverse, one variant is faster than another for certain enough to say so.
FASTER = 0.95
#: Points of a class's recall that are worth a sentence, with at least so many rows.
CLASS_DROP, CLASS_ROWS = 0.05, 10
#: Expected calibration error from which probabilities should not be taken at their word.
POOR_CALIBRATION = 0.05
#: Half of the interval of an accuracy from which the set is too small to tell variants apart.
ROUGH = 0.03


def observations(report: Report) -> tuple[str, ...]:
    """Sentences, the most important first."""
    reference = report.variant(report.reference)
    found = [f"{variant.name} was not run: {variant.reason}." for variant in report.variants if variant.reason]
    for variant in report.variants:
        if variant.accuracy is not None and variant.name != reference.name:
            found += _against(variant, reference, report.rows)
    if reference.interval is not None and reference.interval[1] - reference.interval[0] > 2 * ROUGH:
        reach = (reference.interval[1] - reference.interval[0]) / 2
        found.append(f"{report.rows} validation rows say the accuracy to ±{reach:.1%} only; more rows would say more.")
    for variant in report.variants:
        if variant.ece is not None and variant.ece > POOR_CALIBRATION and variant.accuracy is not None:
            sure = sum(b.confidence * b.rows for b in variant.bins) / sum(b.rows for b in variant.bins)
            found.append(
                f"{variant.name} is {'too sure' if sure > variant.accuracy else 'not sure enough'}: on average it "
                f"says {sure:.1%}, and is right in {variant.accuracy:.1%} (calibration error {variant.ece:.3f})."
            )
    if not report.head:
        found.append("No head is exposed: the hub cannot retrain this model by its head trainer.")
    if report.documents is not None and not report.documents["about_this_digest"]:
        found.append("The provenance beside the package is about another digest.")
    return tuple(found)


def _against(variant: VariantFigures, reference: VariantFigures, rows: int) -> list[str]:
    found = []
    if variant.latency is not None and reference.latency is not None:
        ratio = variant.latency.median / reference.latency.median
        if ratio < FASTER:
            speed = f"{1 / ratio:.2f} times as fast as {reference.name}"
        elif ratio > 1 / FASTER:
            speed = f"slower than {reference.name} on this machine ({ratio:.2f} times its time)"
        else:
            speed = f"about as fast as {reference.name}"
        change = (variant.accuracy or 0.0) - (reference.accuracy or 0.0)
        moved = round(abs(change) * rows)
        accuracy = f"{'gains' if change > 0 else 'loses'} {abs(change):.2%} of accuracy ({moved} of {rows} rows)"
        size = variant.size_bytes / reference.size_bytes
        found.append(
            f"{variant.name} is {speed}, {size:.0%} of its size, and {accuracy if moved else 'loses no accuracy'}; "
            f"it decides alike in {variant.agreement:.2%} of the rows."
        )
    drops = [
        (before.recall - after.recall, before.label)
        for before, after in zip(reference.per_class, variant.per_class, strict=True)
        if before.recall is not None and after.recall is not None and before.rows >= CLASS_ROWS
    ]
    worst = max(drops, default=(0.0, ""))
    if worst[0] >= CLASS_DROP:
        found.append(f"{variant.name} finds {worst[0]:.1%} fewer of the class “{worst[1]}”.")
    if variant.layers:
        layer = max(variant.layers, key=lambda layer: layer.error)
        found.append(
            f"{variant.name} is farthest from {reference.name} at {layer.node} ({layer.op}): {layer.error:.1%}."
        )
    return found
