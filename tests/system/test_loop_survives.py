"""The loop as real processes, without its broker for a whole act: every count arrives, exactly once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from examples.digits.fleet import Fleet
from examples.digits.processes import Program, free_port
from examples.digits.story import Story
from examples.digits.tap import Tap


def close(story: Story) -> None:
    for camera in story.cameras:
        camera.stop()
    story.tap.stop()
    story.fleet.stop()


@pytest.mark.timeout(600)
def test_totals_are_exact_when_the_broker_was_away_for_the_whole_first_act(tmp_path: Path) -> None:
    mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if mosquitto is None:
        pytest.skip("needs a broker of its own: apt-get install mosquitto")
    port = free_port()
    settings = tmp_path / "broker.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = Program("broker", [mosquitto, "-c", str(settings)], tmp_path / "broker.log")
    broker.start()
    folder = tmp_path / "demo"
    folder.mkdir()
    story = Story(folder)
    story.fleet = Fleet(folder, broker_port=port)
    story.tap = Tap("127.0.0.1", port, "demo")
    try:
        story.export_and_deploy()
        broker.kill()
        story.act_one_clean_digits()
        assert story.figures.accuracy["clean"] >= 0.93, "agents answer without a broker"
        waiting = [agent.status()["outbox"]["windows"] for agent in story.fleet.agents]
        assert min(waiting) > 0, "windows wait on the devices"
        broker.start()
        story.act_two_the_camera_slips()
        for camera in story.cameras:
            camera.stop()
        story.fleet.drain()
        devices = story.fleet.device_totals()
        assert story.fleet.hub_totals() == devices
        answered = sum(camera.tally.answered for camera in story.cameras)
        judged = len(story.digits.judge.y) * len(story.fleet.agents) * 3
        assert devices["predictions"] == answered + judged, "nothing was lost on a device either"
        assert sum(camera.tally.failed for camera in story.cameras) == 0
    finally:
        close(story)
        broker.stop()


def test_a_tap_finds_an_image_that_is_really_there() -> None:
    """The proof that nothing was uploaded would be worth nothing if the search could not find an upload."""
    from examples.digits.data import load
    from examples.digits.tap import count_images

    images = list(load().stream.x[:50])
    noise = os.urandom(10_001)
    assert count_images(noise, images) == 0
    assert count_images(noise + images[3].tobytes() + noise, images) == 1
    assert count_images(noise[:777] + images[7].astype("f8").tobytes(), images) == 1
    assert count_images(b"x" + (images[9] * 16).astype("u1").tobytes() + noise, images) == 1
