"""Lines of the log: one event a line, its facts by name, in both forms."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from edge_agent.logs import Log, configure


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_for_people_has_the_facts_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    Log("part").info("serving", release="sha256:1", reason="all is well", share=0.5)
    line = capsys.readouterr().err
    assert '[info   ] serving release=sha256:1 reason="all is well" share=0.5 [part]\n' in line


def test_a_line_for_machines_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    Log("part").warning("100 % full\nand more", level="mine", path={1})
    logging.getLogger("library").error("it %s", "broke")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {"event": "100 % full\nand more", "level": "warning", "logger": "part", "path": "{1}"}
    assert (second["event"], second["logger"], second["level"]) == ("it broke", "library", "error")


def test_text_from_outside_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    Log("part").error("no\n2026-01-01 [info] all is well", topic="a\nb")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_exception_is_written_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "json"):
        configure("info", form)
        try:
            raise ValueError("oh dear")
        except ValueError:
            Log("part").exception("it failed", release="r")
        told = capsys.readouterr().err
        assert "ValueError: oh dear" in told and "release" in told


def test_what_is_below_the_level_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    Log("part").info("quiet")
    Log("part").debug("quieter")
    assert capsys.readouterr().err == ""
