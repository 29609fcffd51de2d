"""What the first input is: numbers, an image, tokens or a text; it says which aspects look at it."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Literal, get_args

import numpy as np

from edgeloop.insights.errors import InsightsError
from edgeloop.insights.sizes import Array
from edgeloop.insights.summaries import is_numeric
from edgeloop.insights.words import BYTES, padding_of, text_vocabulary, token_vocabulary
from edgeloop.records import dataclass

Kind = Literal["numbers", "image", "tokens", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Grey, colours, and colours with how opaque they are.
CHANNELS = (1, 3, 4)
#: A smaller plane is rather a table: it is taken for an image only when somebody says so.
LEAST_SIDE = 8
#: The Laplacian looks at the neighbours of a pixel.
FEWEST_PIXELS = 3


@dataclass(frozen=True, eq=False)
class InputForm:
    """What the first input is.

    Attributes:
        kind: of `KINDS`.
        channel_axis: of an image: 1 for [N, C, H, W], 3 for [N, H, W, C], 0 for [N, H, W].
        pad: of tokens: the one that fills up short rows; -1 when there is none.
        vocabulary: of tokens and texts: what the validation data hold, uint8 [`words.BYTES`]; else uint8 [0].
    """

    kind: Kind = "numbers"
    channel_axis: int = 0
    pad: int = -1
    vocabulary: Array = field(default_factory=lambda: np.zeros(0, np.uint8))

    @classmethod
    def of(cls, inputs: Array, declared: Kind | None = None) -> InputForm:
        """The form of validation data; its vocabulary is still to be :meth:`learned`.

        Undeclared, what is not numeric is a text; [N, C, H, W], [N, H, W, C] and [N, H, W] with 1, 3 or 4 channels and
        planes of at least `LEAST_SIDE` on each side are images; all else is numbers. Tokens cannot be told from a
        table of integers: they have to be declared.

        Args:
            inputs: [N, …].
            declared: what somebody who knows says, or None.

        Raises:
            InsightsError: the input cannot be what is declared.
        """
        axis = _channel_axis(inputs)
        planes = () if axis is None else _plane(inputs, axis)
        if declared is None and not is_numeric(inputs):
            declared = "text"
        elif declared is None and planes and min(planes) >= LEAST_SIDE:
            declared = "image"
        form = cls(declared or "numbers", (axis or 0) if declared == "image" else 0)
        if not form.fits(inputs):
            raise InsightsError(f"the input is {inputs.dtype} {list(inputs.shape)}, which cannot be {declared}")
        return replace(form, pad=padding_of(inputs)) if form.kind == "tokens" else form

    @property
    def has_words(self) -> bool:
        """Whether it is a text, or tokens."""
        return self.kind in ("tokens", "text")

    def learned(self, inputs: Array) -> InputForm:
        """The same with the vocabulary of these rows, where there are words."""
        if not self.has_words:
            return self
        words = token_vocabulary(inputs, self.pad) if self.kind == "tokens" else text_vocabulary(inputs)
        return replace(self, vocabulary=words)

    def fits(self, inputs: Array) -> bool:
        """Whether inputs [N, …] are of this form."""
        if self.kind == "text":
            return not is_numeric(inputs) and inputs.ndim >= 1
        if self.kind == "tokens":
            return inputs.dtype.kind in "iu" and inputs.ndim == 2
        if self.kind == "image":
            return (
                is_numeric(inputs)
                and inputs.ndim == (4 if self.channel_axis else 3)
                and (not self.channel_axis or inputs.shape[self.channel_axis] in CHANNELS)
                and min(_plane(inputs, self.channel_axis)) >= FEWEST_PIXELS
            )
        return is_numeric(inputs) and inputs.ndim >= 1

    def check(self) -> None:
        """Refuse what :meth:`of` and :meth:`learned` cannot have made.

        Raises:
            InsightsError: the parts contradict one another.
        """
        axes = (0, 1, 3) if self.kind == "image" else (0,)
        size = BYTES if self.has_words else 0
        if self.channel_axis not in axes or self.pad < -1 or (self.pad >= 0 and self.kind != "tokens"):
            raise InsightsError(f"an input of {self.kind} has no axis {self.channel_axis} or padding {self.pad}")
        if self.vocabulary.dtype != np.uint8 or self.vocabulary.shape != (size,):
            raise InsightsError(f"the vocabulary of {self.kind} is not uint8 [{size}]")


def _channel_axis(inputs: Array) -> int | None:
    """Where the channels of an image are, 0 for a grey one without; None: it has the shape of none."""
    if inputs.ndim == 3:
        return 0
    if inputs.ndim == 4:
        return next((axis for axis in (1, 3) if inputs.shape[axis] in CHANNELS), None)
    return None


def _plane(inputs: Array, channel_axis: int) -> tuple[int, ...]:
    """Height and width."""
    return tuple(size for axis, size in enumerate(inputs.shape) if axis and axis != channel_axis)
