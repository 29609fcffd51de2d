"""Images, tokens and texts as requests bring them: of many sizes, and none of them costs another's counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_agent.observing.watch import NO_ROWS, Watch
from edge_agent.ports import LoadedRelease
from edgeloop.insights import Profile, Window
from tests.unit.observing.doubles import batch, release

PLACES = {"scores": 0, "features": 1}


def loaded(inputs: np.ndarray[Any, Any], **more: Any) -> LoadedRelease:
    _, outputs = batch(len(inputs), 99)
    return replace(release(), profile=Profile.fit(inputs, outputs["scores"], outputs["features"], **more))


def observed(known: LoadedRelease, requests: Sequence[np.ndarray[Any, Any]], rows: Sequence[int]) -> Window:
    watch = Watch.of(known)
    assert watch is not None and known.profile is not None
    window = Window.zero(known.profile.schema, known.digest)
    answered = []
    for number, (inputs, count) in enumerate(zip(requests, rows, strict=True)):
        _, outputs = batch(count, number)
        answered.append((known, f"p{number}", inputs, [*outputs.values()], PLACES, "", 90_000, 60_000))
    counted = [watch.observe(known, window, some) for some in watch.by_form(answered)]
    assert sorted(np.concatenate([one.counts for one in counted]).tolist()) == sorted(rows)
    return window


def merged(known: LoadedRelease, requests: Sequence[np.ndarray[Any, Any]], rows: Sequence[int]) -> dict[str, list[Any]]:
    """What the requests count when each is observed alone, of the inputs only: the made-up outputs differ."""
    assert known.profile is not None
    total = Window.zero(known.profile.schema)
    for inputs, count in zip(requests, rows, strict=True):
        total = total.merge(observed(known, [inputs], [count]))
    return {name: total.arrays[name].tolist() for name in ("inputs", "images", "texts")}


def test_tokens_of_many_lengths() -> None:
    rng = np.random.default_rng(0)
    known = loaded(rng.integers(1, 90, (60, 8)), kind="tokens")
    # Of the first three lengths the mean is the first one's: joined by their bytes alone they would look like four.
    requests = [rng.integers(1, 90, (1, length)) for length in (4, 2, 6, 4, 9)] + [NO_ROWS]
    window = observed(known, requests, [1] * 6)
    assert window.predictions == 6 and window.arrays["texts"].sum(axis=1).tolist() == [5, 5]
    alone = merged(known, requests, [1] * 6)
    assert {name: window.arrays[name].tolist() for name in alone} == alone


def test_images_of_many_sizes() -> None:
    rng = np.random.default_rng(1)
    known = loaded(rng.random((60, 3, 16, 16)).astype(np.float32))
    requests = [rng.random((2, 3, *size)).astype(np.float32) for size in ((16, 16), (8, 16), (24, 16), (16, 16))]
    window = observed(known, requests, [2] * 4)
    assert window.predictions == 8 and window.arrays["images"].sum(axis=1).tolist() == [8, 8, 8]
    alone = merged(known, requests, [2] * 4)
    assert {name: window.arrays[name].tolist() for name in alone} == alone


def test_texts_as_the_protocol_brings_them() -> None:
    words = np.array([f"line {number} of the log".encode() for number in range(60)], dtype=object)
    known = loaded(words)
    requests = [words[:1], words[1:4], words[4:5]]
    window = observed(known, requests, [1, 3, 1])
    assert window.arrays["texts"].sum(axis=1).tolist() == [5, 5] and not window.arrays["inputs"].size
    alone = merged(known, requests, [1, 3, 1])
    assert {name: window.arrays[name].tolist() for name in alone} == alone
