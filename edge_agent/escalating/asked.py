"""What was asked of the teacher: rows of one request, what has become of each, and a client that may wait for them."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

from edge_agent.escalating.better import Better, class_of, with_answers
from edge_agent.serving.calls import Answer
from edgeloop.cascade.combining import better
from edgeloop.insights.sizes import Floats
from edgeloop.protocol import TeacherAnswer
from edgeloop.records import dataclass

log = logging.getLogger(__name__)

WAITING, ANSWERED, UNANSWERED = "waiting", "answered", "unanswered"
"""States of a row: the teacher's answer may still come; it has come; there will be none."""
UNREACHABLE = "unreachable"
"""What a client is told of a row that waits while there is nobody who would answer."""


@dataclass
class AskedRow:
    """One row.

    Attributes:
        index: in the request.
        predicted: class that the edge answered.
        probability: with which it was drawn.
        hardness: of it, 0…1.
        signals: of it, float64 [S].
        payload: the message, until it has left.
        state: `WAITING`, `ANSWERED` or `UNANSWERED`.
        reason: why there is no answer, or "".
        better: the answer, or None.
        ms: milliseconds that the teacher took.
    """

    index: int
    predicted: int
    probability: float
    hardness: float
    signals: Floats
    payload: bytes = b""
    state: str = WAITING
    reason: str = ""
    better: Better | None = None
    ms: float = 0.0


class Asked:
    """Rows of one request; implements :class:`edge_agent.ports.Asked` and :class:`edge_agent.serving.calls.Pending`.

    Attributes:
        id: of the prediction.
        release: digest of the release that answered.
        segment: of the windows.
        rows: indices.
        waits: whether the client is to wait.
        until: when it has waited long enough, monotonic seconds.
        since: when it was asked, unix seconds.
    """

    def __init__(
        self,
        prediction_id: str,
        release: str,
        segment: str,
        rows: Sequence[AskedRow],
        *,
        names: Sequence[str],
        classes: int,
        roles: Mapping[str, str],
        until: float | None,
        since: float,
        send: Callable[[Asked], None],
        done: Callable[[Asked], None],
    ) -> None:
        """Nothing has left yet.

        Args:
            prediction_id: of the request.
            release: digest of what answered.
            segment: of the windows.
            rows: that were drawn.
            names: of the classes.
            classes: how many there are.
            roles: name → role of the model's outputs.
            until: monotonic seconds up to which the client waits; None: it does not.
            since: unix seconds of now.
            send: sends all rows.
            done: told when nobody waits any more.
        """
        self.id, self.release, self.segment = prediction_id, release, segment
        self.of_index = {row.index: row for row in rows}
        self.rows, self.waits, self.until = tuple(self.of_index), until is not None, until or 0.0
        self.since = since
        self._names, self._classes, self._roles = names, classes, roles
        self._send, self._done = send, done
        self._lock = threading.Lock()
        self._client: tuple[Answer, Future[Answer]] | None = None
        self._over = not self.waits

    def send(self) -> None:
        """Send them."""
        self._send(self)

    def better(self, answer: Answer, future: Future[Answer] | None = None) -> Future[Answer]:
        """The better answer, or the edge's own when the time is over."""
        wanted: Future[Answer] = Future() if future is None else future
        with self._lock:
            self._client, over = (answer, wanted), self._over
        if over:
            self._resolve()
        return wanted

    def take(self, found: TeacherAnswer) -> AskedRow | None:
        """Note what the teacher says; returns the row, or None: none such waits."""
        row = self.of_index.get(found.index)
        with self._lock:  # the same answer may come over MQTT and HTTP at once
            if row is None or row.state == ANSWERED:
                return None
            self._note(row, found)
        self._look()
        return row

    def _note(self, row: AskedRow, found: TeacherAnswer) -> None:
        row.ms, row.reason = found.ms, found.reason
        label = None if found.label is None else class_of(found.label, self._names, self._classes)
        if label is not None:
            sure = found.confidence if found.calibrated else None
            outvoted = better(row.predicted, row.hardness, label, sure) != label
            row.better, row.state = Better(label, found.confidence, found.teacher, outvoted), ANSWERED
        else:
            row.state = UNANSWERED
            if found.label is not None:
                row.reason = f"the teacher {found.teacher} says {found.label!r:.80}, which is no class of this model"

    def give_up(self, row: AskedRow, reason: str) -> None:
        """There will be no answer to a row."""
        if row.state == WAITING:
            row.state, row.reason, row.payload = UNANSWERED, reason, b""
        self._look()

    def expire(self) -> None:
        """The client has waited long enough: it gets what there is."""
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._resolve()
            self._done(self)

    def described(self, unreachable: str = "") -> list[dict[str, Any]]:
        """Each row as JSON types.

        Args:
            unreachable: why nobody answers now, or "".
        """
        return [self._described(row, unreachable) for row in self.of_index.values()]

    def _look(self) -> None:
        if all(row.state != WAITING for row in self.of_index.values()):
            self.expire()

    def _resolve(self) -> None:
        """Give the client its answer, if it has come for it already."""
        with self._lock:
            client, self._client = self._client, None
        if client is None:
            return
        own, future = client
        try:
            answer = self._bettered(own)
        except Exception:  # an output of a shape that nobody has thought of must not cost the client its answer
            log.exception("the teacher's answer does not fit the outputs of %s", own.model)
            answer = own
        with contextlib.suppress(InvalidStateError):  # the client may have gone
            future.set_result(answer._replace(pending=None))

    def _bettered(self, own: Answer) -> Answer:
        heard = {row.index: row.better for row in self.of_index.values() if row.better is not None}
        if not heard:
            return own
        taken = {index: found for index, found in heard.items() if not found.outvoted}
        return own._replace(
            outputs=with_answers(own.outputs, self._roles, self._names, taken) if taken else own.outputs,
            teachers={index: found.teacher for index, found in taken.items()},
            outvoted={index: found.teacher for index, found in heard.items() if found.outvoted},
        )

    def _described(self, row: AskedRow, unreachable: str) -> dict[str, Any]:
        found: dict[str, Any] = {"index": row.index, "predicted": row.predicted, "state": row.state}
        if row.state == WAITING:
            found["since"] = self.since
            if unreachable:
                found |= {"state": UNREACHABLE, "reason": f"{unreachable}; the answer may still come"}
        if row.better is not None:
            label = row.predicted if row.better.outvoted else row.better.label
            found |= {"label": label, "confidence": row.better.confidence, "teacher": row.better.teacher}
            if label < len(self._names):
                found["name"] = self._names[label]
            if row.better.outvoted:
                found["outvoted"] = row.better.label
            found["ms"] = row.ms
        if row.reason:
            found["reason"] = row.reason
        return found
