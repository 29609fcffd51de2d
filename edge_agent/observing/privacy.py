"""Noise for what leaves, if the channel's or the device's owner wants it, within a budget that survives restarts.

A window gets its noise when it is sent for the first time: until then it can be merged with others, and the larger it
is, the less the noise hurts. It is charged in the transaction that gives it its numbers, so a crash at any moment
leaves no window that was noised and not charged. When the budget of a period is spent, windows say how much there was
and nothing else; so do they while no budget can be worked out.

A period ends by the monotonic clock, and over a restart by the wall clock: nothing else can tell how long the device
was off. Whoever sets its clock forward while it is off can so end a period early.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from edge_agent.clock import Clock
from edge_agent.observing.ledger import Ledger
from edge_agent.observing.store import Store
from edgeloop.insights import Window
from edgeloop.insights.policy import MAX_SEGMENTS, InsightsPolicy
from edgeloop.insights.privacy.rule import PrivacyRule
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

_NOTE = "privacy/spent"
_DAY_S = 86_400.0
#: The library imports for seconds on a small device.
_TIMEOUT_S = 120.0
#: After the budget could not be worked out, it is tried again so soon.
_RETRY_S = 60.0
INSTALL = "pip install 'edgeloop[agent,privacy]'"


class PlanError(RuntimeError):
    """The budget cannot be worked out; the message says what to do."""


@dataclass(frozen=True)
class PrivacyState:
    """What ``edge-agent status`` shows.

    Attributes:
        epsilon: of a period; 0.0 while there is no noise.
        delta: of a period.
        days: length of a period.
        left: windows that this period still has room for, or None while that is not worked out.
        withheld: windows that left without details since the start, for want of budget.
        trouble: why there is no budget, or "".
    """

    epsilon: float = 0.0
    delta: float = 0.0
    days: float = 0.0
    left: int | None = None
    withheld: int = 0
    trouble: str = ""


Ask = Callable[[PrivacyRule, int, Mapping[float, int]], tuple[float, int]]
"""Rule, windows of a period and what was spent (multiplier → windows) → multiplier and windows that are left."""


def ask(rule: PrivacyRule, windows: int, spent: Mapping[float, int]) -> tuple[float, int]:
    """Have the accountant work it out, in a process of its own: it brings SciPy, and the agent keeps two numbers.

    Raises:
        PlanError: dp-accounting is not installed, or did not answer.
    """
    if find_spec("dp_accounting") is None:
        raise PlanError(f"the policy asks for noise, and dp-accounting is not installed: {INSTALL}")
    question = {"epsilon": rule.epsilon, "delta": rule.delta, "windows": windows, "spent": list(spent.items())}
    command = [sys.executable, "-m", "edgeloop.insights.privacy.budget"]
    try:
        done = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        answer = json.loads(done.stdout)
        return float(answer["multiplier"]), int(answer["left"])
    except subprocess.CalledProcessError as error:
        raise PlanError(f"the privacy budget cannot be worked out: {error.stderr.strip()[-500:]}") from error
    except (subprocess.TimeoutExpired, OSError, ValueError, KeyError) as error:
        raise PlanError(f"the privacy budget cannot be worked out: {error}") from error


class Privacy:
    """Treats windows that leave; used by the sender's thread alone, but for :meth:`state`.

    Args:
        store: remembers what was spent.
        ledger: is told what left in place of what was counted, so that it stays equal to the hub's totals.
        policy: the one in force.
        clip_of: longest feature vector in a release's sums, or None when that is not known.
        window_s: seconds after which an open window is closed.
        clock: the device's.
        ask: works out the budget.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        policy: Callable[[], InsightsPolicy],
        *,
        clip_of: Callable[[str], float | None],
        window_s: float,
        clock: Clock,
        ask: Ask = ask,
    ) -> None:
        self._store, self._ledger, self._policy, self._clip_of = store, ledger, policy, clip_of
        self._window_s, self._clock, self._ask = window_s, clock, ask
        self._spent, self._elapsed_s = self._remembered()
        self._at = clock.monotonic()
        self._planned: tuple[PrivacyRule, int] | None = None
        self._multiplier, self._left = 0.0, 0
        self._retry_at = self._at
        self._withheld = 0
        self._trouble = ""

    @property
    def wanted(self) -> bool:
        """Whether what leaves carries noise."""
        return self._policy().privacy is not None

    def prepare(self) -> None:
        """Have a budget ready; the first time, and after the policy has changed, this takes seconds."""
        policy = self._policy()
        rule = policy.privacy
        if rule is None:
            self._planned, self._trouble = None, ""
            return
        now = self._clock.monotonic()
        self._elapsed_s, self._at = self._elapsed_s + now - self._at, now
        if self._elapsed_s >= rule.days * _DAY_S:
            self._spent, self._elapsed_s, self._planned = {}, 0.0, None
        segments = 1 if policy.segment_field is None else (len(policy.segment_values) or MAX_SEGMENTS) + 1
        wanted = (rule, rule.windows(self._window_s, segments))
        if wanted == self._planned or (self._trouble and now < self._retry_at):
            return
        try:
            self._multiplier, self._left = self._ask(*wanted, self._spent)
        except PlanError as error:
            self._planned, self._trouble, self._retry_at = None, str(error), now + _RETRY_S
            log.error("%s. Windows leave without details", error)
            return
        self._planned, self._trouble = wanted, ""

    def leave(self, db: sqlite3.Connection, window: Window) -> Window:
        """The window as it may leave; it is charged inside the caller's transaction."""
        from edgeloop.insights.privacy.mechanism import noise, volume

        empty = not window.predictions and not window.feedback
        if self._planned is None or not self._left or empty:
            self._withheld += not empty
            found = volume(window)
        else:
            self._left -= 1
            self._spent[self._multiplier] = self._spent.get(self._multiplier, 0) + 1
            found = noise(window, self._multiplier, self._clip_of(window.release))
            self._remember(db)
        self._ledger.instead(db, window, found)
        return found

    def state(self) -> PrivacyState:
        """What status shows."""
        rule = self._policy().privacy
        if rule is None:
            return PrivacyState()
        left = self._left if self._planned is not None else None
        return PrivacyState(rule.epsilon, rule.delta, rule.days, left, self._withheld, self._trouble)

    def _remembered(self) -> tuple[dict[float, int], float]:
        found = self._store.note(_NOTE)
        if found is None:
            return {}, 0.0
        kept = json.loads(found)
        off_s = max(self._clock.wall() - kept["at"], 0.0)
        return {float(multiplier): int(count) for multiplier, count in kept["spent"]}, kept["elapsed_s"] + off_s

    def _remember(self, db: sqlite3.Connection) -> None:
        kept = {"spent": list(self._spent.items()), "elapsed_s": self._elapsed_s, "at": self._clock.wall()}
        db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (_NOTE, json.dumps(kept).encode()))
