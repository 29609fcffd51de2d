"""One trial under way: what its steps need of the agent, and how they end it before its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edge_agent.trials.rules import Doing, TrialRules
from edge_agent.trials.told import Told
from edge_agent.updates.settings import UpdateSettings
from edgeloop.protocol import TrialRequest


class Around(NamedTuple):
    """What trials need of the agent.

    Attributes:
        settings: the owner's, for updates.
        rules: the owner's, for trials.
        doing: what the device does now; ``rows_per_s`` is left at 0.
        answered: rows that the agent has answered so far, all models together; it may begin anew.
        hub: base URL of the hub now, or "".
        report: have the hub told soon.
    """

    settings: Callable[[], UpdateSettings]
    rules: TrialRules
    doing: Callable[[], Doing]
    answered: Callable[[], int]
    hub: Callable[[], str]
    report: Callable[[], None]


class Ended(Exception):
    """The trial ends here; the message is its answer."""


class Dropped(Exception):
    """Nobody waits for an answer now: the hub wants none any more, or the agent stops."""


class UnderWay(NamedTuple):
    """One trial.

    Attributes:
        request: the hub's wish.
        around: the agent.
        told: what the hub is told.
        unwanted: waits for so many seconds; whether the agent stops or the hub wants something else.
    """

    request: TrialRequest
    around: Around
    told: Told
    unwanted: Callable[[float], bool]

    def tell(self, state: str, reason: str) -> None:
        """Say where it stands.

        Raises:
            Ended: that cannot be kept, and what is not kept might be begun again and again.
        """
        if problem := self.told.say(self.request.id, state, reason):
            raise Ended(problem)

    def go_on(self, wait_s: float = 0.0) -> None:
        """Wait.

        Raises:
            Dropped: nobody waits for an answer now.
        """
        if self.unwanted(wait_s):
            raise Dropped
