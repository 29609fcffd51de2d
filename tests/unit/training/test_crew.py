"""Who does runs: a few at once, one of a model, and all of them end when the hub does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloud_hub.training import run_log
from cloud_hub.training.crew import Crew, Doing
from cloud_hub.training.run_log import RunLogs

SOON_S = 30.0


def until_stopped(doing: Doing) -> None:
    while not doing.stopped():
        threading.Event().wait(0.005)


def test_a_few_at_once_and_one_of_a_model() -> None:
    crew = Crew(2)
    assert crew.take(1, "digits", until_stopped)
    assert not crew.take(2, "digits", until_stopped), "its model is being retrained"
    assert crew.take(3, "faces", until_stopped)
    assert not crew.take(4, "voices", until_stopped), "all hands are full"
    first, none = crew.find(1), crew.find(2)
    assert first is not None and first.model == "digits" and none is None
    first.stop()
    while crew.find(1) is not None:
        threading.Event().wait(0.005)
    assert crew.take(4, "voices", until_stopped)
    crew.stop(SOON_S)
    assert crew.find(3) is None and crew.find(4) is None
    assert not crew.take(5, "digits", until_stopped), "a hub that stops begins nothing"


def test_who_could_not_begin_is_not_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    crew = Crew(1)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", none_left)
        crew.take(1, "digits", until_stopped)
    assert crew.find(1) is None and crew.take(1, "digits", until_stopped), "the next tick tries again"
    crew.stop(SOON_S)


def test_who_is_stopped_knows_why() -> None:
    crew, ended = Crew(2), list[tuple[int, bool]]()

    def work(doing: Doing) -> None:
        until_stopped(doing)
        ended.append((doing.run, doing.interrupted))

    crew.take(1, "a", work)
    crew.take(2, "b", work)
    cancelled = crew.find(1)
    assert cancelled is not None
    cancelled.stop()
    while crew.find(1) is not None:
        threading.Event().wait(0.005)
    crew.stop(SOON_S)
    assert ended == [(1, False), (2, True)]


def test_a_fault_frees_the_hand() -> None:
    crew = Crew(1)

    def broken(doing: Doing) -> None:
        raise RuntimeError("no such luck")

    assert crew.take(1, "a", broken) and crew.join(SOON_S)
    assert crew.take(2, "a", until_stopped)
    crew.stop(SOON_S)


def test_who_does_not_listen_is_not_waited_for() -> None:
    crew, ends = Crew(1), threading.Event()
    crew.take(1, "a", lambda doing: (ends.wait(SOON_S), None)[1])
    crew.stop(0.0)
    assert crew.find(1) is not None
    ends.set()
    assert crew.join(SOON_S)


def test_a_log_is_bounded_and_says_so(tmp_path: Path) -> None:
    logs = RunLogs(tmp_path / "logs")
    logs.add(1, "one\n  line\x00", 0.0)
    assert logs.lines(1, 10) == ["1970-01-01T00:00:00+00:00 one line\x00"]
    assert logs.lines(2, 10) == []
    for _ in range(run_log.MOST_BYTES // run_log.MOST_CHARACTERS + 5):
        logs.add(1, "x" * 10_000, 1.0)
    size = (tmp_path / "logs" / "run-00000001.log").stat().st_size
    assert size <= run_log.MOST_BYTES + 100
    logs.add(1, "more", 2.0)
    assert "the log is full" in logs.lines(1, 1)[0]
    assert (tmp_path / "logs" / "run-00000001.log").stat().st_size == size


def test_old_logs_go(tmp_path: Path) -> None:
    logs = RunLogs(tmp_path / "logs")
    for run in range(run_log.KEPT + 3):
        logs.add(run, "line", 0.0)
    logs.tidy()
    assert logs.lines(2, 1) == [] and logs.lines(3, 1) and logs.lines(run_log.KEPT + 2, 1)
