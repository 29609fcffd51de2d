"""The agent's settings: file and environment, what is wrong named all at once, and no secret shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from edge_agent.fields import Field, FieldsError, Text, read
from edge_agent.settings import Settings, SettingsError, load


@pytest.fixture(autouse=True)
def of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the tests' own environment sets."""
    monkeypatch.delenv("EDGE_AGENT_INSECURE")


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_a_file_gives_every_kind_of_value(tmp_path: Path) -> None:
    settings = load(
        write(
            tmp_path,
            'device = "cam-1"\ndata = "here"\nwindow_s = 5\nobserve = false\nlisten_port = 0\nbroker_username = "me"\n'
            'required_providers = ["A", "B"]\npolicy = "quiet"\nhub = "http://hub:1/"\n',
        )
    )
    assert settings == Settings(
        device="cam-1",
        data=Path("here"),
        window_s=5.0,
        observe=False,
        listen_port=0,
        broker_username="me",
        required_providers=("A", "B"),
        policy="quiet",
        hub="http://hub:1",
    )
    assert isinstance(settings.window_s, float)


def test_the_environment_is_stronger_than_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_LISTEN_PORT", "81")
    monkeypatch.setenv("EDGE_AGENT_OBSERVE", "no")
    monkeypatch.setenv("EDGE_AGENT_WINDOW_S", "2.5")
    monkeypatch.setenv("EDGE_AGENT_REQUIRED_PROVIDERS", '["A"]')
    monkeypatch.setenv("EDGE_AGENT_SERVICE_HOST", "what orchestrators set for a service of that name is none of ours")
    settings = load(write(tmp_path, 'device = "cam-1"\nlisten_port = 80\n'))
    found = (settings.listen_port, settings.observe, settings.window_s, settings.required_providers)
    assert found == (81, False, 2.5, ("A",))


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_BROKER_PORT", "many")
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, 'fleet = "a b"\nlisten_port = 70000\npolicy = "loud"\nwindow_s = 0\nmore = 1\nhub = "x"'))
    problems = str(caught.value)
    for name in ("device: it is required", "fleet:", "listen_port:", "policy:", "window_s:", "more:", "hub:"):
        assert name in problems, problems
    assert "broker_port: it has to be a whole number, not 'many'" in problems


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('device = "a"\nlisten_port = true', "whole number"),
        ('device = "a"\nlisten_port = 1.5', "whole number"),
        ('device = "a"\nlisten_port = "1"', "whole number"),
        ('device = "a"\nwindow_s = nan', "finite"),
        ('device = "a"\nwindow_s = inf', "finite"),
        ('device = "a"\nobserve = "yes"', "true or false"),
        ('device = "a"\ndata = 1', "a text"),
        ('device = "a"\nrequired_providers = "CPU"', "a list"),
        ("device = 7", "a text"),
        ("device", "is not TOML"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml cannot be read"):
        load(tmp_path / "gone.toml")


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Settings(device="a", broker_password="secret"))


@dataclass(frozen=True, kw_only=True)
class Inner:
    port: int = Field(ge=1, description="A port.")
    name: str | None = Field(default=None, description="A name.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: tuple[Inner, ...] = Field(default=(), description="Several.")
    one: Inner | None = Field(default=None, description="One.")
    mode: Literal["a", "b"] = Field(default="a", description="A mode.")
    shares: dict[str, float] = Field(default=None, description="Numbers by name.")


def test_tables_become_objects_and_their_problems_say_where() -> None:
    values: dict[str, Any] = {"inner": [{"port": 1}, {"port": 2, "name": "x"}], "shares": {"a": 1}}
    assert read(Outer, values) == Outer(inner=(Inner(port=1), Inner(port=2, name="x")), shares={"a": 1.0})
    assert read(Outer, {"one": Text('{"port": 3}'), "mode": Text("b")}) == Outer(one=Inner(port=3), mode="b")
    with pytest.raises(FieldsError) as caught:
        read(Outer, {"inner": [{"port": 0, "nmae": "x"}], "one": {}, "shares": 3})
    assert set(caught.value.problems) == {
        "inner.nmae: there is no such setting",
        "inner.port: it has to be at least 1, not 0",
        "one.port: it is required",
        "shares: it has to be a table, not 3",
    }
