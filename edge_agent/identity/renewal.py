"""The certificate is renewed long before its end, in a process that ends again: it needs what serving does without.

``python -m edge_agent.identity.renewal DATA`` renews at once, whatever the time is.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

from edge_agent.identity.hub_call import HubAway, HubRefuses, ask
from edge_agent.identity.store import REQUEST, Identity, IdentityError, load, renewed
from edge_agent.identity.tls import tls_context

#: How often it is looked whether the time has come, and how soon again after a failure; a third of a life is left then.
LOOK_S, AGAIN_S = 6 * 3600.0, 900.0
CHILD_TIMEOUT_S = 120.0


class Renewal:
    """Renews the certificate of this device while the agent runs.

    Args:
        data: the agent's data folder.
        said: gets a sentence when something was done, or could not be; and whether it is a trouble.
        clock: unix seconds.
        look_s: seconds between two looks.
        again_s: seconds until the next one when it could not be.
    """

    def __init__(
        self,
        data: Path,
        said: Callable[[str, bool], None],
        *,
        clock: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
        again_s: float = AGAIN_S,
    ) -> None:
        self._data, self._said, self._clock = data, said, clock
        self._look_s, self._again_s = look_s, again_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate", daemon=True)
        #: Why the certificate could not be renewed, or "".
        self.trouble = ""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; a renewal under way is left to itself."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
                self.trouble = ""
            except (HubAway, HubRefuses, IdentityError, OSError, subprocess.SubprocessError) as error:
                self.trouble = f"the certificate could not be renewed: {error}"
                self._said(self.trouble, True)
            self._stop.wait(self._again_s if self.trouble else self._look_s)

    def _look(self) -> None:
        identity = load(self._data)
        if identity is None:
            return
        now = self._clock()
        if identity.plausible(now) and not identity.due(now):
            return
        if not identity.due(hub_clock(identity)):  # it knows the time, whatever the clock here says
            return
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent.identity.renewal", str(self._data)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise IdentityError(done.stderr.strip()[-500:] or f"the process ended with {done.returncode}")
        self._said("the certificate was renewed", False)


def hub_clock(identity: Identity) -> float:
    """The time by the hub's clock, unix seconds.

    Raises:
        HubAway: no answer.
        HubRefuses: an answer that is none, or has no time in it.
        IdentityError: there can be no TLS.
    """
    date = ask(identity.hub, "GET", "/healthz", tls_context(identity)).date
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError) as error:
        raise HubRefuses(200, "the hub does not say what time it is") from error


def renew(data: Path) -> Identity:
    """Renew the certificate now; the key stays.

    Raises:
        HubAway, HubRefuses, IdentityError, OSError: it could not be; the present one goes on holding.
    """
    from edge_agent.identity.requests import make_request, validity

    identity = load(data)
    if identity is None:
        raise IdentityError("this device is not enrolled")
    given = identity.folder / REQUEST
    request = given.read_bytes() if given.exists() else make_request(identity.key, identity.device)
    body = {"request": request.decode("ascii")}
    answer = ask(identity.hub, "POST", "/api/v1/devices/self/certificate", tls_context(identity), body).document()
    try:
        certificate, ca = str(answer["certificate"]).encode("ascii"), str(answer["ca"]).encode("ascii")
    except (KeyError, ValueError) as error:
        raise IdentityError(f"the hub's answer is not as it has to be: {error!r}") from error
    begins, ends = validity(certificate, request)
    renewed(identity, certificate=certificate, ca=ca, begins=begins, ends=ends)
    found = load(data)
    assert found is not None
    return found


if __name__ == "__main__":
    try:
        renew(Path(sys.argv[1]))
    except (HubAway, HubRefuses, IdentityError, OSError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
