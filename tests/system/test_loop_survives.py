"""The loop as real processes, without hub and broker for a whole act: every count arrives, exactly once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from examples.digits.data import CLEAN
from examples.digits.story import ACT_ONE_S, Story


def close(story: Story) -> None:
    for camera in story.cameras:
        camera.stop()
    if story.tap is not None:
        story.tap.stop()
    story.fleet.stop()


@pytest.mark.timeout(600)
def test_totals_are_exact_when_hub_and_broker_were_away_for_the_whole_first_act(tmp_path: Path) -> None:
    story = Story(tmp_path)
    fleet = story.fleet
    try:
        story.export_and_deploy()
        fleet.hub.kill()  # the broker is its child, and ends with it
        time.sleep(ACT_ONE_S)
        assert story.judge(CLEAN) >= 0.93, "agents answer without hub and broker"
        waiting = [agent.status()["outbox"]["windows"] for agent in fleet.agents]
        assert min(waiting) > 0, "windows wait on the devices"
        fleet.hub.start()
        fleet.wait("the hub to be ready", fleet.api.ready)
        story.act_two_the_camera_slips()
        for camera in story.cameras:
            camera.stop()
        fleet.drain()
        devices = fleet.device_totals()
        assert fleet.hub_totals() == devices
        answered = sum(camera.tally.answered for camera in story.cameras)
        judged = len(story.digits.judge.y) * len(fleet.agents) * 3
        assert devices["predictions"] == answered + judged, "nothing was lost on a device either"
        assert sum(camera.tally.failed for camera in story.cameras) == 0
    finally:
        close(story)


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
