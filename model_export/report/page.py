"""A report as one page: no script, nothing from elsewhere, readable in light and dark, on paper, and aloud."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from edgeloop import __version__
from model_export.report import pictures
from model_export.report.figures import Report, VariantFigures
from model_export.report.pictures import ms, ran, share, size

#: Rows of a table behind a picture; ``--json`` has all.
MOST_ROWS = 400
#: Matrices and pictures of layers; a page of every variant of a large search would be no page.
MOST_MATRICES, MOST_LAYERS = 4, 6
#: Nothing can be fetched or run, whatever a label or a name of the package contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_FRONT = "On the line: nothing else is as good in accuracy, latency and size, and better in one of them."
_LATENCY = (
    "Measured now, in the sessions that serve, call by call in turn, so that what disturbs one variant disturbs all. "
    "Long mark: median; short mark: 95 % of the calls are faster."
)
_CALIBRATION = (
    "A point on the diagonal: of rows with 80 % the model is right in 80 %. Below it the model is too sure. Larger "
    "points stand for more rows. ECE is the expected calibration error: the mean distance to the diagonal, by rows."
)
_LAYERS = (
    "the values of the same node on validation rows, in the order of the graph. An error carries on from node to node; "
    "a jump says which node makes it."
)


def render(report: Report) -> str:
    """The page, as HTML."""
    style = resources.files("model_export.report").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(f'{report.name} {report.version}')}: report</title><style>{style}</style></head><body>"
        f"{_header(report)}<main>{''.join(_sections(report))}</main>"
        f"<footer>Made by model-export {escape(__version__)} from what ran on the machine above. "
        "Figures of devices differ; each device measures for itself.</footer></body></html>\n"
    )


def _header(report: Report) -> str:
    best = report.variant(report.best)
    runtime = f"ONNX Runtime {report.machine.get('onnxruntime', '')}"
    kind = f"{report.task} · {len(report.labels)} classes · {len(report.variants)} variants"
    return (
        f'<header><p class="kind">{escape(kind)}</p>'
        f"<h1>{escape(report.name)} <span>{escape(report.version)}</span></h1>"
        f'<p class="digest"><code>{escape(report.digest)}</code></p>'
        f'<p class="where">{escape(report.machine.get("hardware", ""))} · {escape(runtime)}</p>'
        f'<p class="fastest">The fastest variant here is <b>{escape(best.name)}</b>:</p>'
        f'<dl class="cards">{"".join(_cards(report, best))}</dl></header>'
    )


def _cards(report: Report, best: VariantFigures) -> Iterable[str]:
    """What counts, of the fastest variant, held against the reference."""
    plain = report.variant(report.reference)
    low, high = best.interval or (0.0, 1.0)
    other = best is not plain
    yield _card(
        "Accuracy",
        share(best.accuracy or 0.0),
        f"{low:.1%} to {high:.1%} with 95 % certainty",
        _change(best.accuracy, plain.accuracy, plain.name) if other else "",
    )
    if best.latency is not None and plain.latency is not None:
        yield _card(
            "Latency of one row",
            ms(best.latency.median),
            f"95 %: {ms(best.latency.percentiles['95'])}",
            f"{plain.latency.median / best.latency.median:.2f}× as fast as {plain.name}" if other else "",
        )
    yield _card(
        "Graph and tensors",
        size(best.size_bytes),
        f"a device fetches {size(report.sizes.fetched[best.name])}",
        f"{best.size_bytes / plain.size_bytes:.0%} of {plain.name}" if other else "",
    )
    if other:
        worst = f"probabilities differ by {best.difference:.3g} at most"
        yield _card("Same decision", share(best.agreement or 0.0), f"as {plain.name}, {report.rows} rows", worst)
    else:
        yield _card("Calibration error", f"{best.ece:.3f}", f"expected, on {report.rows} rows")


def _card(name: str, value: str, *small: str) -> str:
    lines = "".join(f"<span>{escape(words)}</span>" for words in small if words)
    return f'<div class="card"><dt>{escape(name)}</dt><dd><b>{escape(value)}</b>{lines}</dd></div>'


def _sections(report: Report) -> Iterable[str]:
    if report.observations:
        yield _section("observations", "What to know", _list(report.observations))
    yield _section("variants", "Variants", _variants(report))
    yield _section("front", "Accuracy against latency", _front(report))
    yield _section("latency", "Latency", _latency(report))
    yield _section("classes", "Accuracy of each class", _classes(report))
    yield _section("confusion", "Confusion", _confusion(report))
    yield _section("calibration", "Calibration", _calibration(report))
    yield _section("layers", "Error of each layer", _layers(report))
    yield _section("size", "Size", _size(report))
    yield _section("origin", "Where it comes from", _origin(report))


def _section(name: str, title: str, body: str) -> str:
    heading = f'<h2 id="{name}-title">{escape(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{body}</section>'


def _variants(report: Report) -> str:
    head = ("variant", "provider", "accuracy", "95 % interval", "same decision", "ECE", "median", "size", "fetched")
    rows = []
    for v in report.variants:
        provider, fetched = v.provider.removesuffix("ExecutionProvider"), size(report.sizes.fetched[v.name])
        if v.interval is None:
            rows.append([v.name, provider, f"not run: {v.reason}", "", "", "", "", size(v.size_bytes), fetched])
            continue
        rows.append(
            [
                v.name,
                provider,
                share(v.accuracy or 0.0),
                f"{v.interval[0]:.1%} to {v.interval[1]:.1%}",
                "reference" if v.name == report.reference else share(v.agreement or 0.0),
                f"{v.ece:.3f}",
                "" if v.latency is None else ms(v.latency.median),
                size(v.size_bytes),
                fetched,
            ]
        )
    return _table(head, rows) + '<p class="note">Fetched: what a device downloads that may run this variant alone.</p>'


def _front(report: Report) -> str:
    search = report.search
    words = f"The variants of the package. {_FRONT}"
    if search is not None:
        drop = "" if search.accuracy_drop is None else f"; accuracy may fall by {share(search.accuracy_drop)}"
        words = f"Every recipe that was tried. Filled: in the package. {_FRONT} Objective: {search.objective}{drop}."
    head = ("recipe", "accuracy", "latency", "size", "on the front", "in the package", "what became of it")
    rows = [
        [
            point.name,
            share(point.accuracy),
            "" if point.latency_ms is None else ms(point.latency_ms),
            size(point.size_bytes),
            "yes" if point.front else "",
            "yes" if point.chosen else "",
            point.why,
        ]
        for point in report.points
    ]
    found = _figure(pictures.front(report), words, head, rows)
    if search is None or not search.sensitivity:
        return found
    names = ("node", "op", "error", "accuracy_without")
    nodes = [[_plain(item.get(name, "")) for name in names] for item in search.sensitivity]
    return (
        f"{found}<h3>Sensitivity of nodes</h3>"
        "<p>What int8 does to the output of each node, and the accuracy where it alone is left in float.</p>"
        f"{_table(('node', 'operator', 'error', 'accuracy without it'), nodes[:40])}"
    )


def _latency(report: Report) -> str:
    percentiles = ("5", "25", "50", "75", "95", "99")
    rows = [
        [v.name, str(v.latency.calls), str(v.latency.threads), *(ms(v.latency.percentiles[p]) for p in percentiles)]
        for v in ran(report)
        if v.latency is not None
    ]
    head = ("variant", "calls", "threads", *(f"{p} %" if p != "50" else "median" for p in percentiles))
    return _figure(pictures.latency(report), _LATENCY, head, rows)


def _classes(report: Report) -> str:
    variants = ran(report)
    head = ["class", "rows", *(f"{v.name}: {what}" for v in variants for what in ("recall", "precision"))]
    rows = [
        [
            parts[0].label,
            str(parts[0].rows),
            *("–" if value is None else share(value) for part in parts for value in (part.recall, part.precision)),
        ]
        for parts in zip(*(v.per_class for v in variants), strict=True)
    ]
    words = f"The ring is {report.reference}; where another variant's dot lies inside it, the class has lost nothing."
    return _figure(pictures.classes(report), words, head, rows)


def _confusion(report: Report) -> str:
    variants, labels = ran(report), report.labels
    head, found = ("true class", "taken for", "rows"), []
    for v in variants[:MOST_MATRICES]:
        wrong = [(n, i, j) for i, row in enumerate(v.confusion) for j, n in enumerate(row) if n and i != j]
        pairs = [[labels[i], labels[j], str(n)] for n, i, j in sorted(wrong, key=lambda pair: (-pair[0], *pair[1:]))]
        if len(labels) > pictures.MOST_MATRIX:
            found.append(f"<div><h3>{escape(v.name)}</h3>{_table(head, pairs[:40])}</div>")
        else:
            words = f"{v.name}: rows of the validation set."
            found.append(_figure(pictures.matrix(v, labels), words, head, pairs))
    rest = ", ".join(v.name for v in variants[MOST_MATRICES:])
    more = f"<p>The matrices of {escape(rest)} are in the JSON.</p>" if rest else ""
    return f'<div class="pair">{"".join(found)}</div>{more}'


def _calibration(report: Report) -> str:
    rows = [
        [v.name, f"{b.low:.3f} to {b.high:.3f}", str(b.rows), share(b.confidence), share(b.accuracy)]
        for v in ran(report)
        for b in v.bins
    ]
    head = ("variant", "largest probability", "rows", "on average", "right")
    return _figure(pictures.reliability(report), _CALIBRATION, head, rows)


def _layers(report: Report) -> str:
    head, found = ("node", "operator", "tensor", "error", "signal to noise"), []
    for v in [v for v in ran(report) if v.layers][:MOST_LAYERS]:
        rows = [
            [n.node, n.op, n.tensor, share(n.error), "" if n.decibel is None else f"{n.decibel:.1f} dB"]
            for n in v.layers
        ]
        many = len(v.layers) > pictures.MOST_LAYERS
        words = f"{v.name} against {report.reference}: {_LAYERS}"
        if many:
            words += f" Drawn are the {pictures.MOST_LAYERS} largest of {len(v.layers)}."
        found.append(_figure(pictures.layers(v), words, head, rows))
    return "".join(found) or f"<p>No variant has nodes to hold against those of {escape(report.reference)}.</p>"


def _size(report: Report) -> str:
    sizes = report.sizes
    words = (
        f"The package has {size(sizes.total)}; a device that may run every variant fetches {size(sizes.device)}, and "
        f"never the validation set ({size(sizes.validation)}). An update fetches only files that have changed."
    )
    graphs = [[name, f"{count:,}", f"{sizes.fetched[name]:,}"] for name, count in sizes.graphs.items()]
    table = _table(("variant", "bytes of the graph", "bytes that a device fetches"), graphs)
    if not sizes.tensors:
        return f"<p>{escape(words)}</p>{table}"
    if len(report.variants) > 1 and any(len(tensor.variants) == len(report.variants) for tensor in sizes.tensors):
        words += " Orange: one file that all variants share."
    rows = [
        [t.name, t.datatype.lower(), "×".join(map(str, t.shape)), f"{t.bytes:,}", ", ".join(t.variants)]
        for t in sizes.tensors
    ]
    drawing = pictures.tensors(sizes.tensors, len(report.variants))
    return _figure(drawing, words, ("tensor", "type", "shape", "bytes", "read by"), rows) + table


def _origin(report: Report) -> str:
    lineage = dict(report.lineage)
    parts = {
        "Parity with the source": lineage.pop("parity", None),
        "Temperature": lineage.pop("temperature", None),
        "Lineage": {name: value for name, value in lineage.items() if value is not None},
        "Recipe": report.recipe,
    }
    found = [f"<h3>{escape(title)}</h3>{_values(values)}" for title, values in parts.items() if values]
    if report.documents is None:
        words = "Nothing lies beside the package that says how it was built."
    else:
        signed = "signed" if report.documents["signed"] else "not signed yet"
        about = "about this digest" if report.documents["about_this_digest"] else "about another digest"
        words = (
            f"Beside the package: a bill of materials and a provenance, {about}, {signed}. "
            "Whether somebody is believed who signed: model-export verify --provenance."
        )
    specs = (*report.inputs, *report.outputs)
    tensors = [[str(t["name"]), str(t["datatype"]), _plain(t["shape"]), str(t.get("role", "input"))] for t in specs]
    found.append(f"<h3>Provenance</h3><p>{escape(words)}</p>")
    found.append(f"<h3>Inputs and outputs</h3>{_table(('name', 'type', 'shape', 'role'), tensors)}")
    return "".join(found)


def _values(values: Any) -> str:
    """Nested values as a list of terms."""
    if isinstance(values, Mapping):
        terms = "".join(f"<dt>{escape(str(name))}</dt><dd>{_values(value)}</dd>" for name, value in values.items())
        return f'<dl class="values">{terms}</dl>'
    if isinstance(values, list | tuple) and any(isinstance(value, Mapping) for value in values):
        return "<ul>" + "".join(f"<li>{_values(value)}</li>" for value in values[:40]) + "</ul>"
    return f"<code>{escape(_plain(values))}</code>"


def _plain(value: Any) -> str:
    """A value of a manifest as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _figure(drawing: str, words: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return (
        f'<figure><div class="drawing">{drawing}</div><figcaption>{escape(words)}</figcaption>'
        f"<details><summary>The figures as a table</summary>{_table(head, rows)}</details></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows[:MOST_ROWS]
    )
    more = f"<p>{len(rows) - MOST_ROWS} more rows are in the JSON.</p>" if len(rows) > MOST_ROWS else ""
    return (
        f'<div class="table" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>{more}'
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(words)}</li>" for words in lines) + "</ul>"


def _change(now: float | None, before: float | None, name: str) -> str:
    change = (now or 0.0) - (before or 0.0)
    return f"as {name}" if not change else f"{'+' if change > 0 else '−'}{abs(change) * 100:.2f} points to {name}"
