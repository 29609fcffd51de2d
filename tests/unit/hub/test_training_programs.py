"""Training programs as an operator writes them down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cloud_hub.programs import Parameter, Search, TrainingProgram
from cloud_hub.settings import load

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cloud-hub.md").read_text()


def test_a_file_of_settings_names_programs(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(
        """
[training_programs.finetune]
command = ["python", "-m", "finetune"]
time_s = 600
cost_per_hour = 2.0
max_cost = 0.1
[training_programs.finetune.search.parameters.rate]
low = 1e-4
high = 1e-1
log = true
"""
    )
    found = load(file).training_programs["finetune"]
    assert found.command == ("python", "-m", "finetune") and found.seconds == pytest.approx(180.0)
    assert found.cost(1800.0) == 1.0
    assert found.search is not None and found.search.parameters["rate"] == Parameter(low=1e-4, high=1e-1, log=True)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"command": []}, "at least 1"),
        ({"command": ["x"], "max_cost": 1.0}, "max_cost needs cost_per_hour"),
        ({"command": ["x"], "shell": True}, "Extra inputs"),
        ({"command": ["x"], "parameters": {"a b": 1}}, "no name of a parameter"),
        ({"command": ["x"], "parameters": {"a": 1}, "search": {"parameters": {"a": {"choices": [1]}}}}, "both"),
        ({"command": ["x"], "search": {"parameters": {}}}, "at least 1"),
        ({"command": ["x"], "search": {"parameters": {"a": {}}}}, "either choices"),
        ({"command": ["x"], "search": {"parameters": {"a": {"choices": [1], "low": 0, "high": 1}}}}, "either choices"),
        ({"command": ["x"], "search": {"parameters": {"a": {"low": 1, "high": 0}}}}, "low has to be below"),
        ({"command": ["x"], "search": {"parameters": {"a": {"low": 0, "high": 1, "log": True}}}}, "above 0"),
        ({"command": ["x"], "search": {"parameters": {"a": {"low": 0, "high": 1.5, "whole": True}}}}, "whole numbers"),
    ],
)
def test_what_is_wrong_with_a_program_is_said(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TrainingProgram.model_validate(wrong)


@pytest.mark.parametrize("model", [TrainingProgram, Search, Parameter])
def test_the_page_names_every_field(model: Any) -> None:
    for name, field in model.model_fields.items():
        assert f"| `{name}` | " in PAGE and f"| {field.description} |" in PAGE, name
