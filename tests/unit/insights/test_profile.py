"""A profile knows what normal looks like, and survives its files; hostile files do not get through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeloop.insights import InsightsError, Observer, Profile, Window, compare
from tests.unit.insights.worlds import Array, observed, profile, random_batch

BINS, REFERENCE = "bins.safetensors", "reference.safetensors"


def test_its_own_data_fill_its_bins_equally() -> None:
    reference = profile().reference
    for name in ("confidence", "entropy", "inputs", "projections"):
        assert (np.abs(reference.arrays[name] - 30) <= 1).all()
    assert reference.predictions == 300 == reference.arrays["classes"].sum()


def test_files_bring_it_back(tmp_path: Path) -> None:
    profile().save(tmp_path)
    read = Profile.load(tmp_path)
    assert (read.schema, read.seed, read.input_width) == (profile().schema, 5, 20)
    assert read.reference == profile().reference
    for name in ("confidence", "entropy", "inputs", "projections"):
        assert np.array_equal(read.edges.of(name), profile().edges.of(name))


def test_another_reference_leaves_the_bins_as_they_are_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    profile().save(tmp_path / "a")
    profile().with_reference(observed(random_batch(40))).save(tmp_path / "b")
    assert (tmp_path / "a" / BINS).read_bytes() == (tmp_path / "b" / BINS).read_bytes()
    assert (tmp_path / "a" / REFERENCE).read_bytes() != (tmp_path / "b" / REFERENCE).read_bytes()


def test_the_two_files_may_lie_apart(tmp_path: Path) -> None:
    bins, reference = tmp_path / "bins", tmp_path / "reference"
    bins.mkdir()
    reference.mkdir()
    profile().save(bins, reference)
    assert Profile.load(bins, reference).reference == profile().reference
    assert Profile.load(bins).reference == Window.zero(profile().schema)  # no reference yet


def test_no_reference_yet(tmp_path: Path) -> None:
    profile().with_reference(Window.zero(profile().schema)).save(tmp_path)
    assert Profile.load(tmp_path).reference.predictions == 0


def test_a_reference_of_another_schema_is_refused() -> None:
    batch = random_batch(50)
    other = Profile.fit(batch.x, batch.p, None)
    with pytest.raises(InsightsError, match="schema"):
        profile().with_reference(other.reference)


def test_a_profile_of_before_is_read(tmp_path: Path) -> None:
    profile().save(tmp_path)
    bins, reference = load_file(tmp_path / BINS), load_file(tmp_path / REFERENCE)
    for name in ("entropy", "images", "texts"):
        del bins[name]
    bins["layout"], bins["confidence"] = bins["layout"][:7].copy(), bins["confidence"][0].copy()
    save_file(bins, tmp_path / BINS)
    save_file({name: array for name, array in reference.items() if name != "entropy"}, tmp_path / REFERENCE)
    read = Profile.load(tmp_path)
    assert read.schema == replace(profile().schema, entropies=0)
    assert np.array_equal(read.edges.of("confidence"), profile().edges.of("confidence"))
    batch = random_batch(40)
    window = Window.zero(read.schema, "sha256:a")
    Observer(read).observe(window, batch.x, batch.p, batch.f, batch.ns)
    found = {aspect.name.split("[")[0] for aspect in compare(window, read.reference, read.schema).aspects}
    assert {"classes", "confidence", "inputs", "projections"} <= found and "entropy" not in found


def test_text_inputs_and_models_without_features() -> None:
    batch = random_batch(50)
    words = np.array(["a", "b"] * 25)
    fitted = Profile.fit(words, batch.p, None)
    assert (fitted.schema.inputs, fitted.schema.features, fitted.schema.projections) == (0, 0, 0)
    assert fitted.input_names == ()
    assert fitted.reference.predictions == 50


def test_rows_that_are_not_finite_are_left_out() -> None:
    batch = random_batch(100)
    batch.x[3, 4] = np.nan
    batch.f[5, 0] = np.inf
    fitted = Profile.fit(batch.x, batch.p, batch.f)
    assert fitted.reference.nonfinite == 2
    assert np.isfinite(fitted.edges.of("inputs")).all() and np.isfinite(fitted.edges.of("projections")).all()


def test_too_few_rows() -> None:
    batch = random_batch(9)
    with pytest.raises(InsightsError, match="9 finite rows"):
        Profile.fit(batch.x, batch.p, batch.f)


@pytest.mark.parametrize("wrong", [np.zeros(50), np.zeros((50, 0)), np.zeros((49, 4))], ids=["1-D", "empty", "short"])
def test_arrays_that_do_not_fit(wrong: Array) -> None:
    batch = random_batch(50)
    with pytest.raises(InsightsError):
        Profile.fit(batch.x, wrong, batch.f)


def edit(name: str, file: str = BINS) -> Callable[[Callable[[Array], Array]], Callable[[Path], None]]:
    def with_change(change: Callable[[Array], Array]) -> Callable[[Path], None]:
        def apply(folder: Path) -> None:
            tensors = load_file(folder / file)
            tensors[name] = np.ascontiguousarray(change(tensors[name]))
            save_file(tensors, folder / file)

        return apply

    return with_change


def drop(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / BINS)
        del tensors[name]
        save_file(tensors, folder / BINS)

    return apply


def overwrite(data: bytes, file: str = BINS) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / file).write_bytes(data)

    return apply


def layout(place: int, value: int) -> Callable[[Path], None]:
    return edit("layout")(lambda a: np.where(np.arange(len(a)) == place, value, a))


HOSTILE = {
    "not safetensors": overwrite(b"hello"),
    "empty": overwrite(b""),
    "a huge header": overwrite((1 << 60).to_bytes(8, "little") + b"{}"),
    "a huge shape": overwrite(
        (94).to_bytes(8, "little")
        + b'{"layout":{"dtype":"I64","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}}'[:94]
    ),
    "no layout": drop("layout"),
    "no edges": drop("projections"),
    "layout of floats": edit("layout")(lambda a: a.astype(np.float64)),
    "absurd classes": layout(0, 1 << 40),
    "no classes": layout(0, 0),
    "negative seed": layout(5, -1),
    "inputs that do not fit the width": layout(6, 3),
    "falling edges": edit("confidence")(lambda a: a[..., ::-1]),
    "edges NaN": edit("inputs")(lambda a: a * np.nan),
    "edges float32": edit("inputs")(lambda a: a.astype(np.float32)),
    "edges of another shape": edit("projections")(lambda a: a[:, :-1]),
    "negative reference": edit("classes", REFERENCE)(lambda a: -a),
    "contradicting reference": edit("classes", REFERENCE)(lambda a: a * 1000),
    "a reference of another type": edit("classes", REFERENCE)(lambda a: a.astype(np.int32)),
    "an unknown array": lambda folder: save_file({"x": np.zeros(3)}, folder / REFERENCE),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    profile().save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InsightsError, match="again"):
        Profile.load(tmp_path)


def test_a_file_above_the_limit_is_not_even_read(tmp_path: Path) -> None:
    profile().save(tmp_path)
    with (tmp_path / BINS).open("r+b") as file:
        file.truncate(65 << 20)
    with pytest.raises(InsightsError, match="limit"):
        Profile.load(tmp_path)
