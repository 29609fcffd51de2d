"""Samples on a device: off until both owners want them, kept through a kill, gone when one of them has enough."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge_agent.sampling.store import SampleStore
from edgeloop.protocol import Ack, Sample
from edgeloop.sampling.policy import SamplesLimits
from tests.unit.sampling.device import CONSENT, EVERYTHING, RELEASE, Device, until


def waiting(device: Device) -> int:
    return device.samples.status().waiting


def looked_at(device: Device) -> int:
    return device.samples.status().looked_at


def _all_looked_at(device: Device, count: int) -> bool:
    return looked_at(device) == count


def sent(device: Device) -> list[Sample]:
    return device.link.published


def test_nothing_is_taken_before_both_owners_want_it(tmp_path: Path) -> None:
    device = Device(tmp_path, SamplesLimits(consent=False)).start(connected=True, **EVERYTHING)
    assert device.offered == [] and not device.path.exists() and not device.samples.status().on
    device.samples.policy.limit(CONSENT)
    assert device.offered[-1] is not None and device.samples.status().on
    device.stop()
    other = Device(tmp_path / "other").start(connected=True)
    assert other.offered == [] and not other.path.exists(), "the channel asks for none"
    other.stop()


def test_a_row_reaches_the_hub_as_it_was_answered_and_leaves_when_it_is_acknowledged(tmp_path: Path) -> None:
    device = Device(tmp_path).start(connected=True, **EVERYTHING)
    device.answer("one", [[1, 2, 3], [4, 5, 6]], [[0.9, 0.1], [0.2, 0.8]])
    until(lambda: len(sent(device)) == 2)
    for number, sample in enumerate(sorted(sent(device), key=lambda sample: sample.index)):
        assert (sample.device, sample.channel, sample.release, sample.id) == ("dev-1", "stable", RELEASE, "one")
        assert (sample.index, sample.predicted, sample.label) == (number, number, None)
        assert sample.strategy == "random" and sample.probability == 1.0 and sample.epoch == device.store.epoch
        assert sample.tensors["x"].row().tolist() == [[1, 2, 3], [4, 5, 6]][number]
        assert sample.confidence == pytest.approx([0.9, 0.8][number])
    assert waiting(device) == 2
    device.samples.acknowledged(Ack(device.store.epoch + 1, 0, (), tuple(one.number for one in sent(device))))
    assert waiting(device) == 2, "of another memory"
    device.acknowledge(*(one.number for one in sent(device)))
    assert waiting(device) == 0 and device.samples.status().acknowledged == 2
    device.stop()


def test_what_waits_outlives_a_stop_and_numbers_are_never_used_again(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("one", [[1, 2, 3]])
    until(lambda: waiting(device) == 1)
    device.stop()
    device = Device(tmp_path).start(connected=True)
    until(lambda: len(sent(device)) == 1)
    assert sent(device)[0].id == "one"
    first = sent(device)[0].number
    device.samples.policy.limit(SamplesLimits())
    assert not device.path.exists()
    device.samples.policy.limit(CONSENT)
    device.answer("two", [[1, 2, 3]])
    until(lambda: len(sent(device)) == 2)
    assert sent(device)[1].number > first
    device.stop()


@pytest.mark.parametrize("who", ["owner", "channel", "travels"])
def test_who_does_not_want_them_any_more_has_what_waits_deleted(tmp_path: Path, who: str) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("secret", np.full((1, 3), 7.25))
    until(lambda: waiting(device) == 1)
    if who == "owner":
        device.samples.policy.limit(SamplesLimits())
    elif who == "channel":
        device.samples.policy.take({})
    else:
        device.samples.policy.take({**EVERYTHING, "travels": "features"})
    assert waiting(device) == 0
    left = b"".join(path.read_bytes() for path in tmp_path.glob("samples.db*"))
    assert np.full(3, 7.25, np.float32).tobytes() not in left
    assert (who == "travels") == device.path.exists()
    device.samples.connect(device.line)
    device.answer("later", [[1, 2, 3]])
    if who == "travels":
        until(lambda: len(sent(device)) == 1)
        assert list(sent(device)[0].tensors) == ["f"] and sent(device)[0].id == "later"
    device.stop()
    assert [one.id for one in sent(device)] == (["later"] if who == "travels" else [])


def test_consent_that_was_taken_back_while_the_agent_was_off_deletes_at_the_start(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("one", [[1, 2, 3]])
    until(lambda: waiting(device) == 1)
    device.stop()
    device = Device(tmp_path, SamplesLimits()).start(connected=True)
    assert not device.path.exists() and device.offered == []
    device.stop()


def test_a_label_goes_with_its_sample_and_after_it(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("early", [[1, 2, 3]])
    until(lambda: waiting(device) == 1)
    device.samples.labelled([("early", 0, 1), ("nobody", 0, 1)])
    device.samples.labelled([("early", 0, 0)])  # the first one counts
    device.answer("late", [[4, 5, 6]])
    until(lambda: waiting(device) == 2)
    device.samples.connect(device.line)
    until(lambda: len(sent(device)) == 2)
    found = {sample.id: sample for sample in sent(device)}
    assert (found["early"].label, found["late"].label) == (1, None)
    device.acknowledge(*(one.number for one in sent(device)))
    assert waiting(device) == 0
    device.samples.labelled([("late", 0, 1), ("early", 0, 1)])
    until(lambda: len(sent(device)) == 3)
    after = sent(device)[2]
    assert (after.id, after.label, dict(after.tensors)) == ("late", 1, {})
    assert after.number not in {found["late"].number, found["early"].number}
    device.acknowledge(after.number)
    assert waiting(device) == 0
    device.stop()


def test_a_wrong_answer_is_kept_once_its_label_says_so(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**{**EVERYTHING, "strategies": {"disagreement": 1.0}})
    device.answer("right", [[1, 2, 3]])
    device.answer("wrong", [[4, 5, 6]])
    device.samples.labelled([("right", 0, 0), ("wrong", 0, 1)])
    until(lambda: waiting(device) == 1)
    device.samples.connect(device.line)
    until(lambda: len(sent(device)) == 1)
    assert (sent(device)[0].id, sent(device)[0].strategy, sent(device)[0].label) == ("wrong", "disagreement", 1)
    assert sent(device)[0].tensors["x"].row().tolist() == [4, 5, 6]
    device.stop()


def test_a_drifted_stretch_is_kept_while_it_lasts(tmp_path: Path) -> None:
    drifting: list[str] = []
    device = Device(tmp_path, drifted=lambda release: release in drifting)
    device.start(**{**EVERYTHING, "strategies": {"drift": 1.0}})
    device.answer("calm", [[1, 2, 3]])
    until(lambda: looked_at(device) == 1)
    drifting.append(RELEASE)
    device.answer("storm", [[1, 2, 3]])
    until(lambda: looked_at(device) == 2)
    device.samples.connect(device.line)
    until(lambda: len(sent(device)) == 1)
    assert sent(device)[0].id == "storm" and sent(device)[0].strategy == "drift"
    device.stop()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    device = Device(tmp_path, limit_bytes=70_000).start(**EVERYTHING)
    for number in range(5):
        device.answer(f"p{number}", np.full((1, 5000), float(number)))
        until(partial(_all_looked_at, device, number + 1))
    assert waiting(device) == 3 and device.samples.status().dropped == 2
    assert device.samples.status().bytes <= 70_000
    device.answer("huge", np.zeros((1, 20_000)))
    until(lambda: device.samples.status().failed == 1)
    assert "samples_max_bytes" in device.samples.status().trouble and waiting(device) == 3
    device.stop()


def test_the_budget_holds_over_restarts(tmp_path: Path) -> None:
    for turn in range(2):
        device = Device(tmp_path).start(**{**EVERYTHING, "per_day": 8})
        for number in range(20):
            device.answer(f"{turn}-{number}", [[1, 2, 3]])
        until(partial(_all_looked_at, device, 20))
        device.stop()
    device = Device(tmp_path).start()
    assert waiting(device) <= 2, "a quarter of the day's budget may go at once"
    device.stop()


def test_lent_inputs_are_copied(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    rows = np.ones((1, 3), np.float32)
    device.answer("lent", rows, lent=True)
    rows[:] = 9
    device.samples.connect(device.line)
    until(lambda: len(sent(device)) == 1)
    assert sent(device)[0].tensors["x"].row().tolist() == [1, 1, 1]
    device.stop()


def hide_second(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    if inputs["x"][0] == 1:
        return None
    if inputs["x"][0] == 2:
        raise RuntimeError("no face was found")
    inputs["x"][1] = 0
    return inputs


def test_the_owners_function_decides_what_leaves_and_fails_closed(tmp_path: Path) -> None:
    device = Device(tmp_path, redact=f"{__name__}:hide_second").start(connected=True, **EVERYTHING)
    device.answer("none", [[1, 6, 6]])
    device.answer("fails", [[2, 6, 6]])
    device.answer("some", [[3, 6, 6]])
    until(lambda: len(sent(device)) == 1)
    assert sent(device)[0].tensors["x"].row().tolist() == [3, 0, 6]
    status = device.samples.status()
    assert (status.kept, status.redacted, status.failed) == (1, 1, 1)
    device.stop()


def test_what_waits_was_redacted_by_the_function_that_counts_now(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("bare", [[3, 6, 6]])
    until(lambda: waiting(device) == 1)
    device.stop()
    device = Device(tmp_path, redact=f"{__name__}:hide_second").start(connected=True)
    assert waiting(device) == 0
    device.stop()


@pytest.mark.parametrize("name", ["there.is:none", "os:sep", f"{__name__}:missing"])
def test_without_the_owners_function_nothing_is_taken(tmp_path: Path, name: str) -> None:
    device = Device(tmp_path, redact=name).start(connected=True, **EVERYTHING)
    assert device.offered == [] and "samples_redact" in device.samples.status().trouble
    device.stop()


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "samples.db").write_bytes(b"this is no database" * 500)
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("one", [[1, 2, 3]])
    until(lambda: waiting(device) == 1)
    device.stop()


def test_what_fails_never_reaches_the_data_plane(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    device.answer("odd", [[1, 2, 3]], [[np.nan, np.inf]])
    device.answer("\x00" * 10, [[1, 2, 3]])
    device.answer("i" * 5000, [[1, 2, 3]])
    device.answer("fine", [[1, 2, 3]])
    until(lambda: device.samples.status().failed >= 1 and waiting(device) >= 1)
    device.stop()


_CHILD = """
import sys
from functools import partial
from pathlib import Path
from tests.unit.sampling.device import EVERYTHING, Device, until
device = Device(Path(sys.argv[1])).start(**EVERYTHING)
number = 0
while True:
    device.answer(f"p{number}", [[number, 2, 3]])
    until(lambda: device.samples.status().kept == number + 1)
    print(number, flush=True)
    number += 1
"""


def test_what_was_kept_outlives_sigkill(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(3):
        kept = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    child.stdout.close()
    device = Device(tmp_path).start(connected=True)
    until(lambda: len({one.id for one in sent(device)}) > kept)
    assert {f"p{number}" for number in range(kept + 1)} <= {one.id for one in sent(device)}
    assert len({one.number for one in sent(device)}) == len({one.id for one in sent(device)})
    device.stop()


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    device = Device(tmp_path).start(**EVERYTHING)
    assert device.path.stat().st_mode & 0o077 == 0
    device.stop()


def test_a_disk_that_refuses_is_said_and_forgotten_when_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    device = Device(tmp_path).start(**EVERYTHING)
    with monkeypatch.context() as patched:
        patched.setattr(SampleStore, "_insert", full)
        device.answer("one", [[1, 2, 3]])
        until(lambda: "full" in device.samples.status().trouble)
    device.answer("two", [[1, 2, 3]])
    until(lambda: waiting(device) == 1 and device.samples.status().trouble == "")
    device.stop()
