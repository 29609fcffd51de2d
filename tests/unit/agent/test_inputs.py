import numpy as np
import pytest

from edge_agent.inputs import size_of, smaller, tensors_of
from edgeloop.protocol import ProtocolError


def test_a_whole_row_of_every_input_travels_bit_for_bit() -> None:
    inputs = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "who": np.array(["a", "b", "c"], dtype=object)}
    found = tensors_of("input", inputs, 1)
    assert found["x"].row().tolist() == [4.0, 5.0, 6.0, 7.0]
    assert found["who"].row().item() == b"b"
    assert size_of(found) == 17


def test_features_travel_under_the_name_of_their_output() -> None:
    found = tensors_of("features", {"x": np.zeros((2, 9))}, 1, features=("f", np.array([[1.0, 2.0], [3.0, 4.0]])))
    assert list(found) == ["f"] and found["f"].row().tolist() == [3.0, 4.0]


def test_features_that_were_not_made_cannot_travel() -> None:
    with pytest.raises(ProtocolError, match="no features"):
        tensors_of("features", {"x": np.zeros((2, 9))}, 0)


@pytest.mark.parametrize("shape", [(3, 32, 48), (32, 48, 3), (32, 48)])
def test_a_smaller_picture_holds_the_means_of_what_it_covers(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    found = smaller(picture, 24)
    assert found.dtype == np.uint8 and found.shape == tuple({32: 16, 48: 24}.get(n, n) for n in shape)
    down, across = (axis for axis, n in enumerate(shape) if n > 3)
    corner = [slice(None)] * len(shape)
    corner[down] = corner[across] = slice(0, 2)
    expected = np.rint(picture[tuple(corner)].mean(axis=(down, across)))
    corner[down] = corner[across] = 0
    assert np.array_equal(found[tuple(corner)], expected)


def test_what_is_no_picture_or_small_already_travels_as_it_is() -> None:
    table, little = np.zeros((3, 4)), np.zeros((20, 20), np.float32)
    assert smaller(table, 2) is table and smaller(little, 20) is little
    assert tensors_of("small", {"x": np.zeros((1, 64), np.float32)}, 0, small_side=8)["x"].shape == (64,)
