"""Programs on a Ray cluster, by its jobs' REST API: what ``ray job submit`` does, without Ray in the hub.

The cluster's machines have edgeloop installed, and see the hub's data folder under the same path: Ray asks for shared
storage of its own training, too. So the watcher beside the program, its limits, the log and the checkpoints are the
same as in a child of the hub. A job outlives the hub; the next hub ends it, and starts it anew from its checkpoints.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from cloud_hub.training.bounded import LOOK_S, WATCHER_S, Call, Follower
from cloud_hub.training.bounded_child import End
from cloud_hub.training.program_lines import Line
from cloud_hub.training.trainer import Cancelled, TrainingError

#: States in which a job stays, as Ray's reference of jobs has them.
ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "GONE")
_GONE = {"status": "GONE", "message": "the cluster knows no such job; it was started anew"}
#: Seconds between two questions to the cluster, and for how long it may not answer.
ASK_S, SILENT_S = 1.0, 60.0
#: Seconds that a job may wait for its turn.
QUEUED_S = 3600.0
#: Seconds of one question.
TIMEOUT_S = 30.0


class RayRunner:
    """Implements `Runner`.

    Args:
        address: of the cluster's jobs, ``http://host:8265``.
        token: that the cluster asks for, or None.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._address = address
        # No proxy of the environment: the cluster is a neighbour.
        self._http = httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def run(self, call: Call, say: Callable[[Line], None], stopped: Callable[[], bool]) -> End:
        """Run it on the cluster."""
        note = call.folder / "ray-job"
        if note.is_file():
            self._end(note.read_text(), call)
        request = call.begin(parent=None)
        job = f"edgeloop-{uuid4().hex}"
        note.write_text(job)  # before it is there: a hub that is killed now ends it later
        self._submit(job, call, request)
        follower = Follower(call.log, say)
        state = self._follow(job, call, follower, stopped)
        follower.read()
        note.unlink()
        return call.end() or End(None, f"was lost: Ray says {state['status']}: {_short(state.get('message'))}")

    def _submit(self, job: str, call: Call, request: Path) -> None:
        # The machine's own python, whatever the hub's is called.
        command = shlex.join(["python", "-P", "-m", "cloud_hub.training.bounded_child", str(request)])
        body: dict[str, Any] = {"entrypoint": command, "submission_id": job, "metadata": {"name": call.name}}
        wanted = {"entrypoint_num_cpus": call.cpus, "entrypoint_num_gpus": call.gpus}
        body |= {name: value for name, value in wanted.items() if value}
        until = time.monotonic() + SILENT_S
        while True:
            try:
                answer = self._once("POST", "/api/jobs/", body)
            except _Unwilling:
                # Where no answer came it may be there all the same; a cluster that has just started takes none.
                if self._state(job) != _GONE:
                    return
                if time.monotonic() > until:
                    raise
                time.sleep(ASK_S)
            else:
                break
        if answer is None:
            raise TrainingError(f"there are no jobs at {self._address}; ray_address is that of a cluster's dashboard")

    def _follow(self, job: str, call: Call, follower: Follower, stopped: Callable[[], bool]) -> dict[str, Any]:
        """Until it has ended, or should have; how it then is. Raises `Cancelled` when it was stopped in the queue."""
        limits = call.limits
        until, asked = time.monotonic() + QUEUED_S, 0.0
        running = stopping = False
        state: dict[str, Any] = {"status": "PENDING"}
        while time.monotonic() < until:
            if not stopping and stopped():
                call.stop.touch()
                stopping, until = True, time.monotonic() + limits.grace_s + WATCHER_S
            if time.monotonic() - asked >= ASK_S:
                state, asked = self._state(job), time.monotonic()
                if state["status"] in ENDED:
                    return state
                if stopping and state["status"] == "PENDING":
                    break
                if not (running or stopping) and state["status"] == "RUNNING":  # time that it has waited is not its own
                    running = True
                    until = time.monotonic() + limits.seconds + limits.grace_s + WATCHER_S
            follower.read()
            time.sleep(LOOK_S)
        self._end(job, call)
        if stopping and call.end() is None:
            raise Cancelled(f"{call.name} was stopped before it began")
        return state

    def _end(self, job: str, call: Call) -> None:
        """See to it that a job has ended.

        Raises:
            TrainingError: it goes on, whatever is done.
        """
        until = time.monotonic() + SILENT_S
        self._ask("POST", f"/api/jobs/{job}/stop")
        while self._state(job)["status"] not in ENDED:
            if time.monotonic() > until:
                raise TrainingError(f"Ray does not end the job {job} of {call.name}; end it with `ray job stop {job}`")
            time.sleep(LOOK_S)

    def _state(self, job: str) -> dict[str, Any]:
        """As Ray has it."""
        return self._ask("GET", f"/api/jobs/{job}") or _GONE

    def _ask(self, method: str, path: str) -> dict[str, Any] | None:
        """As `_once`, and again for a while where it does not answer."""
        until = time.monotonic() + SILENT_S
        while True:
            try:
                return self._once(method, path)
            except _Unwilling:
                if time.monotonic() > until:
                    raise
                time.sleep(ASK_S)

    def _once(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """The answer; None where there is no such thing.

        Raises:
            _Unwilling: there is none now.
            TrainingError: the cluster refuses.
        """
        try:
            answer = self._http.request(method, path, json=body)
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            found = answer.json()
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            kind = _Unwilling if code >= 500 else TrainingError
            raise kind(f"Ray at {self._address} refuses: {code} {_short(error.response.text)}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise _Unwilling(f"Ray at {self._address} does not answer: {error}") from error
        return found if isinstance(found, dict) else {}


class _Unwilling(TrainingError):
    """It may be better later."""


def _short(text: Any) -> str:
    lines = [line for line in str(text or "").strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
