"""The story in three acts, told by real processes. Start here: `tell` reads as the loop's steps."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from examples.digits.data import CLEAN, FIRST_SLIP, SECOND_SLIP, Digits, Slip, Split, load
from examples.digits.fleet import CHANNEL, FLEET, POLICY, Agent, Fleet
from examples.digits.model import full_retrain_accuracy, write_sources
from examples.digits.people import MODEL
from examples.digits.summary import Figures
from examples.digits.tap import Tap
from examples.digits.traffic import Camera, Client
from examples.digits.view import Row, View

LABELS = 600
PER_SECOND = 45.0
#: Seconds of clean digits before the camera slips: some hundred predictions a device.
ACT_ONE_S = 4.0


class Story:
    """One run of the demo below ``folder``."""

    camera: type[Camera] = Camera

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digits: Digits = load()
        self.fleet = Fleet(folder)
        self.tap: Tap | None = None
        self.cameras: list[Camera] = []
        self.figures = Figures()
        self.view = View(self._rows)
        #: Seconds that a new release may take to be made, and then to be everywhere.
        self.patience_s = 90.0
        self._updates: list[int] = []
        self._released_last = ""

    def tell(self) -> Figures:
        """Run all acts; returns what was measured.

        Raises:
            ProcessFailed: a program ended, or something that must happen did not happen in time.
        """
        start = time.monotonic()
        try:
            # The reference is computed beside the third act: it is no part of the loop.
            with self.view, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
                self.export_and_deploy()
                self.act_one_clean_digits()
                labelled = self.act_two_the_camera_slips()
                seen = FIRST_SLIP(self.digits.judge, seed=1)
                reference = beside.submit(full_retrain_accuracy, self.digits, labelled, seen)
                self.act_three_and_again()
                self.close_the_books(reference)
        finally:
            for camera in self.cameras:
                camera.stop()
            if self.tap is not None:
                self.tap.stop()
            self.figures.exit_statuses = self.fleet.stop()
        self.figures.seconds = time.monotonic() - start
        self.figures.lineage = self.fleet.people.lineage(self._released_last)
        return self.figures

    # ── before the curtain ────────────────────────────────────────────────────────────────────

    def export_and_deploy(self) -> None:
        """Train, export, quantize, package, sign, publish; three devices enrol, fetch, verify, test and serve it."""
        say, fleet, people = self.view.say, self.fleet, self.fleet.people
        fleet.hub.start()  # it makes its certificates while a model is made
        with ThreadPoolExecutor(1) as meanwhile:
            keys = meanwhile.submit(people.make_keys)
            package, digest = self.build()
            keys.result()
        fleet.start_hub()
        people.sign_the_fleet()
        say("people have signed who may publish, and what the hub may sign: the hub has none of their keys")
        self.open_the_channel()
        with ThreadPoolExecutor(1) as meanwhile:
            enrolled = meanwhile.submit(fleet.enrol_agents)
            people.publish(package, CHANNEL)
            enrolled.result()
        self.figures.bytes["package"] = sum(f.stat().st_size for f in package.rglob("*") if f.is_file())
        say(f"signed, and published to channel {CHANNEL}: {self.figures.bytes['package']:,} bytes")
        say("every device has a key of its own, and a certificate for it")
        fleet.start_agents()
        fleet.wait("the first release on every device", lambda: fleet.on_release(digest, len(fleet.agents)), 180)
        say("every device has verified, tested and committed it")
        for number, agent in enumerate(fleet.agents):
            camera = self.camera(agent.device, agent.url, self._part(number), per_second=PER_SECOND, seed=100 * number)
            self.cameras.append(camera)
            camera.start()

    def build(self) -> tuple[Path, str]:
        """Train and export; the package's folder, and its digest."""
        model, data = write_sources(self.digits, self.folder)
        self.view.say(f"trained an MLP on {len(self.digits.train.y)} digits")
        return self.export(model, data, "1", "fp32,int8")

    def export(self, model: Path, data: Path, version: str, precisions: str) -> tuple[Path, str]:
        """A package of a model: its folder, and its digest."""
        package = self.folder / f"digits-{version}"
        built = self.fleet.people.export(
            *("build", str(model), "--trust-source", "-o", str(package), "--data", str(data)),
            *("--precision", precisions, "--name", MODEL, "--version", version),
        )
        self.view.say(f"model-export build: {built['digest'][:19]}…, variants {', '.join(built['metrics'])}")
        return package, built["digest"]

    def open_the_channel(self) -> None:
        """How the channel is steered, before anything is on it; and from now on every byte of MQTT is looked at."""
        fleet = self.fleet
        self.tap = Tap(fleet.broker_port, FLEET, fleet.people.observer() if fleet.mutual_tls else None)
        self.tap.start()
        fleet.api.put(f"channels/{CHANNEL}", {"policy": POLICY})

    def _part(self, number: int) -> Split:
        """Each camera sees its own third of the stream."""
        stream, every = self.digits.stream, len(self.fleet.agents)
        return Split(stream.x[number::every], stream.y[number::every])

    # ── the acts ──────────────────────────────────────────────────────────────────────────────

    def act_one_clean_digits(self) -> None:
        """All is well: no alarm may be raised."""
        self.view.act("Act 1: clean digits")
        time.sleep(ACT_ONE_S)
        self.figures.accuracy["clean"] = self.judge(CLEAN)
        self.view.say(
            f"accuracy on held-out digits: {self.figures.accuracy['clean']:.3f}; alarms: {len(self._alarms())}"
        )
        self.figures.more["false_alarms"] = len(self._alarms())

    def act_two_the_camera_slips(self) -> Split:
        """Drift is seen without a label; labels come; a new head reaches one device, then all."""
        self.view.act("Act 2: the camera slips (25°, 60 % of the light, noise)")
        labelled = self.slip_and_recover(FIRST_SLIP, "drifted", "recovered", must_be_unlabelled=True)
        return labelled

    def act_three_and_again(self) -> None:
        """A loop that closes only once is no loop."""
        self.view.act("Act 3: somebody turns it too far back, and the sun comes in")
        self.slip_and_recover(SECOND_SLIP, "second_drifted", "second_recovered")

    def slip_and_recover(self, slip: Slip, drifted: str, recovered: str, *, must_be_unlabelled: bool = False) -> Split:
        """One turn of the loop; returns the inputs that were labelled, as the cameras saw them."""
        fleet, say = self.fleet, self.view.say
        before, seen_alarms = self._current(), {alarm["id"] for alarm in self._alarms()}
        for camera in self.cameras:
            camera.slip = slip
        alarm = fleet.wait(
            "a drift alarm", lambda: [a for a in self._alarms() if a["id"] not in seen_alarms], self.patience_s
        )[0]
        if must_be_unlabelled:
            self.figures.labels_before_alarm = int(fleet.hub_totals()["feedback"])
        say(f"DRIFT: {alarm['summary']}")
        self.figures.accuracy[drifted] = self.judge(slip)
        say(f"accuracy on held-out digits fell to {self.figures.accuracy[drifted]:.3f}; {LABELS} labels are coming")
        for camera in self.cameras:
            camera.promise_labels(LABELS // len(self.cameras))
        run = fleet.wait("a retraining run to be released", lambda: self._released(before), self.patience_s)
        say(f"retrained: {run['verdict']['summary']}")
        fleet.wait("the canary", lambda: fleet.on_release(run["release"], 1))
        say("the canary has committed it; the others follow")
        everyone = len(fleet.agents)
        fleet.wait(
            "the whole fleet to follow",
            lambda: fleet.on_release(run["release"], everyone) and self._current() == run["release"],
            self.patience_s,
        )
        self.figures.accuracy[recovered] = self.judge(slip)
        self._released_last = run["release"]
        self._updates += [int(agent.status()["update"]["bytes"]) for agent in fleet.agents]
        say(f"every device runs it, for {max(self._updates):,} bytes: accuracy {self.figures.accuracy[recovered]:.3f}")
        return self._labelled()

    def close_the_books(self, reference: Future[float]) -> None:
        """Stop the cameras, let every window arrive, and compare the totals and the reference."""
        self.view.act("The books")
        for camera in self.cameras:
            camera.stop()
        self.fleet.drain()
        figures, tap = self.figures, self.tap
        assert tap is not None
        figures.totals = {"devices": self.fleet.device_totals(), "hub": self.fleet.hub_totals()}
        figures.failed_requests = sum(camera.tally.failed for camera in self.cameras)
        figures.bytes |= {
            "update": max(self._updates),
            "uplink": tap.uplink_bytes,
            "inputs_uploaded": tap.inputs_found(row for camera in self.cameras for row in camera.sent),
        }
        figures.more["answered"] = sum(camera.tally.answered for camera in self.cameras)
        figures.accuracy["full_retrain"] = reference.result()
        self.view.say(
            f"retraining everything with all raw data would have reached {figures.accuracy['full_retrain']:.3f}"
        )

    # ── what the acts ask ─────────────────────────────────────────────────────────────────────

    def judge(self, slip: Slip) -> float:
        """Accuracy of what the devices answer now, on digits that nobody trains on or labels."""
        seen = slip(self.digits.judge, seed=1)
        right = [self._answers(agent, seen) == seen.y for agent in self.fleet.agents]
        return float(np.mean(right))

    def _answers(self, agent: Agent, seen: Split) -> Any:
        client = Client(agent.url)
        try:
            return client.infer(seen.x)[1]
        finally:
            client.close()

    def _labelled(self) -> Split:
        pairs = [pair for camera in self.cameras for pair in camera.labelled_inputs]
        return Split(np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs]))

    def _alarms(self) -> list[dict[str, Any]]:
        return list(self.fleet.api.get("drift/alarms"))

    def _current(self) -> str:
        return str(self.fleet.api.get(f"channels/{CHANNEL}")["current"]["digest"])

    def _released(self, parent: str) -> dict[str, Any] | None:
        runs = self.fleet.api.get("retraining")
        return next((run for run in runs if run["parent"] == parent and run["state"] == "released"), None)

    def _rows(self) -> list[Row]:
        rows = []
        for number, agent in enumerate(self.fleet.agents):
            row = Row(agent.device)
            if number < len(self.cameras):
                tally = self.cameras[number].tally
                row.answered, row.accuracy = tally.answered, tally.accuracy
            if agent.program.alive:
                try:
                    update = (status := agent.status())["update"]
                    row.release, row.state = str(status["release_name"]), str(update["state"])
                except Exception as error:  # the picture goes on, whatever state the agent is in
                    row.state = type(error).__name__
            rows.append(row)
        return rows
