"""Asking the child: a request in, what it found out; bounded in time, and ended when the agent stops.

Documents come in company (a rollout has one for each of its steps), so a child that has answered is kept for some
seconds. A quiet device has none.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any

from edge_agent.ports import Untrusted
from edge_agent.trust.anchor import Anchor
from edgeloop.records import dataclass

#: The child's own bound for fetching is a minute; who is slower than that is not waited for.
LONGEST_S = 90.0
#: A child that is asked nothing for so long is ended, seconds: it holds memory, and takes half a second to start.
KEPT_S = 10.0
#: Bytes of a verdict; it tells less than the metadata that was asked about.
LONGEST_VERDICT = 8 << 20
#: Seconds that a child which gives no verdict has to end by itself, so that its own reason can be told.
ENDING_S = 1.0


@dataclass(frozen=True)
class Role:
    """A role of the fleet's metadata as it was found.

    Attributes:
        keyids: of the keys that it has.
        version: that was read and verified, or None.
        listed: that the snapshot lists, or None.
        expires: unix seconds, of what was read.
    """

    keyids: tuple[str, ...]
    version: int | None
    listed: int | None
    expires: float | None


@dataclass(frozen=True)
class Named:
    """What a role names at a path: a file's length and SHA-256; or the problem, and whether it may pass."""

    length: int = 0
    sha256: str = ""
    problem: str = ""
    again: bool = False


@dataclass(frozen=True)
class Found:
    """What the child found.

    Attributes:
        roles: by name.
        named: by path.
        fetched: bytes that came from the hub.
        ms: milliseconds that verification took, without the child's start.
    """

    roles: Mapping[str, Role]
    named: Mapping[str, Named]
    fetched: int
    ms: float


@dataclass(frozen=True)
class Question:
    """What is to be verified.

    Attributes:
        paths: of targets.
        metadata: file name → bytes, as they came with the document.
        ask_for_root: whether the hub is asked for a newer root first, rather than when something does not add up.
        signed: a document and the signature that a key of ``channels`` has to have made.
    """

    paths: Sequence[str] = ()
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    ask_for_root: bool = False
    signed: tuple[bytes, bytes] | None = None


class Examiner:
    """Asks a child, one question at a time.

    What was refused was maybe made to do harm: the next question goes to a child that has never seen it.
    """

    def __init__(
        self, anchor: Anchor, cache: Path, *, limits: Mapping[str, float] | None = None, kept_s: float = KEPT_S
    ) -> None:
        """Nothing runs yet.

        Args:
            anchor: what the device was enrolled with.
            cache: folder of python-tuf; what lies there may be lost or damaged.
            limits: other ones than `fetcher.Limits` has.
            kept_s: seconds for which a child is kept after its last verdict.
        """
        self._anchor, self._cache, self._limits, self._kept_s = anchor, cache, dict(limits or {}), kept_s
        # Python-tuf's cache takes one process at a time.
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._child: _Child | None = None
        self._stopped = False

    def examine(self, question: Question, hub: str) -> Found:
        """What the child finds.

        Args:
            question: what is to be verified.
            hub: base URL.

        Raises:
            Untrusted: it does not verify.
        """
        request = {
            "root": _text(self._anchor.root),
            "cache": str(self._cache),
            "identity": None if self._anchor.data is None else str(self._anchor.data),
            "hub": hub,
            "paths": list(question.paths),
            "metadata": {name: _text(data) for name, data in question.metadata.items()},
            "ask_for_root": question.ask_for_root,
            "signed": None if question.signed is None else [_text(part) for part in question.signed],
            "limits": self._limits,
        }
        with self._turn:
            verdict = self._ask(json.dumps(request).encode())
        if "refused" in verdict:
            raise Untrusted(verdict["refused"], again=verdict["again"])
        roles = {name: Role(**{**role, "keyids": tuple(role["keyids"])}) for name, role in verdict["roles"].items()}
        named = {path: Named(**found) for path, found in verdict["named"].items()}
        return Found(roles, named, verdict["fetched"], verdict["ms"])

    def stop(self) -> None:
        """End a child that runs, and start no other."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.process.kill()
        with self._turn:
            self._end()

    def _ask(self, request: bytes) -> dict[str, Any]:
        child, verdict = self._started(), {"refused": "no verdict"}
        try:
            verdict = child.ask(request)
        finally:
            if "refused" in verdict:
                self._end()
            else:
                child.rest(self._kept_s, self._rested)
        return verdict

    def _started(self) -> _Child:
        """The child that was kept, or a new one."""
        if self._child is not None and self._child.process.poll() is not None:
            self._end()
        with self._lock:
            if self._stopped:
                raise Untrusted("the agent stops", again=True)
            if self._child is None:
                self._child = _Child()
            return self._child

    def _rested(self) -> None:
        """Nothing was asked for a while. Who asks just now keeps the child."""
        if self._turn.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._turn.release()

    def _end(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()


class _Child:
    """A process that answers one line with one line. It ends when its standard input does, so with the agent."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            # -P: a file named json.py in the folder that we stand in is not imported.
            [sys.executable, "-P", "-c", "import sys; from edge_agent.trust.child import main; sys.exit(main())"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._rest: threading.Timer | None = None
        self._said = b""

    def ask(self, request: bytes) -> dict[str, Any]:
        """Its verdict; raises `Untrusted` where there is none in time."""
        self._wake()
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        bound = _after(LONGEST_S, stop)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(request + b"\n")
            self.process.stdin.flush()
            return dict(json.loads(self.process.stdout.readline(LONGEST_VERDICT)))
        except (OSError, ValueError) as error:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(ENDING_S)
            said = self.end()
            if late.is_set():
                told = f"verification took longer than {LONGEST_S:.0f} s and was stopped"
                raise Untrusted(told, again=True) from error
            told = f"verification ended with status {self.process.returncode} and no verdict. {said}"
            raise Untrusted(told) from error
        finally:
            bound.cancel()

    def rest(self, seconds: float, then: Callable[[], object]) -> None:
        """Call ``then`` when nothing was asked for so long."""
        self._rest = _after(seconds, then)

    def end(self) -> str:
        """End it, at once; returns the last line that it wrote to standard error."""
        self._wake()
        self.process.kill()
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            self._said = self.process.communicate()[1]
        return "".join(self._said.decode(errors="replace").strip().splitlines()[-1:])[:200]

    def _wake(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None


def _after(seconds: float, call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True  # an agent that ends does not wait for it
    timer.start()
    return timer


def _text(data: bytes) -> str:
    return b64encode(data).decode()
