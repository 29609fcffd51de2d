"""What a training program's lines mean: plain or as JSON; whatever else it writes is its log."""

from __future__ import annotations

import json

import pytest

from cloud_hub.training.program_lines import MOST_CHARACTERS, Line, read_line


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("progress 0.4 epoch 4 of 10", Line("epoch 4 of 10", 0.4)),
        ("progress: 40% epoch 4", Line("epoch 4", 0.4)),
        ("progress 1", Line("progress 1", 1.0)),
        ("result 0.93", Line("result 0.93", None, 0.93)),
        ("result=-1e3", Line("result=-1e3", None, -1000.0)),
        ('{"progress": 0.4, "text": "epoch 4"}', Line("epoch 4", 0.4)),
        ('{"progress": 1, "result": 0.5}', Line('{"progress": 1, "result": 0.5}', 1.0, 0.5)),
    ],
)
def test_what_a_program_says_of_itself(line: str, meant: Line) -> None:
    assert read_line(line) == meant


@pytest.mark.parametrize(
    "line",
    [
        "epoch 4: loss 0.1",
        "progress",
        "progress --- nothing",
        "progressive 0.4",
        "{not json",
        '{"progress": "half"}',
        '{"progress": true}',
        '{"text": 7}',
    ],
)
def test_whatever_else_is_a_line_of_the_log(line: str) -> None:
    assert read_line(line) == Line(line)


@pytest.mark.parametrize(
    "number", ["1.5", "-0.1", "nan", "inf", "1e400", json.dumps(10**390), "NaN", "Infinity", "-Infinity"]
)
def test_no_share_is_outside_of_0_to_1(number: str) -> None:
    for line in (f"progress {number} x", f'{{"progress": {number}}}'):
        assert read_line(line).share is None


@pytest.mark.parametrize("number", ["nan", "inf", "1e400", "NaN", "Infinity", "-Infinity", json.dumps(10**390)])
def test_a_result_is_a_number(number: str) -> None:
    for line in (f"result {number}", f'{{"result": {number}}}'):
        assert read_line(line).result is None


def test_a_line_is_short_and_does_not_steer_a_terminal() -> None:
    found = read_line("\x1b[2J" + "x" * 10_000)
    assert len(found.text) == MOST_CHARACTERS and "\x1b" not in found.text
    assert read_line("[" * 300).share is None and read_line('{"a":' * 70).share is None
