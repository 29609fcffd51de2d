"""Cameras that write down what they were answered, to be compared with what the edge alone would have said."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx
import numpy as np

from examples.digits.data import Images, Labels
from examples.digits.traffic import Camera


@dataclass(frozen=True)
class Answered:
    """One answer: when it came (monotonic seconds), the image and its true label, and what the client was told."""

    at: float
    image: Images
    truth: int
    told: int
    escalated: bool
    by_teacher: bool


class WatchedCamera(Camera):
    """A camera that nobody labels: all that it tells the agent is images."""

    def _one(self, image: Images, label: int, waiting: list[tuple[str, int]]) -> None:
        try:
            body = self._client.ask(image)
        except httpx.HTTPError as error:
            self.tally.failed += 1
            self.tally.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(0.2)
            return
        told, parameters = int(body["outputs"][0]["data"][0]), body.get("parameters", {})
        self.tally.answered += 1
        self.tally.recent.append(told == label)
        escalated, by_teacher = bool(parameters.get("escalated")), bool(parameters.get("teacher"))
        self.answers.append(Answered(time.monotonic(), image[0], label, told, escalated, by_teacher))

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)  # type: ignore[arg-type]
        self.answers: list[Answered] = []


def between(cameras: list[WatchedCamera], start: float, end: float) -> list[Answered]:
    """All answers from ``start`` to ``end``, monotonic seconds, in order."""
    found = [answer for camera in cameras for answer in list(camera.answers) if start <= answer.at < end]
    return sorted(found, key=lambda answer: answer.at)


def images_of(answers: list[Answered]) -> tuple[Images, Labels]:
    """Images float32 [n, 64] and true labels int64 [n]."""
    return np.stack([one.image for one in answers]), np.array([one.truth for one in answers], dtype=np.int64)
