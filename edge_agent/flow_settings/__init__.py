"""The settings of sources and sinks: ``[[sources]]`` and ``[[sinks]]`` in the agent's TOML, one typed object a kind.

docs/reference/flows.md has a table of each, and a test compares them with these classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from edge_agent.fields import read
from edge_agent.flow_settings.shared import BrokerSettings, PictureSettings, TensorSettings
from edge_agent.flow_settings.sinks import (
    SINKS,
    HomeAssistantSettings,
    JsonlSinkSettings,
    MqttSinkSettings,
    SinkSettings,
    SpooledSinkSettings,
    WebhookSinkSettings,
)
from edge_agent.flow_settings.sources import (
    PICTURES,
    SOURCES,
    CameraSourceSettings,
    FolderSourceSettings,
    MqttSourceSettings,
    ReplaySourceSettings,
    SourceSettings,
    library,
)

__all__ = [
    "PICTURES",
    "SINKS",
    "SOURCES",
    "BrokerSettings",
    "CameraSourceSettings",
    "FolderSourceSettings",
    "HomeAssistantSettings",
    "JsonlSinkSettings",
    "MqttSinkSettings",
    "MqttSourceSettings",
    "PictureSettings",
    "ReplaySourceSettings",
    "SinkSettings",
    "SourceSettings",
    "SpooledSinkSettings",
    "TensorSettings",
    "WebhookSinkSettings",
    "check_flows",
    "library",
    "read_all",
]

T = TypeVar("T")


def read_all(kinds: Mapping[str, type[T]], tables: Sequence[Any]) -> tuple[T, ...]:
    """Typed settings of ``[[sources]]`` or ``[[sinks]]``.

    Args:
        kinds: `SOURCES` or `SINKS`.
        tables: as TOML has them.

    Raises:
        ValueError: with every problem of every table; each is named by its name, or its number from 1.
    """
    found: list[T] = []
    problems: list[str] = []
    for number, table in enumerate(tables, 1):
        shown = table.get("name", number) if isinstance(table, Mapping) else number
        kind = str(table.get("kind")) if isinstance(table, Mapping) else ""
        if kind not in kinds:
            problems.append(f"{shown}: kind has to be one of {', '.join(kinds)}, not {kind!r}")
            continue
        try:
            found.append(read(kinds[kind], table))
        except ValueError as error:
            problems.append(f"{shown}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found)


def check_flows(sources: Sequence[SourceSettings], sinks: Sequence[SinkSettings]) -> None:
    """Hold sources and sinks to one another.

    Raises:
        ValueError: a name is there twice, or a source names a sink that is not there; the message says which.
    """
    for what, names in (("sources", [s.name for s in sources]), ("sinks", [s.name for s in sinks])):
        if twice := _twice(names):
            raise ValueError(f"two {what} have the name {twice}; give each its own")
    known = {sink.name for sink in sinks}
    for source in sources:
        if missing := set(source.sinks) - known:
            there = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"source {source.name} names the sink {min(missing)}, which is not there; there is {there}"
            )
        if twice := _twice(source.sinks):
            raise ValueError(f"source {source.name} names the sink {twice} twice")
    for sink in sinks:
        users = [source.name for source in sources if sink.name in source.sinks]
        sensors = isinstance(sink, MqttSinkSettings) and sink.home_assistant and "{source}" not in sink.topic
        if sensors and len(users) > 1:
            raise ValueError(
                f"sink {sink.name} announces a sensor for each of {', '.join(users)}: put {{source}} into its topic"
            )
    if twice := _twice(str(sink.path) for sink in sinks if isinstance(sink, JsonlSinkSettings)):
        raise ValueError(f"two sinks write {twice}; let one sink have several sources instead")


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
