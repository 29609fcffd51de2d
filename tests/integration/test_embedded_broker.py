"""The hub's own broker, as a real process: what happens to it while it starts is not the hub's end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cloud_hub.broker import SEARCH_PATH, START_RETRIES, Choice, EmbeddedBroker
from cloud_hub.errors import StartError

MOSQUITTO = shutil.which("mosquitto", path=SEARCH_PATH)
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="apt-get install mosquitto")


def killed(folder: Path, times: int) -> Choice:
    """A Mosquitto that is killed so often before it listens."""
    program = folder / "mosquitto"
    once_more = f'[ "$(wc -l < "$0.starts")" -gt {times} ] || kill -9 $$'
    program.write_text(f'#!/bin/sh\necho . >> "$0.starts"\n{once_more}\nexec {MOSQUITTO} "$@"\n')
    program.chmod(0o755)
    return Choice("mosquitto", str(program))


@needs_mosquitto
def test_one_that_is_killed_before_it_listens_is_started_again(tmp_path: Path) -> None:
    broker = EmbeddedBroker(killed(tmp_path, START_RETRIES), tmp_path / "broker")
    broker.start()
    assert broker.alive
    assert broker.restarts == START_RETRIES
    broker.stop()


@needs_mosquitto
def test_one_that_never_lives_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    broker = EmbeddedBroker(killed(tmp_path, 1000), tmp_path / "broker")
    with pytest.raises(StartError, match="ended with -9"):
        broker.start()
    broker.stop()
    assert len((tmp_path / "mosquitto.starts").read_text().split()) == START_RETRIES + 1


def test_one_that_ends_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "mosquitto"
    program.write_text('#!/bin/sh\necho . >> "$0.starts"\necho "no such option"\nexit 3\n')
    program.chmod(0o755)
    broker = EmbeddedBroker(Choice("mosquitto", str(program)), tmp_path / "broker")
    with pytest.raises(StartError, match="ended with 3: no such option"):
        broker.start()
    broker.stop()
    assert (tmp_path / "mosquitto.starts").read_text().split() == ["."]
