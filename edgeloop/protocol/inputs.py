"""Messages that carry an input, or what stands for one: escalations to the hub's teacher, and samples.

They are the only ones that do. A device sends none of them unless its owner allows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeloop.protocol.errors import ProtocolError
from edgeloop.protocol.fields import (
    CLOCK,
    COUNT,
    DIGEST,
    LABEL,
    NAME,
    PREDICTION,
    SENTENCE,
    SEQUENCE,
    SHARE,
    Boolean,
    Integer,
    ListOf,
    MapOf,
    Nullable,
    Octets,
    Real,
    Text,
)
from edgeloop.protocol.parts import Message, Part, PartOf
from edgeloop.records import dataclass

#: The Open Inference Protocol's names of the types that travel, as numpy's little-endian ones.
DTYPES: Mapping[str, str] = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
#: An input of more bytes does not travel: 1,920 x 1,080 pixels of three colours are 6.2 MB.
MAX_INPUT_BYTES = 16 << 20
FORMS = ("input", "small", "features")
"""What travels of an input: all of it; a smaller picture of it; the features that the device's model made of it."""


@dataclass(frozen=True)
class Tensor(Part):
    """One row of a tensor.

    Attributes:
        datatype: the Open Inference Protocol's name: ``FP32``, ``UINT8``, …; ``BYTES`` for one text, UTF-8.
        shape: of the row, without the batch's dimension; [] for BYTES.
        data: row-major, little-endian; or the text.
    """

    datatype: Annotated[str, Text(8, "[A-Z0-9]+")]
    shape: Annotated[tuple[int, ...], ListOf(Integer(0, 1 << 31), 8)]
    data: Annotated[bytes, Octets(MAX_INPUT_BYTES)]

    @classmethod
    def of(cls, row: npt.NDArray[Any]) -> Tensor:
        """The tensor of one row: of numbers, or a text in an array of objects or strings of shape [].

        Raises:
            ProtocolError: this dtype does not travel.
        """
        if row.dtype.kind in "OSU":
            text = row.item() if row.size == 1 else None
            if not isinstance(text, str | bytes):
                raise ProtocolError(f"a row of {row.size} texts does not travel; one does")
            return cls("BYTES", (), text.encode() if isinstance(text, str) else text)
        little = row.dtype.newbyteorder("<").str.replace("=", "<")
        name = next((name for name, known in DTYPES.items() if np.dtype(known) == np.dtype(little)), None)
        if name is None:
            raise ProtocolError(f"numbers of type {row.dtype} do not travel; there are {', '.join(DTYPES)}")
        return cls(name, row.shape, np.ascontiguousarray(row, dtype=DTYPES[name]).tobytes())

    def row(self) -> npt.NDArray[Any]:
        """The row as an array of its shape; a text as bytes in an array of objects of shape [].

        Raises:
            ProtocolError: type, shape and bytes do not belong together.
        """
        if self.datatype == "BYTES":
            if self.shape:
                raise ProtocolError(f"a text has no shape, not {list(self.shape)}")
            found = np.empty((), dtype=object)
            found[()] = self.data
            return found
        if self.datatype not in DTYPES:
            raise ProtocolError(f"{self.datatype!r} is no type that travels; there are {', '.join(DTYPES)}, BYTES")
        dtype = np.dtype(DTYPES[self.datatype])
        if math.prod(self.shape) * dtype.itemsize != len(self.data):
            raise ProtocolError(f"{len(self.data)} bytes are no {self.datatype} of shape {list(self.shape)}")
        return np.frombuffer(self.data, dtype).reshape(self.shape)


@dataclass(frozen=True)
class Escalation(Message):
    """An input that the device is not sure of, for the hub's teacher. The same bytes go over MQTT or HTTP.

    Attributes:
        device: the device's name.
        channel: that it follows.
        release: digest of the release that answered.
        id: of the prediction.
        index: row in the request.
        form: one of `FORMS`.
        tensors: by the names of the model's inputs; for ``features`` by the name of the features' output.
        probability: chance with which this row was drawn, given all that the device knew of it; its inverse is the
            weight of its label.
        audit: whether it was drawn for an audit, however sure the answer was.
        predicted: class that the device answered.
        confidence: of that answer.
        wait: whether a client waits for the answer.
        deadline_ms: the client, or the device, waits no longer than this.
        segment: of the windows, or "".
        hardness: of the row, in 0…1, as the device saw it when it drew; None from a device that does not tell.
    """

    max_bytes: ClassVar[int] = MAX_INPUT_BYTES + (64 << 10)

    device: Annotated[str, NAME]
    channel: Annotated[str, NAME]
    release: Annotated[str, DIGEST]
    id: Annotated[str, PREDICTION]
    form: Annotated[str, Text(16)]
    tensors: Annotated[Mapping[str, Tensor], MapOf(PartOf(Tensor), 16)]
    probability: Annotated[float, Real(1e-6, 1.0)]
    predicted: Annotated[int, Integer(0, 1 << 31)]
    confidence: Annotated[float, SHARE]
    index: Annotated[int, COUNT] = 0
    audit: Annotated[bool, Boolean()] = False
    wait: Annotated[bool, Boolean()] = False
    deadline_ms: Annotated[int, COUNT] = 0
    segment: Annotated[str, Text(64)] = ""
    hardness: Annotated[float | None, Nullable(SHARE)] = None


@dataclass(frozen=True)
class TeacherAnswer(Part):
    """What became of an escalation.

    Attributes:
        id: of the prediction.
        index: row in the request.
        label: the class's index or name, or None: nobody could answer, or may not any more today.
        confidence: of the teacher, or None where it gives none.
        teacher: its name, or "".
        ms: milliseconds that the teacher took.
        reason: why there is no label, or "".
        learn: whether the label counts as feedback; False where the channel's owner wants no learning from teachers.
        calibrated: whether the confidence is the share of right answers that have it, as known rows say.
    """

    id: Annotated[str, PREDICTION]
    index: Annotated[int, COUNT] = 0
    label: Annotated[int | str | None, Nullable(LABEL)] = None
    confidence: Annotated[float | None, Nullable(SHARE)] = None
    teacher: Annotated[str, Text(64)] = ""
    ms: Annotated[float, Real(0.0, 1e12)] = 0.0
    reason: Annotated[str, SENTENCE] = ""
    learn: Annotated[bool, Boolean()] = True
    calibrated: Annotated[bool, Boolean()] = False


@dataclass(frozen=True)
class Sample(Message):
    """An input that is kept for retraining, sent again until the hub has acknowledged its number.

    Attributes:
        device: the device's name.
        epoch: of the device's memory.
        number: of the sample, in the epoch.
        channel: that the device followed.
        release: digest of the release that answered.
        id: of the prediction.
        index: row in the request.
        form: one of `FORMS`.
        tensors: by the names of the model's inputs.
        strategy: why it was taken.
        probability: chance with which it was drawn; its inverse is its weight.
        predicted: class that the device answered.
        confidence: of that answer.
        taken: unix seconds by the device's clock.
        label: that the device knew when it was sent, or None.
        segment: of the windows, or "".
    """

    max_bytes: ClassVar[int] = MAX_INPUT_BYTES + (64 << 10)

    device: Annotated[str, NAME]
    epoch: Annotated[int, SEQUENCE]
    number: Annotated[int, SEQUENCE]
    channel: Annotated[str, NAME]
    release: Annotated[str, DIGEST]
    id: Annotated[str, PREDICTION]
    form: Annotated[str, Text(16)]
    tensors: Annotated[Mapping[str, Tensor], MapOf(PartOf(Tensor), 16)]
    strategy: Annotated[str, Text(32)]
    probability: Annotated[float, Real(1e-6, 1.0)]
    predicted: Annotated[int, Integer(0, 1 << 31)]
    confidence: Annotated[float, SHARE]
    taken: Annotated[float, CLOCK]
    index: Annotated[int, COUNT] = 0
    label: Annotated[int | str | None, Nullable(LABEL)] = None
    segment: Annotated[str, Text(64)] = ""
