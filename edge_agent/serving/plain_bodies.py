"""A request whose body is a picture or a text itself: the model's only input, one row, without JSON around it.

Pictures come from anywhere, and are decoded here rather than in a model's graph: a decoder there could end the agent
(docs/decisions/images-are-decoded-at-the-door.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edge_agent.serving.calls import Answer, Array, Described
from edge_agent.serving.errors import BadRequest, Conflict
from edgeloop.package import TensorSpec
from edgeloop.pictures import INSTALL, Fit, NoPicture, decoded, pillow_is_here
from edgeloop.runtime import probabilities_of

#: How a body of each of them begins; a content type says what a client thinks that it sends.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
#: Content types whose bodies may be an input themselves. A text may also be JSON: that is what browsers call it.
PICTURE, TEXT, ANY = b"image/", b"text/plain", b"application/octet-stream"
PLAIN = (PICTURE, TEXT, ANY)


class Plain(NamedTuple):
    """What a body is to be read as.

    Attributes:
        kind: ``picture`` or ``text``; ``tensor``: the elements of the input as they are.
        spec: the model's input.
    """

    kind: str
    spec: TensorSpec


def plain(content_type: bytes, body: bytes, model: Described) -> Plain | None:
    """How a body is read; None: as JSON.

    Args:
        content_type: in small letters, one of `PLAIN` with what may follow it.
        body: the request's.
        model: whom it is for.

    Raises:
        BadRequest: the model takes no such body.
    """
    spec = model.inputs[0] if len(model.inputs) == 1 else None
    if content_type.startswith(PICTURE):
        if spec is None or not takes_pictures(spec):
            raise BadRequest(f"{model.name} takes no picture; it takes {_listed(model)}")
        return Plain("picture", spec)
    if spec is None:
        return None
    if content_type.startswith(TEXT):
        return Plain("text", spec) if spec.datatype == "BYTES" else None
    return Plain("picture" if takes_pictures(spec) and body.startswith(_MAGIC) else "tensor", spec)


def takes_pictures(spec: TensorSpec) -> bool:
    """Whether an input is pixels as they are: UINT8 [N, H, W, 3] in RGB, or [N, H, W, 1] in grey."""
    return spec.datatype == "UINT8" and len(spec.shape) == 4 and spec.shape[3] in (1, 3) and spec.shape[0] in (-1, 1)


def read_picture(body: bytes, spec: TensorSpec, model: Described, max_pixels: int) -> Array:
    """The pixels of a picture, [1, H, W, C], made as small as the package says.

    Raises:
        BadRequest: it is none, or too large.
        Conflict: Pillow is not installed here.
    """
    if not pillow_is_here():
        raise Conflict(f"pictures need Pillow, which is not installed on this device; {INSTALL}")
    _, height, width, channels = spec.shape
    said = model.picture
    fit = None if said is None else Fit(said.width, said.height, said.fit == "crop", said.resample)
    if height > 0 and width > 0:  # it takes no other size, whatever is said besides
        fit = Fit(width, height, fit is None or fit.crop, "linear" if fit is None else fit.resample)
    try:
        pixels = decoded(body, max_pixels=max_pixels, fit=fit, grey=channels == 1)
    except NoPicture as error:
        raise BadRequest(f"input {spec.name!r}, row 0: {error}") from error
    return np.ascontiguousarray(pixels)[np.newaxis]


def read_text(body: bytes, spec: TensorSpec) -> Array:
    """The text, in the shape that the model takes.

    Raises:
        BadRequest: it is not UTF-8, or the model takes more than one.
    """
    if any(length not in (-1, 1) for length in spec.shape):
        raise BadRequest(f"input {spec.name!r} takes {list(spec.shape)} texts; send them in JSON")
    text = np.empty([1] * len(spec.shape), np.object_)
    try:
        text.flat[0] = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"input {spec.name!r}, row 0: it is not UTF-8") from error
    return text


def in_plain_sight(answer: Answer, model: Described) -> Mapping[str, str | float]:
    """The name of the best class and its probability, where the answer has them: parameters of the response."""
    roles = {spec.role: spec.name for spec in reversed(model.outputs)}
    outputs = dict(answer.outputs)
    scores = probabilities_of(roles, outputs)
    label = outputs.get(roles.get("label", ""))
    if label is not None:
        index = int(label.reshape(-1)[0])
    elif scores is not None:
        index = int(scores.reshape(-1).argmax())
    else:
        return {}
    said: dict[str, str | float] = {"label": model.labels[index] if 0 <= index < len(model.labels) else str(index)}
    if scores is not None and 0 <= index < scores.size:
        said["probability"] = round(float(scores.reshape(-1)[index]), 6)
    return said


def _listed(model: Described) -> str:
    return ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in model.inputs)
