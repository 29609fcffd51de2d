"""The embedded broker: a child process that is watched, and started again when it dies.

No durability is expected of it: the hub publishes its retained documents on every connect, devices keep their windows
until the hub acknowledges them. So it stores nothing, and a broker that was killed costs seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from cloud_hub import exit_codes
from cloud_hub.broker_config import BrokerFiles, mosquitto_config
from cloud_hub.errors import StartError
from edgeloop.loopback import is_loopback

log = logging.getLogger(__name__)

Kind = Literal["mosquitto", "amqtt"]

#: Debian puts Mosquitto where the PATH of a plain user does not look.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))
#: First and longest wait before a broker that died is started again, seconds; one that lived this long starts anew.
BACKOFF_S = (0.1, 10.0)
#: How often the first broker is started again when somebody kills it before it listens.
START_RETRIES = 3
#: How long a broker may take until it accepts connections: aMQTT imports for 2 s on a slow machine.
READY_S = 20.0
#: How long the port of a broker that a killed hub left behind may stay taken.
RELEASE_S = 5.0


@dataclass(frozen=True)
class Choice:
    """Which broker runs: its kind and, for Mosquitto, its program."""

    kind: Kind
    program: str = ""


def choose(wanted: Literal["auto", "mosquitto", "amqtt"], search_path: str = SEARCH_PATH) -> Choice:
    """Find the broker that the settings ask for.

    Raises:
        StartError: it is not installed.
    """
    program = shutil.which("mosquitto", path=search_path) if wanted != "amqtt" else None
    if program is not None:
        return Choice("mosquitto", program)
    if wanted == "mosquitto":
        raise StartError(
            "Mosquitto is not installed, and the settings ask for it",
            "apt-get install mosquitto (or brew install mosquitto), or set broker = amqtt",
            exit_codes.NO_BROKER,
        )
    return Choice("amqtt")


class EmbeddedBroker:
    """One broker process.

    Args:
        choice: which one.
        folder: for its configuration and pid file.
        host: address that it listens on; loopback only for aMQTT.
        port: its port; 0 chooses one, which stays the same for as long as this object lives.
        files: for mutual TLS; None: whoever reaches the address may do all. aMQTT does without.

    Raises:
        StartError: aMQTT is to do what it cannot, or nobody is to be asked who they are beyond this machine.
    """

    def __init__(
        self,
        choice: Choice,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        files: BrokerFiles | None = None,
    ) -> None:
        if choice.kind == "amqtt" and not is_loopback(host):
            raise StartError(
                f"aMQTT is for development, on loopback, and {host} is not loopback: its access rules do not hold",
                "install Mosquitto (apt-get install mosquitto, brew install mosquitto)",
                exit_codes.NO_BROKER,
            )
        if choice.kind == "amqtt":
            files = None
        if files is None and not is_loopback(host):
            raise StartError(
                f"the embedded broker on {host} would ask nobody who they are",
                "leave insecure = false, or set broker_host to a loopback address",
                exit_codes.NO_BROKER,
            )
        if choice.kind == "amqtt":
            log.warning("the broker is aMQTT, which asks nobody who they are: for development; else install Mosquitto")
        self.choice, self.host, self.port = choice, host, port
        self.restarts = 0
        self._folder, self._files = folder, files
        self._pid_file = folder / "broker.pid"
        self._process: subprocess.Popen[str] | None = None
        self._words: deque[str] = deque(maxlen=3)
        self._stop = threading.Event()
        self._started, self._listening = threading.Event(), threading.Event()
        self._failure: StartError | None = None
        # Whether somebody ended the child before it listened: that says nothing against the next one.
        self._killed = False
        self._thread = threading.Thread(target=self._watch, name="broker", daemon=True)

    @property
    def mutual_tls(self) -> bool:
        """Whether it asks who its clients are."""
        return self._files is not None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.pid is not None

    def start(self) -> None:
        """Start the broker and wait until it accepts connections.

        Raises:
            StartError: the port is taken, or the broker does not run.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._end_leftover()
        self._reserve_port()
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout_s: float = 3.0) -> None:
        """End the broker, and the watching."""
        self._stop.set()
        self._end_child(timeout_s)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def reload(self) -> None:
        """Have Mosquitto read its rules and certificates again; connections go on. It does so soon, not at once."""
        if (process := self._process) is not None and process.poll() is None:
            process.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        """End every connection, and start anew with what the files say now; returns when it listens again."""
        before = self._process
        if before is None or before.poll() is not None:
            return  # it is being started, and reads the files as they are
        before.terminate()
        until = time.monotonic() + READY_S
        while time.monotonic() < until and not self._stop.is_set():
            if self._process is not before and self.alive and self._listening.is_set():
                return
            time.sleep(0.01)
        if not self._stop.is_set():
            log.error("the broker did not start again within %.0f s", READY_S)

    def _watch(self) -> None:
        """Start the child and watch it. Linux ties it to this very thread, which lives as long as the hub."""
        wait = BACKOFF_S[0]
        while not self._stop.is_set():
            began = time.monotonic()
            problem = self._launch()
            if not self._started.is_set() and not (self._killed and self.restarts < START_RETRIES):
                if problem:
                    self._failure = StartError(problem, "set broker = none and run one yourself", exit_codes.NO_BROKER)
                self._started.set()
                if problem:
                    return
            elif problem:
                log.error("%s", problem)
            if self._process is not None:
                code = self._process.wait()
                if self._stop.is_set():
                    return
                log.warning("the broker ended with %s; it starts again in %.1f s", code, wait)
            if time.monotonic() - began > BACKOFF_S[1]:
                wait = BACKOFF_S[0]
            self._stop.wait(wait)
            wait = min(wait * 2, BACKOFF_S[1])
            self.restarts += 1

    def _launch(self) -> str:
        """Start the child and wait for its port; returns what is wrong, or ""."""
        self._killed = False
        self._listening.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloud_hub.broker_child", str(os.getpid()), *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        listener = threading.Thread(target=self._listen, args=(self._process,), name="broker-log", daemon=True)
        listener.start()
        if self._stop.is_set():  # stop() came between, and saw no child
            self._process.terminate()
            return ""
        fresh = self._pid_file.with_suffix(".new")
        fresh.write_text(str(self._process.pid))
        fresh.replace(self._pid_file)  # whoever reads it finds a whole number
        until = time.monotonic() + READY_S
        while time.monotonic() < until and not self._stop.is_set():
            if self._process.poll() is not None:
                listener.join(1.0)
                self._killed = self._process.returncode < 0
                return f"the broker {self.choice.kind} ended with {self._process.returncode}: {self._last_words()}"
            if _accepts(self.host, self.port):
                log.info("broker %s listens on %s:%d", self.choice.kind, self.host, self.port)
                self._listening.set()
                return ""
            time.sleep(0.02)
        self._end_child(1.0)
        return f"the broker {self.choice.kind} did not open port {self.port} within {READY_S:.0f} s"

    def _arguments(self) -> list[str]:
        if self.choice.kind == "amqtt":
            return ["amqtt", str(self.port), str(self._folder)]
        config = self._folder / "mosquitto.conf"
        config.write_text(mosquitto_config(self.host, self.port, self._files))
        return ["mosquitto", self.choice.program, str(config)]

    def _reserve_port(self) -> None:
        """Choose a port where none is given; else wait a moment for the one of a hub that was just killed."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        until = time.monotonic() + RELEASE_S
        while True:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.host, self.port))
                except OSError as error:
                    if time.monotonic() > until:
                        raise StartError(
                            f"the broker cannot listen on {self.host}:{self.port}: {error.strerror}",
                            "set broker_port to a free port (0 chooses one), or broker = none to use what runs there",
                            exit_codes.PORT_TAKEN,
                        ) from error
                else:
                    self.port = int(probe.getsockname()[1])
                    return
            time.sleep(0.1)

    def _end_leftover(self) -> None:
        """End the broker of a hub that was killed, where the system has not done so already."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file.read_text()))
            if str(self._folder) in " ".join(process.cmdline()):  # a pid is used again: only ours names our folder
                process.terminate()
                process.wait(RELEASE_S)
        self._pid_file.unlink(missing_ok=True)

    def _end_child(self, timeout_s: float) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Pass what the broker says on to the log; a file of its own would grow without bound."""
        assert process.stdout is not None
        for line in process.stdout:
            self._words.append(line.strip())
            # aMQTT writes a traceback for every connection that ends oddly.
            log.log(logging.WARNING if self.choice.kind == "mosquitto" else logging.DEBUG, "broker: %s", line.strip())

    def _last_words(self) -> str:
        return "; ".join(self._words) or "it said nothing"


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False
