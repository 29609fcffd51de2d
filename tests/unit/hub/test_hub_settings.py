"""Settings: typed, from four sources, every mistake named; and the reference page says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from cloud_hub import exit_codes
from cloud_hub.errors import StartError
from cloud_hub.policy import ChannelPolicy
from cloud_hub.quarantine import Reason
from cloud_hub.settings import Settings, load

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cloud-hub.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _written(default: object) -> str:
    """A default as a TOML file has it."""
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def test_the_page_lists_every_setting_as_it_is() -> None:
    listed = {name.strip("`"): (default.strip("`"), meaning) for name, default, meaning in rows(section("Settings"))}
    shown = {name: (_written(field.default), field.description) for name, field in Settings.model_fields.items()}
    assert listed == shown


def test_the_page_lists_every_field_of_the_policy_as_it_is() -> None:
    listed = {name.strip("`"): (default, meaning) for name, default, meaning in rows(section("A channel's policy"))}
    defaults = json.loads(ChannelPolicy().model_dump_json(exclude_none=True))
    shown = {
        f"{part}.{name}": (f"`{json.dumps(defaults[part].get(name))}`", field.description)
        for part in ChannelPolicy.model_fields
        for name, field in type(getattr(ChannelPolicy(), part)).model_fields.items()
    }
    assert listed == shown


def test_the_page_lists_every_exit_code_and_no_number_is_used_twice() -> None:
    listed = {name.strip("`"): int(code) for code, name, _ in rows(section("Exit codes"))}
    assert listed == exit_codes.ALL
    assert len(set(exit_codes.ALL.values())) == len(exit_codes.ALL)


def test_the_page_lists_every_reason_of_quarantine() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", section("Insights arrive exactly once"), re.M)
    assert sorted(listed) == sorted(get_args(Reason))


def test_the_file_the_environment_and_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('fleet = "file"\nlisten_port = 1\nbroker_port = 1\n')
    monkeypatch.setenv("CLOUD_HUB_LISTEN_PORT", "2")
    monkeypatch.setenv("CLOUD_HUB_DATA", "from-environment")
    settings = load(file, data=tmp_path / "given")
    assert (settings.fleet, settings.listen_port, settings.broker_port) == ("file", 2, 1)
    assert settings.data == tmp_path / "given"
    assert load(file, data=None).data == Path("from-environment")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fleeet = 'x'", "fleeet: there is no such setting"),
        ("listen_port = 70000", "listen_port: "),
        ("fleet = 'a/b'", "fleet: "),
        ("broker = 'none'\nbroker_port = 0", "broker_port"),
        ("broker = 'amqtt'\nbroker_host = '0.0.0.0'", "not loopback"),
        ("listen_host = '0.0.0.0'", "an insecure hub is reached from this machine only"),
        ("server_certificate = 'a.pem'", "server_certificate and server_key belong together"),
        ("ca_command = 'sign'", "ca_file: "),
        ("public_broker = 'hub'", "host:port"),
        ("public_url = 'hub.example'", "public_url: "),
        ("fleet = ", "is no TOML file"),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(text)
    with pytest.raises(StartError, match=re.escape(said)) as caught:
        load(file)
    assert caught.value.code == exit_codes.SETTINGS
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"absent\.toml cannot be read"):
        load(tmp_path / "absent.toml")


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Settings(broker_password="secret"))
