"""``cloud-hub retraining …`` against a hub that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from cloud_hub import cli, exit_codes
from cloud_hub.training import run_records as records
from tests.unit.hub.api_kit import ApiHub


def test_runs_are_listed_shown_started_and_cancelled(api: ApiHub, tmp_path: Path) -> None:
    api.hub.access.local.write(str(api.http.base_url).rstrip("/"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli.app, ["retraining", *arguments, "--data", str(tmp_path / "data")])

    assert json.loads(run("list", "--json").stdout) == []
    with api.hub.db.begin() as connection:
        given: dict[str, Any] = {
            "channel": "stable",
            "trigger": "labels",
            "alarm": None,
            "labels": 9,
            "recipe": "r",
            "parent": "p",
        }
        run_id = records.insert(connection, **given, cause="9 labels since the last run", now=0.0)
    told = f"{run_id}  stable  queued  1970-01-01 00:00 UTC  9 labels since the last run"
    assert run("list", "--channel", "stable").stdout.splitlines() == [told]
    assert run("list", "--channel", "night").stdout == ""

    ended = run("cancel", str(run_id), "--reason", "no need")
    assert ended.exit_code == 0 and ended.stdout.strip() == f"run {run_id} is cancelled", ended.output
    again = run("cancel", str(run_id))
    assert again.exit_code == exit_codes.REFUSED and "cancelled already" in again.output
    shown = run("show", str(run_id)).stdout
    assert f"run {run_id} on stable: cancelled" in shown and "cause    9 labels" in shown
    assert shown.splitlines()[-1].endswith(" cancelled: no need"), "the end of its log"
    plain = json.loads(run("show", str(run_id), "--log", "1", "--json").stdout)
    assert plain["state"] == "cancelled" and len(plain["log"]) == 1
    assert run("show", "99").exit_code == exit_codes.REFUSED
    refused = run("start", "--channel", "nowhere")
    assert refused.exit_code == exit_codes.REFUSED and "nowhere" in refused.output
