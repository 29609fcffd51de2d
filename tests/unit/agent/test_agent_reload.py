"""Which settings change while the agent runs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from edge_agent.reload import AT_RUN_TIME, reloaded
from edge_agent.settings import Settings
from tests.unit.agent.test_agent_settings_page import PAGE


def test_what_may_change_is_a_setting_and_is_documented() -> None:
    assert {field.name for field in fields(Settings)} >= AT_RUN_TIME
    paragraph = PAGE[PAGE.index("SIGHUP reads") :].split("\n\n")[0]
    assert set(paragraph.split("`")[1::2]) == AT_RUN_TIME


def test_what_changes_at_run_time_is_taken_and_the_rest_waits() -> None:
    old = Settings(device="a")
    new = Settings(device="b", channel="night", probation_s=1.0, listen_port=9, data=Path("elsewhere"))
    found = reloaded(old, new)
    assert found.changed == ("channel", "probation_s")
    assert set(found.need_restart) == {"device", "data", "listen_port"}
    assert found.settings == Settings(device="a", channel="night", probation_s=1.0)
    assert reloaded(old, old) == (old, (), ())
