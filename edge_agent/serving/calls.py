"""What doors, sources and the data plane say to one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_agent.ports import LoadedRelease
from edge_agent.serving.parameters import NO_PARAMETERS, NO_TEACHERS, of_answer
from edgeloop.package import OutputSpec, TensorSpec
from edgeloop.package.picture import PictureSpec

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
        escalated: rows that were sent to the hub's teacher.
        teachers: row → name of the teacher whose answer the outputs hold.
        outvoted: row → name of the teacher that said otherwise, where the outputs hold the edge's own answer.
        pending: gives the better answer, where the client is to wait for it; None: this is the answer.
    """

    id: str
    model: str
    version: str
    outputs: tuple[tuple[str, np.ndarray[Any, Any]], ...]
    audit: tuple[int, ...] = ()
    escalated: tuple[int, ...] = ()
    teachers: Mapping[int, str] = NO_TEACHERS
    outvoted: Mapping[int, str] = NO_TEACHERS
    pending: Asked | None = None

    @property
    def parameters(self) -> Mapping[str, bool | str]:
        """What a response says of it."""
        if not self.audit and not self.escalated:
            return NO_PARAMETERS
        return of_answer(self.audit, self.escalated, self.teachers, self.outvoted)


class Asked(Protocol):
    """Rows of one request that were drawn for the hub's teacher.

    Attributes:
        rows: which.
        waits: whether the client is to wait for the better answer.
    """

    rows: tuple[int, ...]
    waits: bool

    def send(self) -> None:
        """Send them; never blocks, never raises."""

    def better(self, answer: Answer, future: Future[Answer] | None = None) -> Future[Answer]:
        """The better answer, or the edge's own when the time is over.

        Args:
            answer: the edge's.
            future: that gets it; None: one is made.
        """


class Escalating(Protocol):
    """The cascade, as the data plane sees it.

    Attributes:
        on: whether hard answers are escalated now; while they are not, nothing else is asked.
    """

    on: bool

    def draws(self) -> bool:
        """Whether a request may be drawn now: while nothing can leave, none is, and no features are made for it."""

    def draw(
        self,
        loaded: LoadedRelease,
        prediction_id: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[Array],
        places: Mapping[str, int],
        segment: str,
        timeout_s: float,
    ) -> Asked | None:
        """Draw rows of a request that is recorded next; never raises.

        Args:
            loaded: what answered.
            prediction_id: of the request.
            inputs: by name, [N, …] each; copied where they are needed.
            outputs: of the run, [N, …] each.
            places: name → place in ``outputs``: scores and features.
            segment: of the request, or "".
            timeout_s: seconds that the client waits yet.

        Returns:
            The rows that were drawn; None: none.
        """


class Described(NamedTuple):
    """What a client may know of a model: its versions, inputs, the outputs that it gets without naming any, labels.

    ``picture`` says how pictures are made small for it, where it takes some.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]
    labels: tuple[str, ...] = ()
    picture: PictureSpec | None = None
