"""Brightness, contrast and sharpness: what they say, on a bounded grid, for every layout."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.insights.aspects.images import SIDE, image_measures

RNG = np.random.default_rng(3)
PICTURES = RNG.random((6, 3, 20, 26)).astype(np.float32)


def by_hand(picture: np.ndarray, rows: range, columns: range) -> list[float]:
    light = picture[:3].astype(np.float64).mean(axis=0)
    at = np.array([[light[r, c] for c in columns] for r in rows])
    edge = [[4 * light[r, c] - light[r - 1, c] - light[r + 1, c] - light[r, c - 1] - light[r, c + 1] for c in columns]
            for r in rows]  # fmt: skip
    return [at.mean(), at.std(), np.std(edge)]


def test_they_are_those_of_a_loop_over_pixels() -> None:
    found = image_measures(PICTURES, 1)
    for number, picture in enumerate(PICTURES):
        # 18 inner rows and 24 inner columns, every second one of them, in the middle.
        assert found[:, number] == pytest.approx(by_hand(picture, range(1, 19, 2), range(1, 25, 2)), abs=1e-9)


def test_every_layout_says_the_same() -> None:
    expected = image_measures(PICTURES, 1)
    assert np.allclose(image_measures(PICTURES.transpose(0, 2, 3, 1), 3), expected)
    grey = PICTURES[:, :1]
    assert np.array_equal(image_measures(grey[:, 0], 0), image_measures(grey, 1))
    opaque = np.concatenate([PICTURES, np.ones((6, 1, 20, 26), np.float32)], axis=1)
    assert np.array_equal(image_measures(opaque, 1), expected)


def test_bytes_do_not_overflow() -> None:
    white = np.full((2, 9, 9, 3), 255, np.uint8)
    assert image_measures(white, 3).tolist() == [[255, 255], [0, 0], [0, 0]]


@pytest.mark.parametrize("size", [3, 4, 8, 17, 18, 19, 34, 224, 1000])
def test_the_grid_is_bounded_and_inside(size: int) -> None:
    touched = np.zeros((1, size, size))
    image_measures(touched, 0)
    from edgeloop.insights.aspects.images import _grid

    places = range(size)[_grid(size)]
    assert 1 <= len(places) <= SIDE and places[0] >= 1 and places[-1] <= size - 2
    assert abs((places[0] - 1) - (size - 2 - places[-1])) <= 1, "in the middle"


def test_light_contrast_and_focus_move_what_they_are_called() -> None:
    from scipy.ndimage import gaussian_filter

    scene = gaussian_filter(RNG.random((5, 40, 40)), (0, 1, 1))
    before = image_measures(scene, 0)
    darker, flatter = image_measures(scene * 0.5, 0), image_measures(0.5 + (scene - 0.5) * 0.5, 0)
    blurred = image_measures(gaussian_filter(scene, (0, 2, 2)), 0)
    assert np.allclose(darker, before * 0.5) and np.allclose(flatter[1:], before[1:] * 0.5)
    assert np.allclose(blurred[0], before[0], atol=0.02) and (blurred[2] < before[2] / 3).all()
