"""The log: lines for people, or JSON for machines, on standard error. Every library's lines pass through it.

A line is an event and its facts, ``log.info("serving", release=…)``, on the standard library's logging. A library that
does the same was measured at 5 MB and a tenth of a second (``docs/decisions/agent-footprint.md``).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal


class Log:
    """What a module logs with; ``facts`` are written behind the event by name."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **facts: object) -> None:
        """For whoever looks for a fault."""
        self._say(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        """What is as it should be."""
        self._say(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """What somebody may have to look at."""
        self._say(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        """What somebody has to mend."""
        self._say(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: object) -> None:
        """An error, with the exception that is being handled."""
        self._say(logging.ERROR, event, facts, handled=True)

    def _say(self, level: int, event: str, facts: dict[str, object], handled: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=handled, extra={"facts": facts})


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Write every line of the process to standard error.

    Args:
        level: debug, info, warning or error; lines below it are left out.
        form: text or json.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _Text(logging.Formatter):
    """``2026-11-26T06:00:00.123Z [info   ] serving  release=… [edge_agent.updates.machine]``."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={_plain(value)}" for name, value in _facts(record).items())
        line = (
            f"{_stamp(record)} [{record.levelname.lower():<7}] {_one_line(record.getMessage())}{facts} [{record.name}]"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    """One object a line: timestamp, level, logger, event, the facts, and the exception as text."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            **_facts(record),
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": _stamp(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str, ensure_ascii=False)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "facts", {})


def _stamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _plain(value: object) -> str:
    """A value as a reader can tell it from the next: what has spaces or quotes is quoted."""
    text = str(value)
    return text if text and not any(c in text for c in ' "=\n\r') else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """A text from outside cannot pretend to be a line of its own."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
