"""The report: figures that follow from the package, and a page that shows them without fetching or running anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from typer.testing import CliRunner

from edgeloop.package import Package
from model_export import build, cli
from model_export.building.finished import tuning_path
from model_export.errors import InvalidPackageError, RequestError
from model_export.reading.inspect import describe
from model_export.report import Report, render, report
from model_export.report.front import Point, marked, read_search
from model_export.report.layers import compared
from model_export.report.scores import confusion, per_class, reliability, wilson
from tests.unit.export.models import rows, two_layers

HOSTILE = '</title><script>alert("x")</script>'
SECTIONS = "variants front latency classes confusion calibration layers size origin".split()  # noqa: SIM905


def build_at(place: Path, **more: Any) -> Path:
    """A package of 4 → 6 → 3 with int8, of labels that the model gets right in most rows."""
    x = rows(240)
    hidden = np.maximum(x @ _tensor("w1") + _tensor("b1"), 0)
    label = (hidden @ _tensor("w2") + _tensor("b2")).argmax(axis=1)
    label[::10] = (label[::10] + 1) % 3
    np.savez(place.parent / "data.npz", x=x, label=label)
    settings: dict[str, Any] = {
        "name": "m",
        "labels": ("a", HOSTILE, "c"),
        "precision": ("fp32", "int8"),
        "max_loss": 1.0,
        "fit_temperature": True,
    }
    build(two_layers(), place, place.parent / "data.npz", **settings | more)
    return place


def _tensor(name: str) -> Any:
    return numpy_helper.to_array(next(t for t in two_layers().graph.initializer if t.name == name))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_at(tmp_path_factory.mktemp("report") / "m")


@pytest.fixture(scope="module")
def found(package: Path) -> Report:
    return report(package)


def test_figures_follow_from_the_package(package: Path, found: Report) -> None:
    opened = Package.open(package)
    validation = opened.validation()
    assert validation is not None
    assert found.rows == len(validation[1]) and found.digest == opened.digest and found.reference == "cpu-fp32"
    for variant in found.variants:
        assert variant.accuracy == pytest.approx(opened.meta.metrics[variant.name]["accuracy"], abs=1e-4)
        assert sum(map(sum, variant.confusion)) == found.rows == sum(b.rows for b in variant.bins)
        assert sum(part.rows for part in variant.per_class) == found.rows
        assert variant.latency is not None and variant.latency.calls == sum(variant.latency.counts)
        assert variant.interval is not None and variant.interval[0] < (variant.accuracy or 0) < variant.interval[1]
    plain, small = found.variant("cpu-fp32"), found.variant("cpu-int8")
    assert plain.agreement == 1.0 and plain.difference == 0.0 and not plain.layers
    assert {layer.op for layer in small.layers} >= {"Gemm"} and all(0 <= layer.error < 0.5 for layer in small.layers)
    assert found.sizes.total == opened.index.total_bytes
    assert found.documents == {"signed": False, "about_this_digest": True}


def test_the_page_shows_every_section_and_every_variant(found: Report) -> None:
    page = render(found)
    assert len(page.encode()) < 1_000_000
    for name in SECTIONS:
        assert f'<section id="{name}"' in page, name
    assert page.count("cpu-int8") > 5 and found.digest in page
    for figure in ("ece_before", "ece_after"):
        assert f"<dt>{figure}</dt><dd><code>{found.lineage['temperature'][figure]:.4g}</code>" in page


class Reader(HTMLParser):
    """Elements, their attributes, and what is open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_fetches_nothing_and_runs_nothing_of_a_label(found: Report) -> None:
    page = render(found)
    reader = Reader()
    reader.feed(page)
    assert reader.open == [] and not [tag for tag, _ in reader.elements if tag in ("script", "iframe", "img", "object")]
    links = [value for _, attrs in reader.elements for name, value in attrs.items() if name in ("src", "href")]
    assert links == ["data:,"] and "url(" not in page and "@import" not in page
    assert not [attrs for _, attrs in reader.elements if any(name.startswith("on") for name in attrs)]
    assert "&lt;script&gt;" in page  # the label is there, as text


def test_every_picture_has_a_title_a_description_and_a_table(found: Report) -> None:
    page = render(found)
    drawings = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        assert re.search(r'<svg [^>]*role="img"[^>]*><title>[^<]+</title><desc>[^<]+</desc>', drawing)
        assert "<table>" in drawing and "<figcaption>" in drawing
    assert "NaN" not in page and "nan" not in re.sub(r"<[^>]*>", "", page).split()


def test_in_a_browser_the_page_draws_everything_and_complains_of_nothing(found: Report, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium")
    (tmp_path / "page.html").write_text(render(found), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    command += ["--enable-logging=stderr", "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    for name in SECTIONS:
        assert f'<section id="{name}"' in done.stdout, name
    assert "<script" not in done.stdout and done.stdout.count("<svg") == render(found).count("<svg")


def test_a_notebook_shows_tables_in_which_a_label_is_text(package: Path, found: Report) -> None:
    for shown in (found._repr_html_(), describe(package)._repr_html_()):
        assert "cpu-int8" in shown and "<script" not in shown


def test_the_command_writes_the_page_beside_the_package_and_tells_json(package: Path) -> None:
    run = CliRunner().invoke(cli.app, ["report", str(package)])
    assert run.exit_code == 0, run.output
    assert package.with_name("m.report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    run = CliRunner().invoke(cli.app, ["report", str(package), "--json"])
    told = json.loads(run.stdout)
    assert told["name"] == "m" and len(told["variants"]) == 2 and told["variants"][0]["layers"]


def test_a_search_beside_the_package_is_the_front(package: Path) -> None:
    def trial(description: str, accuracy: float | None, why: str = "") -> dict[str, Any]:
        recipe = {"precision": "int8", "told": description}
        told = {"name": "cpu-int8", "recipe": recipe, "description": description, "accuracy": accuracy, "why": why}
        return told | {"latency_ms": 1.5, "size_bytes": 10, "front": not why}

    trials = [trial("static", 0.9), trial("dynamic", 0.8, HOSTILE), trial("broken", None, "cannot be made")]
    told = {"objective": "latency", "accuracy_drop": 0.01, "baseline": trial("fp32", 0.9), "trials": trials}
    told |= {"chosen": ["cpu-int8"], "recipes": [trials[0]["recipe"]]}
    place = tuning_path(package)
    try:
        place.write_text(json.dumps(told))
        search = read_search(place)
        assert search is not None and [point.name for point in search.points] == ["fp32", "static", "dynamic"]
        assert [point.chosen for point in search.points] == [False, True, False]
        shown = search._repr_html_()
        assert "static" in shown and "dynamic" not in shown and "3 recipes" in shown
        page = render(report(package))
        assert "dynamic" in page and "<script" not in page
        place.write_text(json.dumps(told | {"baseline": None, "trials": []}))
        assert read_search(place) is None, "nothing could be searched here: the variants are shown"
        place.write_text("{")
        with pytest.raises(RequestError, match="cannot be read"):
            report(package)
    finally:
        place.unlink()


def test_what_is_no_package_is_not_run(tmp_path: Path, package: Path) -> None:
    copy = tmp_path / "m"
    shutil.copytree(package, copy)
    graph = copy / "cpu-int8" / "model.onnx"
    model = ModelProto.FromString(graph.read_bytes())
    model.graph.node.append(helper.make_node("PythonOp", [], ["p"], domain="com.microsoft"))
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidPackageError, match="audit"):
        report(copy)


def test_the_error_of_a_layer_is_that_of_the_value_which_is_read() -> None:
    model = two_layers()
    other = ModelProto.FromString(model.SerializeToString())
    weights = next(t for t in other.graph.initializer if t.name == "w1")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.01), "w1"))
    errors = {layer.tensor: layer.error for layer in compared(model, other, {"x": rows(20)})}
    assert errors["a"] == pytest.approx(0.01, rel=1e-3)
    assert 0 < errors["scores"] < 0.05
    assert {layer.error for layer in compared(model, model, {"x": rows(20)})} == {0.0}


def test_scores_are_what_their_definitions_say() -> None:
    truth, said = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])
    matrix = confusion(said, truth, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    a, b, c, d = per_class(matrix, ("a", "b", "c", "d"))
    assert (a.recall, a.precision) == (pytest.approx(2 / 3), 1.0)
    assert (b.recall, b.precision, c.recall, c.precision, d.recall) == (1.0, 0.5, 0.0, None, None)
    low, high = wilson(0.9, 100)  # Brown, Cai and DasGupta (2001), example
    assert (low, high) == (pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    probabilities = np.array([[0.9, 0.1]] * 10)
    bins, error = reliability(probabilities, np.array([0] * 7 + [1] * 3))
    assert len(bins) == 1 and bins[0].accuracy == pytest.approx(0.7) and error == pytest.approx(0.2)


def test_the_front_is_what_nothing_beats() -> None:
    def point(name: str, accuracy: float, latency: float, size: int) -> Point:
        return Point(name, accuracy, latency, size, front=False, chosen=False)

    points = marked(
        [point("a", 0.9, 1.0, 10), point("b", 0.9, 2.0, 10), point("c", 0.8, 0.5, 10), point("d", 0.8, 3.0, 5)]
    )
    assert [p.name for p in points if p.front] == ["a", "c", "d"]
