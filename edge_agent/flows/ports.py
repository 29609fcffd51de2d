"""The ports of flows, on one page: what a source and a sink are, and the errors that leave them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from edge_agent.serving.calls import Described
from edge_agent.serving.parameters import NO_PARAMETERS

Array = npt.NDArray[Any]


class FlowError(Exception):
    """Root of what sources and sinks raise; the message says what to do."""


class Rejected(FlowError):
    """The item is no input of the model, and never will be."""


class Gone(FlowError):
    """The item is not what it was when it was found. If it comes back, it is another one."""


class Trouble(FlowError):
    """The source or the sink cannot work now: no broker, no disk, no camera. It is tried again."""


class Missing(FlowError):
    """A library is not installed; the message names the extra."""


class Ended(FlowError):
    """The source has nothing more, for good."""


class Stopped(FlowError):
    """The agent stops; what is under way stays with its source."""


class Item(NamedTuple):
    """One thing that a source has found: a message, a file, a row, a frame.

    Attributes:
        key: its name, for people.
        about: what results say of it, as JSON types.
        body: the source's own.
        id: the prediction's id where the source can say the same one again, else "".
    """

    key: str
    about: Mapping[str, Any]
    body: Any = None
    id: str = ""


class Reading(NamedTuple):
    """An item as the model gets it.

    Attributes:
        inputs: by name.
        outputs: that are wanted, or () for those of the source's settings.
        id: the prediction's id where the item itself names one, else "".
        declared: whether datatype and shape are those of the settings rather than the item's own.
        parameters: that the item itself has, besides those of the source's settings.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...] = ()
    id: str = ""
    declared: bool = False
    parameters: Mapping[str, Any] = NO_PARAMETERS


class Result(NamedTuple):
    """One answer on its way to the sinks: the prediction's id, the source's name, and the JSON document, UTF-8."""

    id: str
    source: str
    document: bytes


class Source(Protocol):
    """Where items come from. All of it is called by one thread, the flow's; `counts` by any.

    After `open`, `next` gives items one at a time; each is answered and then comes back through `done`, when all sinks
    have its result, or through `reject`. An item that does not come back (the agent stops, or is killed) is given again
    after the next `open` by a source that can ask for it again.
    """

    #: Whether an item is worth nothing when a newer one is there: it is dropped rather than tried again.
    live: bool

    def open(self) -> None:
        """Begin, or begin anew after a trouble.

        Raises:
            Trouble: it cannot now.
            Missing: it never can.
        """

    def next(self, timeout_s: float) -> Item | None:
        """The next item, or None when none has come for ``timeout_s`` seconds.

        Raises:
            Ended: there will be none.
            Trouble: it has to be opened anew.
        """

    def read(self, item: Item, described: Described) -> Reading:
        """The item's tensors for a model.

        Raises:
            Rejected: it is no input.
            Gone: it is not there any more, or somebody still writes to it.
        """

    def done(self, item: Item) -> None:
        """All sinks have the item's result.

        Raises:
            Trouble: that cannot be noted; the item may come again.
        """

    def reject(self, item: Item, reason: str) -> None:
        """The item is no input; it must not come again.

        Raises:
            Trouble: that cannot be noted; the item may come again.
        """

    def close(self) -> None:
        """End; it may be opened again. Never raises."""

    def counts(self) -> Mapping[str, int]:
        """Running totals beside the flow's own: ``dropped``, at least."""

    @property
    def trouble(self) -> str:
        """Why nothing comes now, or ""."""


class Sink(Protocol):
    """Where results go. Called by the threads of all its sources."""

    name: str

    def start(self) -> None:
        """Begin; never waits for the other side.

        Raises:
            Trouble: it cannot work at all; the message says why.
        """

    def put(self, result: Result, stopping: threading.Event) -> None:
        """Take a result. When this returns the sink answers for it: a killed agent does not lose it.

        It waits while the sink is full: so a slow sink slows its sources down, and nothing grows.

        Raises:
            Stopped: ``stopping`` was set before the result could be taken.
        """

    def stop(self, timeout_s: float) -> None:
        """End; what was taken and not delivered stays on the disk for the next start. Never raises."""

    def counts(self) -> Mapping[str, int]:
        """Running totals: ``accepted``, ``delivered``, ``failures``, ``dropped``; and what is ``waiting``."""

    @property
    def trouble(self) -> str:
        """Why it does not deliver now, or ""."""
