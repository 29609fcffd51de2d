"""How much one caller may ask, and how often it may guess. In memory, bounded, and forgotten at a restart."""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

#: Callers that are remembered; the one that was quiet for the longest is forgotten first.
MOST_CALLERS = 10_000
#: Seconds of the sustained rate that may come at once: a publisher's small files, a fleet that starts.
BURST_S = 10.0
#: Wrong credentials from one address before it has to wait, and the first and the longest wait, seconds.
GUESSES, FIRST_LOCK_S, LONGEST_LOCK_S = 10, 30.0, 3600.0
#: An address that guessed nothing for this long starts anew, seconds.
FORGIVEN_S = 86_400.0


class _Recent(Generic[V]):
    """The values of the `MOST_CALLERS` keys that were used last."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str) -> V | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: str, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > MOST_CALLERS:
            self._values.popitem(last=False)


class Rate:
    """A bucket for each caller that fills by ``rate`` requests a second and holds `BURST_S` of them.

    Args:
        rate: requests a second; 0 for any.
        clock: seconds that never go back.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock, self._lock = rate, clock, threading.Lock()
        self._buckets: _Recent[tuple[float, float]] = _Recent()

    def wait_s(self, caller: str) -> float:
        """0 where this request may come now, and is counted; else the seconds to wait."""
        if self._rate <= 0:
            return 0.0
        now, most = self._clock(), max(1.0, self._rate * BURST_S)
        with self._lock:
            left, since = self._buckets.get(caller) or (most, now)
            left = min(most, left + (now - since) * self._rate)
            if left < 1.0:
                return (1.0 - left) / self._rate
            self._buckets.put(caller, (left - 1.0, now))
            return 0.0


class Lockout:
    """Addresses that showed too many wrong credentials have to wait, longer each time.

    Credentials that were good before are known by their hash and never have to wait: else one guesser behind a proxy
    would lock out everybody there.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._guesses: _Recent[tuple[int, float]] = _Recent()
        self._good: _Recent[bool] = _Recent()

    def wait_s(self, address: str, credential: str) -> float:
        """0 where a credential may be looked at now; else the seconds to wait."""
        now = self._clock()
        with self._lock:
            guesses, last = self._guesses.get(network(address)) or (0, now)
            if guesses < GUESSES or self._good.get(_fingerprint(credential)):
                return 0.0
            locked = min(LONGEST_LOCK_S, FIRST_LOCK_S * 2.0 ** min(guesses - GUESSES, 20))
            return max(0.0, last + locked - now)

    def wrong(self, address: str) -> None:
        """Count a wrong credential."""
        now = self._clock()
        with self._lock:
            guesses, last = self._guesses.get(network(address)) or (0, now)
            self._guesses.put(network(address), (1 if now - last > FORGIVEN_S else guesses + 1, now))

    def right(self, credential: str) -> None:
        """Remember a credential that is good."""
        with self._lock:
            self._good.put(_fingerprint(credential), True)


def network(address: str) -> str:
    """What one guesser can choose from: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _fingerprint(credential: str) -> str:
    return hashlib.sha256(credential.encode()).hexdigest()
