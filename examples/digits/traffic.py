"""The cameras: each sends digits to its own agent over HTTP and, when asked to, the true labels later."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from examples.digits.data import CLEAN, Images, Labels, Slip, Split

#: How many of the latest answers the live accuracy is taken over.
RECENT = 120
FEEDBACK_BATCH = 25


class Client:
    """A plain Open Inference Protocol client: binary tensors in, JSON out."""

    def __init__(self, base_url: str, model: str = "digits") -> None:
        self._http = httpx.Client(base_url=base_url, timeout=10.0)
        self._path = f"/v2/models/{model}"
        self._names: tuple[str, str] | None = None

    def _tensor_names(self) -> tuple[str, str]:
        """Names of the input and of the output that holds the label, as the agent's metadata says."""
        if self._names is None:
            answer = self._http.get(self._path)
            answer.raise_for_status()
            metadata = answer.json()
            label = next(output["name"] for output in metadata["outputs"] if output["datatype"] == "INT64")
            self._names = metadata["inputs"][0]["name"], label
        return self._names

    def infer(self, rows: Images) -> tuple[str, Labels]:
        """Classify float32 rows [N, 64]; returns the prediction's id and the labels int64 [N].

        Raises:
            httpx.HTTPError: the agent did not answer, or answered with an error.
        """
        body = self.ask(rows)
        return body["id"], np.asarray(body["outputs"][0]["data"], dtype=np.int64)

    def ask(self, rows: Images) -> dict[str, Any]:
        """Classify float32 rows [N, 64]; returns the response, whose only output is the labels.

        Raises:
            httpx.HTTPError: the agent did not answer, or answered with an error.
        """
        name, label = self._tensor_names()
        tensor = {
            "name": name,
            "datatype": "FP32",
            "shape": rows.shape,
            "parameters": {"binary_data_size": rows.nbytes},
        }
        header = json.dumps({"inputs": [tensor], "outputs": [{"name": label}]}).encode()
        answer = self._http.post(
            f"{self._path}/infer",
            content=header + rows.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
        )
        answer.raise_for_status()
        return dict(answer.json())

    def feedback(self, items: list[tuple[str, int]]) -> int:
        """Send true labels by prediction id; returns how many the agent took."""
        body = {"items": [{"id": prediction, "label": label} for prediction, label in items]}
        answer = self._http.post("/edgeloop/v1/feedback", json=body)
        answer.raise_for_status()
        return int(answer.json()["accepted"])

    def status(self) -> dict[str, object]:
        """The agent's own status document."""
        answer = self._http.get("/edgeloop/v1/status")
        answer.raise_for_status()
        return dict(answer.json())

    def flush(self) -> None:
        """Close the agent's open window now."""
        self._http.post("/edgeloop/v1/flush").raise_for_status()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


@dataclass
class Tally:
    """What a camera has seen so far; written by its thread only."""

    answered: int = 0
    failed: int = 0
    labelled: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    errors: list[str] = field(default_factory=list)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among the latest."""
        return float(np.mean(self.recent)) if self.recent else None


class Camera(threading.Thread):
    """Sends one digit after another, for ever, until it is stopped.

    Set ``slip`` to change what it sees; call `promise_labels` to have the next answers labelled a little later,
    as an operator would.
    """

    def __init__(self, name: str, base_url: str, split: Split, *, per_second: float, seed: int) -> None:
        super().__init__(name=f"camera-{name}", daemon=True)
        self.tally = Tally()
        self.slip: Slip = CLEAN
        self.sent: list[Images] = []
        self.labelled_inputs: list[tuple[Images, int]] = []
        self._client = Client(base_url)
        self._split, self._period, self._seed = split, 1.0 / per_second, seed
        self._promised = 0
        self._end = threading.Event()

    def promise_labels(self, count: int) -> None:
        """Label the next ``count`` answers; `labelled_inputs` starts afresh."""
        self.labelled_inputs = []
        self.tally.labelled = 0
        self._promised = count

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._end.set()
        self.join(15.0)
        self._client.close()

    def run(self) -> None:
        """The camera's loop."""
        round_ = 0
        while not self._end.is_set():
            seen, world = self.slip(self._split, seed=self._seed + round_), self.slip
            order = np.random.default_rng((self._seed, round_)).permutation(len(seen.y))
            round_ += 1
            waiting: list[tuple[str, int]] = []
            for row in order:
                if self._end.wait(self._period) or self.slip is not world:
                    break
                self._one(seen.x[row : row + 1], int(seen.y[row]), waiting)
                if len(waiting) >= FEEDBACK_BATCH or (waiting and not self._promised):
                    self._send_labels(waiting)
            self._send_labels(waiting)

    def _one(self, image: Images, label: int, waiting: list[tuple[str, int]]) -> None:
        try:
            prediction, labels = self._client.infer(image)
        except httpx.HTTPError as error:
            self.tally.failed += 1
            self.tally.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(0.2)
            return
        self.sent.append(image[0])
        self.tally.answered += 1
        self.tally.recent.append(int(labels[0]) == label)
        if self._promised:
            self._promised -= 1
            waiting.append((prediction, label))
            self.labelled_inputs.append((image[0], label))

    def _send_labels(self, waiting: list[tuple[str, int]]) -> None:
        if waiting:
            try:
                self.tally.labelled += self._client.feedback(waiting)
            except httpx.HTTPError as error:
                self.tally.errors.append(f"feedback: {error}")
            waiting.clear()
