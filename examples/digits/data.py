"""The digits, how they are split, and what happens to the cameras.

scikit-learn carries 1,797 real handwritten digits of 8 × 8 pixels (UCI, Alpaydin and Kaynak 1998). They are
split once, with a fixed seed: a digit that the fleet is judged on was never seen in training and is never labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SEED = 7
#: Sizes of the splits; what is left (347 digits) is what the fleet is judged on.
TRAIN, VALIDATION, STREAM = 650, 200, 600


@dataclass(frozen=True)
class Split:
    """Images float32 [N, 64] in 0…1 with their labels int64 [N]."""

    x: Images
    y: Labels


@dataclass(frozen=True)
class Digits:
    """Four disjoint splits.

    Attributes:
        train: what the ML engineer trained on.
        validation: what calibrates, profiles and measures the package.
        stream: what the cameras see, and what is partly labelled later.
        judge: held out: only for measuring; never labelled, never trained on.
    """

    train: Split
    validation: Split
    stream: Split
    judge: Split


def load(seed: int = SEED) -> Digits:
    """The four splits, the same at every call; another ``seed`` splits them otherwise."""
    raw = load_digits()
    order = np.random.default_rng(seed).permutation(len(raw.target))
    x, y = (raw.data[order] / 16.0).astype(np.float32), raw.target[order].astype(np.int64)
    cuts = np.cumsum([TRAIN, VALIDATION, STREAM])
    return Digits(*(Split(a, b) for a, b in zip(np.split(x, cuts), np.split(y, cuts), strict=True)))


@dataclass(frozen=True)
class Slip:
    """What has happened to a camera: rotation in degrees; light, offset and noise (σ) as shares of full scale."""

    name: str
    degrees: float = 0.0
    light: float = 1.0
    offset: float = 0.0
    noise: float = 0.0

    def __call__(self, split: Split, seed: int) -> Split:
        """The split as the camera sees it now; ``seed`` chooses the noise."""
        if self == CLEAN:
            return split
        images = split.x.reshape(-1, 8, 8)
        if self.degrees:
            images = rotate(images, self.degrees, axes=(2, 1), reshape=False, order=1)
        noise = np.random.default_rng(seed).normal(0.0, self.noise, images.shape)
        seen = np.clip(images * self.light + self.offset + noise, 0.0, 1.0).astype(np.float32)
        return Split(seen.reshape(-1, 64), split.y)


CLEAN = Slip("clean")
#: The camera slips: turned by 25°, dimmed to 60 %, noise of σ 0.1.
FIRST_SLIP = Slip("slipped", degrees=25.0, light=0.6, noise=0.1)
#: Later somebody turns it too far back, and the sun comes in: a different world again.
SECOND_SLIP = Slip("glare", degrees=-20.0, light=0.6, offset=0.4, noise=0.08)
