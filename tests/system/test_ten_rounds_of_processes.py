"""Ten rounds of changing drift with a real hub, real agents and real cameras: the long form, for ``make soak``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.digits.data import CLEAN
from examples.digits.story import Story
from tests.integration.ten_worlds import WORLDS, Round, check, table
from tests.system.test_loop_survives import close

SOAK = os.environ.get("EDGELOOP_SOAK") == "1"


@pytest.mark.skipif(not SOAK, reason="ten rounds with real processes take minutes: make soak runs them")
@pytest.mark.timeout(3600)
def test_ten_rounds_of_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story, rounds = Story(tmp_path), []
    story.patience_s = 300.0
    figures = story.figures.accuracy
    try:
        story.export_and_deploy()
        first_day = story.judge(CLEAN)
        for turn, slip in enumerate(WORLDS):
            drifted, recovered = f"drifted {turn}", f"recovered {turn}"
            story.slip_and_recover(slip, drifted, recovered)
            run = story.fleet.api.get("retraining")[0]
            # On the validation set, by the hub: to ask the devices about the first day would be another drift to them.
            old = float(run["verdict"]["validation_accuracy"])
            rounds.append(Round(slip.name, figures[drifted], figures[recovered], old))
            assert (run["state"], run["trigger"]) == ("released", "drift"), run
        with capsys.disabled():
            print(f"\nten rounds of drift; on the first day {first_day:.3f}\n{table(rounds)}")
        check(rounds)
    finally:
        close(story)
