"""Settings of sources and sinks: what is wrong is named, and the page says what the code does."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from edge_agent import flow_settings
from edge_agent.flow_settings import PictureSettings, SinkSettings, SourceSettings
from edge_agent.flows.assembly import SINK_COUNTS, SOURCE_COUNTS
from edge_agent.settings import SettingsError, load

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "flows.md").read_text()
CLASSES = [
    found for _, found in inspect.getmembers(flow_settings, inspect.isclass) if found.__name__.endswith("Settings")
]
LOG = '[[sinks]]\nname = "log"\nkind = "jsonl"\npath = "log.jsonl"\n'
DOOR = '[[sources]]\nname = "door"\nkind = "folder"\npath = "door"\nsinks = ["log"]\n'
TOPIC = '[[sources]]\nname = "topic"\nkind = "mqtt"\nsinks = ["log"]\n'
HOOK = '[[sinks]]\nname = "hook"\nkind = "webhook"\n'
HOME = '[[sinks]]\nname = "home"\nkind = "mqtt"\n'


def read(folder: Path, text: str) -> Any:
    path = folder / "agent.toml"
    path.write_text(f'device = "cam-1"\n{text}')
    return load(path)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_is_on_the_page_with_its_default_and_meaning(kind: Any) -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 4]
    for field in fields(kind):
        mine = [line for line in lines if line.startswith(f"| `{field.name}` |")]
        mine = [line for line in mine if field.metadata["description"] in line]
        assert mine, f"{kind.__name__}.{field.name}"
        default = field.default
        if default is MISSING:
            assert any("| required |" in line for line in mine), f"{kind.__name__}.{field.name}"
        elif default not in (None, (), PictureSettings()) and field.name != "scale":
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            shown = ", ".join(default) if isinstance(default, tuple) else shown
            assert any(f"| `{shown}` |" in line for line in mine), f"{kind.__name__}.{field.name}"


def test_every_count_is_on_the_page() -> None:
    for kind, counts in (("source", SOURCE_COUNTS), ("sink", SINK_COUNTS)):
        for count in counts:
            assert f"`edge_agent_{kind}_{count}_total`" in PAGE


def test_flows_are_read(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        DOOR
        + 'after = "delete"\n[sources.picture]\nwidth = 8\nheight = 8\ncolours = "grey"\n[sources.tensor]\n'
        + 'datatype = "UINT8"\nshape = [-1, 4]\n'
        + LOG,
    )
    (source,), (sink,) = settings.sources, settings.sinks
    assert isinstance(source, flow_settings.FolderSourceSettings) and isinstance(source, SourceSettings)
    assert (source.name, source.sinks, source.after, source.picture.width) == ("door", ("log",), "delete", 8)
    assert source.tensor == flow_settings.TensorSettings(datatype="UINT8", shape=(-1, 4))
    assert isinstance(sink, SinkSettings) and sink.name == "log"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (DOOR, "source door names the sink log, which is not there; there is none"),
        (DOOR + LOG + LOG, "two sinks have the name log"),
        (DOOR + DOOR + LOG, "two sources have the name door"),
        (DOOR + "colour = 1\n" + LOG, "sources: door: colour: there is no such setting"),
        (DOOR.replace('path = "door"\n', "") + LOG, "sources: door: path: it is required"),
        (DOOR.replace('"folder"', '"ftp"') + LOG, "kind has to be one of mqtt, folder, replay, camera, not 'ftp'"),
        (DOOR.replace('kind = "folder"\n', "") + LOG, "kind has to be one of"),
        (DOOR.replace('["log"]', "[]") + LOG, "sinks: it has to name one at least"),
        (DOOR.replace('["log"]', '["log", "log"]') + LOG, "names the sink log twice"),
        (DOOR.replace('"door"\nkind', '"The Door"\nkind') + LOG, "name: it has to be lower-case"),
        (DOOR + "[sources.picture]\nwidth = 8\n" + LOG, "picture: width and height go together"),
        (DOOR + "[sources.picture]\nstd = [0]\n" + LOG, "std is divided by"),
        (DOOR + "[sources.picture]\nmean = [1, 2]\n" + LOG, "mean takes one number, or 3"),
        (DOOR + '[sources.picture]\nlayout = "NHW"\n' + LOG, "no place for colours"),
        (DOOR + '[sources.tensor]\ndatatype = "FP32"\nshape = [2, -1]\n' + LOG, "only the first may be -1"),
        (TOPIC + 'topic = "a/b#"\n' + LOG, "stand for whole levels"),
        (TOPIC + 'topic = "#/b"\n' + LOG, "only be the last level"),
        (TOPIC + 'topic = "edgeloop/v1/x/d/y/desired"\n' + LOG, "edgeloop's own messages"),
        (TOPIC + 'topic = "a"\ncontent = "raw"\n' + LOG, "tensor (datatype, shape) go together"),
        (TOPIC + 'topic = "a"\nfields = { x = ["a"] }\n' + LOG, 'fields needs content = "json"'),
        (TOPIC + 'topic = "a"\n[sources.broker]\nport = 0\n' + LOG, "broker.host: it is required"),
        (HOOK + 'url = "ftp://x"\n', "url: it has to begin with http"),
        (HOOK + 'url = "http://x"\nsecret = "abc"\n', "secret: it has to be whsec_"),
        (HOOK + 'url = "http://x"\n[sinks.headers]\nA = "b\\nc"\n', "headers: 'A' is no header"),
        (HOME + 'topic = "a/{model}"\n', "{model} is not known"),
        (HOME + 'topic = "{source}/v1/x"\n', "its first level has to be plain"),
        (HOME + 'topic = "a/+"\n', "cannot be in a topic that is published to"),
        (HOME + 'topic = "edgeloop/v1/x/c/stable"\n', "edgeloop's own messages"),
        ("sources = 5\n", "sources: it has to be a list"),
        ('sources = ["door"]\n', "sources: 1: kind has to be one of"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert problem in str(caught.value)


def test_two_sensors_cannot_share_one_topic(tmp_path: Path) -> None:
    both = DOOR.replace("log", "home") + TOPIC.replace("log", "home") + 'topic = "a"\n'
    with pytest.raises(SettingsError, match=r"put \{source\} into its topic"):
        read(tmp_path, both + HOME + 'topic = "a/b"\nhome_assistant = {}\n')
    assert len(read(tmp_path, both + HOME + 'topic = "a/{source}"\nhome_assistant = {}\n').sources) == 2


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    secret = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk"
    settings = read(tmp_path, HOOK + f'url = "https://x/y"\nsecret = "{secret}"\n')
    assert settings.sinks[0].secret == secret and "QUJD" not in repr(settings.sinks[0])
