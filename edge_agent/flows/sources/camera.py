"""A camera, a stream or a video: the newest frame is answered, the ones that came meanwhile are dropped and counted.

One slot holds the newest frame, whatever the camera sends, so memory is one frame. A video is played at its own speed,
as a camera would show it. OpenCV is imported by the first camera.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_agent.flow_settings import CameraSourceSettings
from edge_agent.flows.contents import spec_of
from edge_agent.flows.pixels import Pixels, middle, tensor
from edge_agent.flows.ports import Ended, Item, Missing, Reading, Rejected, Trouble
from edge_agent.serving.calls import Described

#: How long a stream may be silent before it is opened anew, milliseconds.
SILENCE_MS = 10_000
#: How long the end of its thread is awaited, seconds.
JOIN_S = 2.0


class CameraSource:
    """Implements `edge_agent.flows.ports.Source`. Frames are not asked for again: `live`.

    Args:
        settings: see docs/reference/flows.md.
    """

    live = True

    def __init__(self, settings: CameraSourceSettings) -> None:
        self._settings = settings
        self._condition = threading.Condition()
        self._newest: tuple[int, Pixels] | None = None
        self._grabber: Grabber | None = None
        self._frames = self._dropped = 0
        self._error: Exception | None = None
        self._not_before = 0.0

    def open(self) -> None:
        """Open the camera, and read it in a thread."""
        self._newest = self._error = None
        self._grabber = Grabber(self._settings, self)
        self._grabber.start()

    def next(self, timeout_s: float) -> Item | None:
        """The newest frame, not more often than the settings say."""
        now = time.monotonic()
        if self._not_before > now:
            time.sleep(min(self._not_before - now, timeout_s))
            if time.monotonic() < self._not_before:
                return None
        with self._condition:
            self._condition.wait_for(lambda: self._newest is not None or self._error is not None, timeout_s)
            taken, self._newest = self._newest, None
            error = self._error
        if taken is None:
            if error is not None:
                raise error
            return None
        if self._settings.max_fps:
            self._not_before = time.monotonic() + 1 / self._settings.max_fps
        number, frame = taken
        return Item(f"frame {number}", {"frame": number}, frame)

    def read(self, item: Item, described: Described) -> Reading:
        """The frame resized, in the settings' colours, laid out."""
        import cv2

        settings, frame = self._settings.picture, item.body
        name = spec_of(described, self._settings.input).name
        height, width = frame.shape[:2]
        if width * height > settings.max_pixels:
            raise Rejected(f"it has {width} x {height} pixels; max_pixels is {settings.max_pixels}")
        if settings.width:
            left, top, right, bottom = middle(width, height, settings)
            # By area where it shrinks: other interpolations skip pixels then.
            shrinks = settings.width < right - left or settings.height < bottom - top
            size, how = (settings.width, settings.height), cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            frame = cv2.resize(frame[top:bottom, left:right], size, interpolation=how)
        if frame.ndim == 2:
            frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        if settings.colours != "bgr":
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB if settings.colours == "rgb" else cv2.COLOR_BGR2GRAY)
        pixels = np.asarray(frame, np.uint8)
        pixels = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
        return Reading({name: tensor(pixels, settings)}, declared=settings.width > 0)

    def done(self, item: Item) -> None:
        """Nothing to remember of a frame."""

    def reject(self, item: Item, reason: str) -> None:
        """Nothing to remember of a frame."""

    def close(self) -> None:
        """Let the camera go."""
        if self._grabber is not None:
            self._grabber.stop()
            self._grabber = None
        with self._condition:
            self._dropped += self._newest is not None
            self._newest = None

    def counts(self) -> Mapping[str, int]:
        """``frames`` that the camera gave, and those ``dropped`` since a newer one came first."""
        return {"frames": self._frames, "dropped": self._dropped}

    @property
    def trouble(self) -> str:
        """Its troubles are raised."""
        return ""

    # ── for the grabber ───────────────────────────────────────────────────────────────────────

    def frame(self, pixels: Pixels) -> None:
        """There is a newer frame."""
        with self._condition:
            self._frames += 1
            self._dropped += self._newest is not None
            self._newest = (self._frames, pixels)
            self._condition.notify()

    def failed(self, error: Exception) -> None:
        """There will be no more frames."""
        with self._condition:
            self._error = error
            self._condition.notify()


class Grabber(threading.Thread):
    """Reads a camera as fast as it gives, and a video at its own speed.

    Raises:
        Missing: OpenCV is not installed.
        Trouble: the camera cannot be opened.
    """

    def __init__(self, settings: CameraSourceSettings, source: CameraSource) -> None:
        super().__init__(name=f"camera:{settings.name}", daemon=True)
        self._settings, self._source = settings, source
        self._stopping = threading.Event()
        self._capture = _open(settings.device)
        # A camera and a stream come in their own time; only a file could be read faster than it was filmed.
        self._is_file = _is_file(settings.device)
        self._frame_s = _frame_s(self._capture) if self._is_file else 0.0
        self._repeats = self._is_file and settings.repeat == "loop"

    def run(self) -> None:
        """Hand over frames until there are no more, or it is told to stop."""
        due, frames = time.monotonic(), 0
        try:
            while not self._stopping.is_set():
                there, pixels = self._capture.read()
                if self._stopping.is_set():
                    return
                if not there and frames and self._repeats:
                    self._capture.release()
                    self._capture, frames = _open(self._settings.device), 0
                    continue
                if not there:
                    raise (
                        Ended("the video is over")
                        if frames and self._is_file
                        else Trouble(f"{self._settings.device} gives no frames")
                    )
                frames += 1
                self._source.frame(pixels)
                if self._frame_s:
                    due = max(due + self._frame_s, time.monotonic() - 1.0)
                    self._stopping.wait(max(due - time.monotonic(), 0.0))
        except (Ended, Trouble) as error:
            self._failed(error)
        except Exception as error:  # OpenCV raises its own, on damaged streams
            self._failed(Trouble(f"{self._settings.device} cannot be read: {error}"))
        finally:
            self._capture.release()

    def _failed(self, error: Exception) -> None:
        # A driver may have held this thread for so long that the camera was opened anew: that one has not failed.
        if not self._stopping.is_set():
            self._source.failed(error)

    def stop(self) -> None:
        """End, unless the driver holds the thread: then it ends when that lets go."""
        self._stopping.set()
        self.join(JOIN_S)


def _open(device: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise Missing("cameras and videos need OpenCV; pip install 'edgeloop[camera]'") from error
    cv2.setNumThreads(1)  # the machine is the model's
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what goes wrong is said below
    capture = cv2.VideoCapture()
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, SILENCE_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, SILENCE_MS]
    if device.isdecimal():
        opened = capture.open(int(device), cv2.CAP_ANY)
    else:
        opened = capture.open(device, cv2.CAP_ANY, options)
    if not opened:
        raise Trouble(f"{device} cannot be opened as a camera or video; is it there, and does nobody else use it?")
    return capture


def _is_file(device: str) -> bool:
    return not device.isdecimal() and "://" not in device and not device.startswith("/dev/")


def _frame_s(capture: Any) -> float:
    import cv2

    per_second = capture.get(cv2.CAP_PROP_FPS)
    return 1 / per_second if 0 < per_second <= 1000 else 1 / 25
