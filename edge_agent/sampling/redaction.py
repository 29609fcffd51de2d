"""The owner's own function, which every sample passes before it is kept: it takes out what must not leave, or all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.protocol.inputs import Tensor

Arrays = Mapping[str, npt.NDArray[Any]]
Redact = Callable[[Arrays], Arrays | None]
"""``redact(inputs)`` gets one row's inputs by name, arrays of its own, and returns what may be kept; None: nothing."""


class RedactionError(RuntimeError):
    """There is no such function, or it did not give what may be kept: then nothing is."""


def load(name: str) -> Redact:
    """The function of a name such as ``faces.samples:blur``.

    Raises:
        RedactionError: it cannot be imported, or is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise RedactionError(
            f"samples_redact = {name!r} cannot be imported: {error or type(error).__name__}"
        ) from error
    if not callable(found):
        raise RedactionError(f"samples_redact = {name!r} is no function")
    return found  # type: ignore[no-any-return]  # the owner's


def redacted(redact: Redact, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """What may be kept of one row, or None.

    Raises:
        RedactionError: the function failed, or gave something else than arrays by the same names.
    """
    try:
        found = redact({name: tensor.row().copy() for name, tensor in tensors.items()})
        if found is None:
            return None
        if not isinstance(found, Mapping) or set(found) - set(tensors):
            raise TypeError("it has to return arrays by the names that it got, or None")
        return {name: Tensor.of(np.asarray(array)) for name, array in found.items()}
    except Exception as error:
        raise RedactionError(
            f"samples_redact failed, and the sample is not kept: {error or type(error).__name__}"
        ) from error
