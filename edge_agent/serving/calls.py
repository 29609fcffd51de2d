"""What doors, sources and the data plane say to one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.serving.parameters import NO_PARAMETERS
from edgeloop.package import OutputSpec, TensorSpec

Array = npt.NDArray[Any]

#: Priority of a call that names none; smaller numbers are served first, as Triton has it. Sources come after clients.
DEFAULT_PRIORITY, SOURCE_PRIORITY = 10, 20


class Call(NamedTuple):
    """One inference, as a door has read it.

    Attributes:
        model: its name.
        version: its version, or None for the one that serves.
        id: the client's, or "" to have one made.
        inputs: by name.
        outputs: names of the outputs that are wanted, or () for the usual ones.
        priority: 0: `DEFAULT_PRIORITY`; else 1 is served before 2.
        timeout_s: seconds that the client waits; 0: the agent's own deadline.
        lent: the inputs lie in memory that its owner may change once it has the answer.
        parameters: of the request; one of them may say which segment of the windows it belongs to.
    """

    model: str
    version: str | None
    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...] = ()
    priority: int = 0
    timeout_s: float = 0.0
    lent: bool = False
    parameters: Mapping[str, Any] = NO_PARAMETERS


class Answer(NamedTuple):
    """What a request gets.

    Attributes:
        id: the prediction's.
        model: its name.
        version: its version.
        outputs: with their names.
        audit: rows that were drawn for an audit: their true labels are asked for.
    """

    id: str
    model: str
    version: str
    outputs: tuple[tuple[str, np.ndarray[Any, Any]], ...]
    audit: tuple[int, ...] = ()


class Described(NamedTuple):
    """What a client may know of a model: its versions, inputs, the outputs that it gets without naming any, labels."""

    name: str
    version: str
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]
    labels: tuple[str, ...] = ()
