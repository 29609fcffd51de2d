"""Asking the child: a request in, what it found out; bounded in time, and ended when the agent stops."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from edge_agent.ports import Untrusted
from edge_agent.trust.anchor import Anchor
from edgeloop.records import dataclass

#: The child's own bound for fetching is a minute; who is slower than that is not waited for.
LONGEST_S = 90.0


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
    """Starts the child; one at a time."""

    def __init__(self, anchor: Anchor, cache: Path, *, limits: Mapping[str, float] | None = None) -> None:
        """Nothing runs yet.

        Args:
            anchor: what the device was enrolled with.
            cache: folder of python-tuf; what lies there may be lost or damaged.
            limits: other ones than `fetcher.Limits` has.
        """
        self._anchor, self._cache, self._limits = anchor, cache, dict(limits or {})
        # Python-tuf's cache takes one process at a time.
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
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
            verdict = self._run(json.dumps(request).encode())
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
                self._child.kill()

    def _run(self, request: bytes) -> dict[str, Any]:
        with self._lock:
            if self._stopped:
                raise Untrusted("the agent stops", again=True)
            self._child = child = subprocess.Popen(
                # -P: a file named json.py in the folder that we stand in is not imported.
                [sys.executable, "-P", "-c", "import sys; from edge_agent.trust.child import main; sys.exit(main())"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        try:
            out, err = child.communicate(request, timeout=LONGEST_S)
        except subprocess.TimeoutExpired as error:
            raise Untrusted(f"verification took longer than {LONGEST_S:.0f} s and was stopped", again=True) from error
        finally:
            with self._lock:
                self._child = None
            child.kill()
            child.communicate()
        try:
            if child.returncode:
                raise ValueError
            return dict(json.loads(out))
        except ValueError as error:
            end = "".join(err.decode(errors="replace").strip().splitlines()[-1:])[:200]
            raise Untrusted(f"verification ended with status {child.returncode} and no verdict. {end}") from error


def _text(data: bytes) -> str:
    return b64encode(data).decode()
