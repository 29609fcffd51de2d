"""``edge-agent rollback``: leave what serves for what served before; through the running agent, or without one."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from edge_agent.operator_key import HEADER, read_key
from edge_agent.settings import Settings
from edge_agent.updates.rules import ROLLED_BACK, UNPROVEN
from edge_agent.updates.store import Position, UpdateStore

#: The agent may be in the middle of a test, which it ends first.
LONGEST_ANSWER_S = 600.0


class NothingBefore(Exception):
    """There is no release to go back to; the message says why."""


class NoAnswer(Exception):
    """An agent has the data folder, and does not answer; the message says what to do."""


def roll_back(settings: Settings, reason: str) -> dict[str, Any]:
    """Leave the release that serves.

    Args:
        settings: of the agent.
        reason: a sentence for people; the hub is told.

    Returns:
        ``left`` and ``release`` (digests: what was left, and what is committed now), ``reason``, and ``running``:
        whether an agent did it. Without one, it serves the release at its next start.

    Raises:
        NothingBefore: nothing has changed.
        NoAnswer: nothing is known to have changed.
    """
    with _folder(settings.data) as mine:
        return _without_agent(settings.data, reason) if mine else _by_agent(settings, reason)


@contextmanager
def _folder(data: Path) -> Iterator[bool]:
    """Whether the data folder is ours for a while: no agent runs on it, and none starts."""
    try:
        lock = (data / "lock").open("a+")
    except FileNotFoundError as error:
        raise NothingBefore(f"no agent has ever run on {data}") from error
    except OSError as error:
        raise NoAnswer(f"{data} cannot be used: {error.strerror}; run this as the agent's user") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _by_agent(settings: Settings, reason: str) -> dict[str, Any]:
    address = settings.own_url
    try:
        answer = httpx.post(
            f"{address}/edgeloop/v1/rollback",
            json={"reason": reason},
            headers={HEADER: read_key(settings.data) or ""},
            timeout=LONGEST_ANSWER_S,
            trust_env=False,  # a proxy is for the way to the hub
        )
        found = dict(answer.json())
    except (httpx.HTTPError, ValueError, TypeError) as error:
        raise NoAnswer(
            f"an agent uses {settings.data} and does not answer at {address} ({error}); is listen_port the one that it "
            "was started with? Stop it, then this works without it"
        ) from error
    if answer.status_code == httpx.codes.CONFLICT:
        raise NothingBefore(found["error"])
    if answer.status_code != httpx.codes.OK:
        raise NoAnswer(f"the agent at {address} answers: {found.get('error', answer.status_code)}")
    return {**found, "running": True}


def _without_agent(data: Path, reason: str) -> dict[str, Any]:
    if not (data / "updates.db").is_file():
        raise NothingBefore(f"the agent of {data} has never had a release")
    store = UpdateStore(data / "updates.db")
    try:
        at = _leave(store, f"left by hand: {reason}")
        committed = store.committed()
    finally:
        store.close()
    release = None if committed is None else committed.release
    return {"left": at.release, "release": release, "reason": at.reason, "running": False}


def _leave(store: UpdateStore, reason: str) -> Position:
    at = store.position()
    if at.state in UNPROVEN and at.release is not None:
        return store.leave(at.release, ROLLED_BACK, reason, time.time())
    try:
        return store.go_back(reason, time.time(), by_hand=True)
    except LookupError as error:
        raise NothingBefore(str(error)) from error
