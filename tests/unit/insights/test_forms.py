"""What the first input is: seen from its shape and type, or declared; kept in the profile; and drift over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from edgeloop.insights import DriftReport, InsightsError, Observer, Profile, Window, compare
from edgeloop.insights.forms import InputForm
from tests.unit.insights.worlds import Array, random_batch

RNG = np.random.default_rng(17)
SCENES = gaussian_filter(RNG.random((600, 24, 24)), (0, 1.5, 1.5)) * RNG.uniform(0.7, 1.3, (600, 1, 1))
#: Words by how often they come, as in a language: Zipf's law over 4,000 of them.
WORDS = np.array([f"w{number}" for number in range(4_000)])


def sentences(rows: int, seed: int, words: Array = WORDS) -> list[Array]:
    """For each row 5 to 30 places in a list of words, drawn by Zipf's law."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(words) + 1)
    return [rng.choice(len(words), rng.integers(5, 31), p=weights / weights.sum()) for _ in range(rows)]


def texts(rows: int, seed: int, words: Array = WORDS) -> Array:
    return np.array([" ".join(words[places]) for places in sentences(rows, seed, words)], dtype=object)


def tokens(rows: int, seed: int, first: int = 1) -> Array:
    found = np.zeros((rows, 32), np.int64)
    for row, places in zip(found, sentences(rows, seed), strict=True):
        row[: len(places)] = places + first
    return found


def fit(inputs: Array, **more: Any) -> Profile:
    batch = random_batch(len(inputs), seed=len(inputs))
    return Profile.fit(inputs, batch.p, batch.f, **more)


def report(profile: Profile, inputs: Array, **more: Any) -> DriftReport:
    batch = random_batch(len(inputs), seed=99)
    window = Window.zero(profile.schema, "sha256:a")
    Observer(profile).observe(window, inputs, batch.p, batch.f, batch.ns)
    read = Window.from_wire(window.to_wire(), profile.schema)
    assert read == window
    return compare(read, profile.reference, profile.schema, input_names=profile.input_names, **more)


SHAPES: list[tuple[tuple[int, ...], Any, str, int]] = [
    ((50, 3, 16, 16), np.float32, "image", 1),
    ((50, 16, 16, 3), np.uint8, "image", 3),
    ((50, 1, 28, 28), np.float32, "image", 1),
    ((50, 28, 28, 4), np.float32, "image", 3),
    ((50, 28, 28), np.float32, "image", 0),
    ((50, 5, 6), np.float32, "numbers", 0),
    ((50, 7, 16, 16), np.float32, "numbers", 0),
    ((50, 20), np.int64, "numbers", 0),
    ((50,), np.float64, "numbers", 0),
]


@pytest.mark.parametrize(("shape", "dtype", "kind", "axis"), SHAPES)
def test_what_shape_and_type_say(shape: tuple[int, ...], dtype: Any, kind: str, axis: int) -> None:
    form = InputForm.of(np.ones(shape, dtype))
    assert (form.kind, form.channel_axis, form.pad) == (kind, axis, -1)


@pytest.mark.parametrize("inputs", [np.array(["a"] * 50), np.array([b"a"] * 50), np.array(["a"] * 50, dtype=object)])
def test_what_is_not_numeric_is_a_text(inputs: Array) -> None:
    assert InputForm.of(inputs).kind == "text"


def test_what_is_declared_counts() -> None:
    small = np.ones((50, 6, 6), np.float32)
    assert InputForm.of(small).kind == "numbers" and InputForm.of(small, "image").kind == "image"
    pictures = np.ones((50, 3, 16, 16), np.float32)
    profile = fit(pictures + RNG.random((50, 1, 1, 1)), kind="numbers")
    assert (profile.schema.images, profile.schema.inputs) == (0, 8)
    assert InputForm.of(tokens(50, 0), "tokens").pad == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [((50, 20), float, "image"), ((50, 20), float, "tokens"), ((50, 4, 2), int, "tokens"), ((50,), float, "text"),
     ((50,), str, "numbers"), ((50, 2, 9), float, "image")],
)  # fmt: skip
def test_what_cannot_be_is_refused(shape: tuple[int, ...], dtype: type, kind: Any) -> None:
    with pytest.raises(InsightsError, match=f"cannot be {kind}"):
        InputForm.of(np.zeros(shape, dtype), kind)


FORMS: dict[str, Any] = {
    "image": lambda: fit(SCENES[:120]),
    "colours": lambda: fit(np.repeat(SCENES[:120, None], 3, axis=1)),
    "tokens": lambda: fit(tokens(120, 1), kind="tokens"),
    "text": lambda: fit(texts(120, 1)),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_bring_it_back(name: str, tmp_path: Path) -> None:
    profile = FORMS[name]()
    profile.save(tmp_path)
    read = Profile.load(tmp_path)
    mine, theirs = profile.form, read.form
    assert (mine.kind, mine.channel_axis, mine.pad) == (theirs.kind, theirs.channel_axis, theirs.pad)
    assert np.array_equal(mine.vocabulary, theirs.vocabulary) and read.schema == profile.schema
    assert read.reference == profile.reference
    assert all(np.array_equal(read.edges.of(h), profile.edges.of(h)) for h in ("images", "texts"))


@pytest.mark.parametrize("name", FORMS)
def test_another_form_leaves_the_window_unchanged(name: str) -> None:
    profile = FORMS[name]()
    batch = random_batch(20)
    window = Window.zero(profile.schema, "sha256:a")
    wrong = [np.zeros((20, 40)), np.zeros((20, 3, 2, 200)), np.zeros((20, 5, 16, 16))]
    wrong += [np.zeros((20, 9)), np.array([["a"]] * 20)][: 2 if name == "image" else 1]
    for inputs in wrong:
        with pytest.raises(InsightsError, match="rows of"):
            Observer(profile).observe(window, inputs, batch.p, batch.f, batch.ns)
    assert window == Window.zero(profile.schema, "sha256:a")


def test_half_of_the_texts_say_what_is_known_and_the_others_what_is_normal() -> None:
    profile = FORMS["text"]()
    assert profile.schema.inputs == 0 and profile.input_names == ()
    assert profile.reference.predictions == 120
    assert profile.reference.arrays["texts"].sum(axis=1).tolist() == [60, 60]
    assert len(np.unique(profile.edges.of("texts")[1])) > 5, "words that were not seen come in clean texts as well"


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda x: x * 0.6, "image brightness"),
        (lambda x: x.mean() + (x - x.mean()) * 0.5, "image contrast"),
        (lambda x: gaussian_filter(x, (0, 2, 2)), "image sharpness"),
    ],
    ids=["dark", "flat", "blurred"],
)
def test_a_camera_that_changes_is_named(change: Any, moved: str) -> None:
    profile = fit(SCENES[:300])
    said = " ".join(aspect.moved for aspect in report(profile, change(SCENES[300:])).moved)
    assert f"{moved}: " in said


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_other_words_and_other_lengths_are_named(kind: str) -> None:
    make: Any = texts if kind == "text" else tokens
    profile = fit(make(400, 1), kind=kind)
    strange = make(200, 2, np.array([f"x{n}" for n in range(4_000)])) if kind == "text" else make(200, 2, first=9_000)
    assert "known vocabulary: " in " ".join(aspect.moved for aspect in report(profile, strange).moved)
    plain = make(200, 2)
    longer = np.array([text + " w1 w2" * 9 for text in plain], object) if kind == "text" else np.where(plain, plain, 3)
    assert "text length: " in " ".join(aspect.moved for aspect in report(profile, longer).moved)


@pytest.mark.parametrize("kind", ["text", "tokens", "image"])
def test_false_alarms_come_as_often_as_asked_for(kind: str) -> None:
    """Also for what was learned: words that no validation text holds are normal to a degree, and that is known."""
    make: Any = {"text": texts, "tokens": tokens, "image": lambda rows, seed: SCENES[seed * 20 : seed * 20 + rows]}[
        kind
    ]
    alarms = 0
    for trial in range(12):
        profile = fit(make(200, trial), kind=kind)
        seen = make(100, (trial + 12) if kind != "image" else (trial + 15) % 24)
        report_ = report(profile, seen, alpha=0.05, min_effect=0.0)
        alarms += any(a.drifted for a in report_.aspects if a.name.startswith(("texts", "images")))
    assert alarms <= 4  # of 12 at a rate of 0.05 at most: more come once in 3,000 times


def test_texts_from_a_model_that_never_was_observed_that_way() -> None:
    """A profile of before, in which a text has no aspect of its own, looks at no input."""
    profile = fit(texts(60, 1))
    from dataclasses import replace

    schema = replace(profile.schema, texts=0)
    old = replace(profile, schema=schema, form=InputForm(), reference=Window.zero(schema))
    window = Window.zero(schema, "sha256:a")
    batch = random_batch(30)
    Observer(old).observe(window, texts(30, 2), batch.p, batch.f, batch.ns)
    assert window.predictions == 30 and not window.arrays["texts"].size
