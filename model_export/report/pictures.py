"""The pictures of a report, each from its figures."""

from __future__ import annotations

from collections.abc import Sequence

from model_export.report.figures import Report, VariantFigures
from model_export.report.front import Point
from model_export.report.layers import LayerError
from model_export.report.scores import PerClass
from model_export.report.svg import Frame, Scale, bar, colour, dot, line, path, picture, shortened, text, width_of
from model_export.report.tensors import Tensor

WIDTH = 860.0
#: More rows than this are no picture any more; the table has all.
MOST_CLASSES, MOST_LAYERS, MOST_TENSORS, MOST_NAMED = 24, 40, 16, 8
#: With more classes a matrix of numbers cannot be read.
MOST_MATRIX = 30


def ms(value: float) -> str:
    """Milliseconds as a person reads them."""
    return f"{value * 1e3:.3g} µs" if value < 1 else f"{value:,.3g} ms" if value < 1000 else f"{value / 1e3:,.3g} s"


def share(value: float) -> str:
    """A share in percent."""
    return f"{value * 100:.4g} %"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def ran(report: Report) -> list[VariantFigures]:
    """The variants that were run, the reference first."""
    found = [variant for variant in report.variants if not variant.reason]
    return sorted(found, key=lambda variant: variant.name != report.reference)


def front(report: Report) -> str:
    """Accuracy against latency (size, where no latency is known): the nearer to the upper left the better."""
    timed = all(point.latency_ms for point in report.points)
    points = list(report.points)
    values = [point.latency_ms or 0.0 if timed else float(point.size_bytes) for point in points]
    x = _padded_log(values, 64, WIDTH - 24)
    y = _padded([point.accuracy for point in points], 276, 34, least=0.02, most=1.0)
    name = "latency of one row, logarithmic" if timed else "size, logarithmic"
    frame = Frame(x, y, name, "accuracy", ms if timed else size, share)
    shapes = [frame.draw()]
    best = sorted(((value, point.accuracy) for value, point in zip(values, points, strict=True) if point.front))
    if len(best) > 1:
        shapes.append(path([(x(value), y(accuracy)) for value, accuracy in best], "frontline"))
    order = sorted(range(len(points)), key=lambda i: (points[i].chosen, points[i].front))
    for i in order:
        point = points[i]
        style = "chosen" if point.chosen else "onfront" if point.front else "tried"
        shapes.append(dot(x(values[i]), y(point.accuracy), 7 if point.chosen else 4.5, style, _told(point)))
    shapes += _names([(x(values[i]), y(points[i].accuracy), points[i]) for i in order if points[i].chosen])
    count = f"{len(points)} recipes that were tried" if report.search else f"{len(points)} variants"
    return picture(
        WIDTH,
        324,
        "Accuracy against latency" if timed else "Accuracy against size",
        f"{count}; the filled ones are in the package.",
        *shapes,
    )


def _told(point: Point) -> str:
    latency = "" if point.latency_ms is None else f", {ms(point.latency_ms)}"
    why = f"; {point.why}" if point.why else ""
    return f"{point.name}: accuracy {share(point.accuracy)}{latency}, {size(point.size_bytes)}{why}"


def _names(places: Sequence[tuple[float, float, Point]]) -> list[str]:
    """Names at the chosen points, moved apart where they would lie on one another."""
    found: list[str] = []
    taken: list[tuple[float, float, float, float]] = []
    for x, y, point in sorted(places, key=lambda place: place[1])[:MOST_NAMED]:
        label = shortened(point.name, 36)
        wide = width_of(label)
        right = x + wide < WIDTH - 4
        left = x - 4 if right else x + 4 - wide
        for shift in (-10, 22, 38, -26, 54, -42, 70):
            box = (left, y + shift - 12, left + wide, y + shift + 2)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                break
        taken.append(box)
        found.append(text(left, y + shift, label, "label"))
    return found


def latency(report: Report) -> str:
    """How the times of a call are distributed, one strip a variant on one axis."""
    variants = [variant for variant in ran(report) if variant.latency is not None]
    found = [variant.latency for variant in variants if variant.latency is not None]
    left = _room([variant.name for variant in variants])
    strip, top = 74.0, 14.0
    bottom = top + strip * len(variants)
    x = Scale(found[0].edges[0], found[0].edges[-1], left, WIDTH - 110, logarithmic=True)
    shapes = []
    for value in x.ticks(7):
        shapes += [
            line(x(value), top, x(value), bottom, "grid"),
            text(x(value), bottom + 17, ms(value), "tick", "middle"),
        ]
    for i, (variant, times) in enumerate(zip(variants, found, strict=True)):
        base = top + strip * (i + 1) - 14
        tallest = max(times.counts) or 1
        outline = [(x(times.edges[0]), base)]
        for count, low, high in zip(times.counts, times.edges, times.edges[1:], strict=False):
            height = count / tallest * (strip - 26)
            outline += [(x(low), base - height), (x(high), base - height)]
        outline.append((x(times.edges[-1]), base))
        shapes.append(path(outline, f"{colour(i)} area", closed=True))
        shapes.append(line(x.start, base, x.end, base, "axis"))
        median, late = times.percentiles["50"], times.percentiles["95"]
        shapes.append(line(x(median), base - strip + 24, x(median), base + 5, f"{colour(i)} stroke"))
        shapes.append(line(x(late), base - 12, x(late), base + 5, f"{colour(i)} stroke thin"))
        shapes.append(text(left - 10, base - 4, shortened(variant.name, 24), "label", "end"))
        shapes.append(text(WIDTH - 100, base - 16, ms(median), "value"))
        shapes.append(text(WIDTH - 100, base, ms(late), "tick"))
    shapes.append(text(WIDTH - 100, top - 2, "median / 95 %", "tick"))
    shapes.append(text((x.start + x.end) / 2, bottom + 36, "one call with one row, logarithmic", "name", "middle"))
    told = "; ".join(f"{v.name}: median {ms(t.median)}" for v, t in zip(variants, found, strict=True))
    return picture(WIDTH, bottom + 46, "Latency of each variant", told, *shapes)


def classes(report: Report) -> str:
    """Recall of each class in each variant, as dots on one line a class."""
    variants = ran(report)
    rows = _worth_showing(variants)
    left = _room([row[0].label for row in rows])
    step, top = 26.0, 34.0
    bottom = top + step * len(rows)
    values = [part.recall for row in rows for part in row if part.recall is not None]
    x = _padded([*values, 1.0], left, WIDTH - 20, least=0.05, most=1.0)
    shapes = [_legend([variant.name for variant in variants], left, 14)]
    for value in x.ticks(7):
        shapes += [
            line(x(value), top, x(value), bottom, "grid"),
            text(x(value), bottom + 17, share(value), "tick", "middle"),
        ]
    for i, row in enumerate(rows):
        at = top + step * (i + 0.5)
        shapes.append(text(left - 12, at + 4, shortened(row[0].label, 24), "label", "end"))
        known = [(j, part.recall) for j, part in enumerate(row) if part.recall is not None]
        if known:
            ends = [x(recall) for _, recall in known]
            shapes.append(line(min(ends), at, max(ends), at, "join"))
        for j, recall in known:
            tip = f"{row[0].label}, {variants[j].name}: {share(recall)} of {row[j].rows} rows"
            shapes.append(_mark(j, x(recall), at, tip))
    shapes.append(
        text((x.start + x.end) / 2, bottom + 36, "rows of the class that are found (recall)", "name", "middle")
    )
    told = f"{len(rows)} classes in {len(variants)} variants."
    return picture(WIDTH, bottom + 46, "Accuracy of each class, before and after", told, *shapes)


def _worth_showing(variants: Sequence[VariantFigures]) -> list[tuple[PerClass, ...]]:
    """Classes with their figures in each variant; of many, those that change most, then those that are found least."""
    rows = [tuple(parts) for parts in zip(*(variant.per_class for variant in variants), strict=True)]
    if len(rows) <= MOST_CLASSES:
        return rows

    def interest(row: tuple[PerClass, ...]) -> tuple[float, float]:
        known = [part.recall for part in row if part.recall is not None]
        return (max(known) - min(known), 1 - min(known)) if known else (-1.0, -1.0)

    return sorted(rows, key=interest, reverse=True)[:MOST_CLASSES]


def matrix(variant: VariantFigures, labels: Sequence[str]) -> str:
    """The confusion matrix: what is right in blue, what is wrong in orange, each the darker the more of its row."""
    count = len(variant.confusion)
    left, top = max(40.0, _room(labels, 12)), 40.0
    cell = min(36.0, (520 - left) / count)
    shapes = []
    for i, row in enumerate(variant.confusion):
        total = sum(row) or 1
        shapes.append(text(left - 6, top + (i + 0.5) * cell + 4, shortened(labels[i], 12), "tick", "end"))
        shapes.append(
            text(left + (i + 0.5) * cell, top - 6, shortened(labels[i], max(2, int(cell / 7))), "tick", "middle")
        )
        for j, number in enumerate(row):
            x, y = left + j * cell, top + i * cell
            tip = (
                f"{labels[i]} taken for {labels[j]}: {number} of {total}"
                if i != j
                else f"{labels[i]} found: {number} of {total}"
            )
            if number:
                strength = number / total if i == j else min(1.0, 0.25 + 3 * number / total)
                shapes.append(
                    bar(x + 1, y + 1, cell - 2, cell - 2, "c0" if i == j else "c1", tip, 0.12 + 0.5 * strength)
                )
                if cell >= 18:
                    shapes.append(text(x + cell / 2, y + cell / 2 + 4, str(number), "cell", "middle"))
            else:
                shapes.append(bar(x + 1, y + 1, cell - 2, cell - 2, "empty"))
    shapes.append(text(left, 14, "said →   true ↓", "name"))
    wrong = sum(map(sum, variant.confusion)) - sum(row[i] for i, row in enumerate(variant.confusion))
    return picture(
        left + count * cell + 8,
        top + count * cell + 8,
        f"Confusion matrix of {variant.name}",
        f"{wrong} rows are taken for another class.",
        *shapes,
    )


def reliability(report: Report) -> str:
    """How often the model is right where it is so sure, and beside it how often it is so sure."""
    variants = ran(report)
    side, left, top = 320.0, 64.0, 44.0 + 18 * len(variants)
    x, y = Scale(0, 1, left, left + side), Scale(0, 1, top + side, top)
    frame = Frame(x, y, "largest probability", "share that is right", share, share)
    shapes = [_legend([f"{v.name}, ECE {v.ece:.3f}" for v in variants], left, 16, stacked=True), frame.draw()]
    shapes.append(line(x(0), y(0), x(1), y(1), "diagonal"))
    for i, variant in enumerate(variants):
        rows = sum(b.rows for b in variant.bins)
        places = [(x(b.confidence), y(b.accuracy)) for b in variant.bins]
        if len(places) > 1:
            shapes.append(path(places, f"{colour(i)} stroke thin"))
        for (at, height), b in zip(places, variant.bins, strict=True):
            tip = f"{variant.name}: {b.rows} rows with {share(b.confidence)} on average, right in {share(b.accuracy)}"
            shapes.append(_mark(i, at, height, tip, radius=3 + 5 * (b.rows / rows) ** 0.5))
    shapes += _sureness(variants, left + side + 90, top, side)
    told = "; ".join(f"{v.name}: expected calibration error {v.ece:.3f}" for v in variants)
    return picture(WIDTH, top + side + 46, "Reliability diagram", told, *shapes)


def _sureness(variants: Sequence[VariantFigures], left: float, top: float, height: float) -> list[str]:
    """Rows in each bin of the largest probability."""
    most = max(b.rows for v in variants for b in v.bins)
    x, y = Scale(0, 1, left, WIDTH - 24), Scale(0, most, top + height, top)
    shapes = [Frame(x, y, "largest probability", "rows", share, lambda value: f"{value:g}").draw()]
    for i, variant in enumerate(variants):
        for b in variant.bins:
            wide = (x(b.high) - x(b.low) - 3) / len(variants)
            tip = f"{variant.name}: {b.rows} rows between {share(b.low)} and {share(b.high)}"
            at = x(b.low) + 1.5 + i * wide
            shapes.append(bar(at, y(b.rows), wide, y(0) - y(b.rows), colour(i), tip))
    return shapes


def layers(variant: VariantFigures) -> str:
    """The error of each node in the order of the graph; of many nodes, those with the largest error."""
    chosen: Sequence[LayerError] = variant.layers
    if len(chosen) > MOST_LAYERS:
        least = sorted((layer.error for layer in chosen), reverse=True)[MOST_LAYERS - 1]
        chosen = [layer for layer in chosen if layer.error >= least][:MOST_LAYERS]
    worst = max((layer.error for layer in chosen), default=0.0) or 1.0
    rows = [
        (
            f"{layer.node} ({layer.op})",
            layer.error,
            f"{share(layer.error)}" + (f", {layer.decibel:.0f} dB" if layer.decibel is not None else ""),
            layer.error == worst,
        )
        for layer in chosen
    ]
    return _bars(
        rows,
        worst,
        f"Error of each node of {variant.name}",
        "Euclidean length of the difference, as a share of the values'.",
    )


def tensors(found: Sequence[Tensor], variants: int) -> str:
    """The largest tensors, and what variants read each."""
    shown = found[:MOST_TENSORS]
    most = max(tensor.bytes for tensor in shown)
    rows = [
        (
            tensor.name,
            float(tensor.bytes),
            f"{size(tensor.bytes)}  {tensor.datatype.lower()} {'×'.join(map(str, tensor.shape))}",
            len(tensor.variants) == variants and variants > 1,
        )
        for tensor in shown
    ]
    rest = len(found) - len(shown)
    more = f" {rest} smaller ones are in the table." if rest else ""
    return _bars(rows, float(most), "Size of each tensor", f"The {len(shown)} largest.{more}")


def _bars(rows: Sequence[tuple[str, float, str, bool]], most: float, title: str, description: str) -> str:
    """Bars with a name at the left, words at the right, and another colour where the last is true."""
    step, left = 24.0, _room([row[0] for row in rows], 30)
    right = 14 + max(width_of(row[2]) for row in rows)
    x = Scale(0, most, left, WIDTH - right)
    shapes = []
    for i, (name, value, words, marked) in enumerate(rows):
        y = i * step + 6
        shapes.append(text(left - 10, y + 13, shortened(name, 30), "label", "end"))
        shapes.append(
            bar(left, y + 1, max(x(value) - left, 1.5), step - 8, "c1" if marked else "c0", f"{name}: {words}")
        )
        shapes.append(text(x(value) + 8, y + 13, words, "tick"))
    return picture(WIDTH, len(rows) * step + 10, title, description, *shapes)


def _mark(series: int, x: float, y: float, tip: str, radius: float = 5.5) -> str:
    """A mark of a series: the first is a ring, so that one that lies on it stays visible."""
    return dot(
        x, y, radius + 1.5 if not series else radius, f"ring{series}" if not series else f"{colour(series)} dot", tip
    )


def _legend(names: Sequence[str], left: float, y: float, *, stacked: bool = False) -> str:
    shapes, x = [], left
    for i, name in enumerate(names):
        shapes += [_mark(i, x + 6, y - 4, "", 4.5), text(x + 18, y, shortened(name, 34), "label")]
        if stacked:
            y += 18
        else:
            x += 34 + width_of(shortened(name, 34))
    return "".join(shapes)


def _room(names: Sequence[str], most: int = 24) -> float:
    return 24 + width_of("m" * max(min(len(name), most) for name in names))


def _padded(values: Sequence[float], start: float, end: float, *, least: float, most: float) -> Scale:
    low, high = min(values), max(values)
    reach = max(high - low, least)
    return Scale(
        max(0.0, low - 0.12 * reach - (reach - (high - low)) / 2),
        min(most, high + 0.12 * reach) if high < most else most,
        start,
        end,
    )


def _padded_log(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = max(min(values), 1e-6), max(*values, 1e-6)
    reach = max((high / low) ** 0.12, 1.15)
    return Scale(low / reach, high * reach, start, end, logarithmic=True)
