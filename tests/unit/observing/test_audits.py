"""Audits on the device: drawn when answered, kept over a restart, asked for, and counted apart from other labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.observing.assembly import Observing
from edge_agent.observing.rows import unpack
from edge_agent.ports import FeedbackItem
from edgeloop.insights import Window, drawn_rows
from edgeloop.insights.policy import InsightsPolicy
from tests.doubles.recording import record
from tests.unit.observing.doubles import LABELS, batch, profile, release

SHARE = 0.2


def opened(path: Path, **settings: Any) -> Observing:
    path.parent.mkdir(exist_ok=True)
    found = Observing(path, profile_of=lambda digest: profile(), **settings)
    found.policy.take(InsightsPolicy(audit_share=SHARE).to_wire())
    found.recorder.follow(found.policy.current)
    return found


def answer(observing: Observing, names: list[str], rows: int = 1) -> dict[str, tuple[int, ...]]:
    """Requests of some rows, as a data plane records them: what was drawn of each."""
    loaded, drawn = release(), {}
    observing.recorder.wanted_outputs(loaded)
    for number, name in enumerate(names):
        inputs, outputs = batch(rows, number)
        drawn[name] = observing.recorder.drawn(loaded, name, rows)
        record(observing.recorder, loaded, name, inputs, outputs, 1000)
    return drawn


def total(observing: Observing) -> Window:
    observing.recorder.flush()
    rows = observing.store.rows("SELECT body FROM outbox ORDER BY row")
    whole = Window.zero(profile().schema)
    for (body,) in rows:
        whole = whole.merge(unpack(body, profile().schema))
    return whole


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


@pytest.mark.parametrize("rows", [1, 3])
def test_what_was_drawn_is_asked_for_and_counted_by_everybody_alike(tmp_path: Path, rows: int) -> None:
    observing = opened(tmp_path / "agent.db")
    drawn = answer(observing, names(60), rows)
    assert drawn == {name: drawn_rows(name, rows, SHARE) for name in names(60)}
    expected = {(name, row) for name, some in drawn.items() for row in some}
    asked = observing.recorder.open_audits(1000)
    assert {(one.id, one.index) for one in asked} == expected and len(asked) == len(expected) > 0
    assert all(one.label == LABELS[one.predicted] and 0 < one.confidence <= 1 for one in asked)
    assert len(observing.recorder.open_audits(3)) == 3
    assert total(observing).arrays["audits"][0].sum() == len(expected)
    observing.stop()


def test_a_label_of_an_audit_counts_apart_also_after_a_restart(tmp_path: Path) -> None:
    observing = opened(tmp_path / "agent.db")
    drawn = answer(observing, names(60))
    observing.stop()
    observing = opened(tmp_path / "agent.db")
    audited = [name for name, rows in drawn.items() if rows]
    others = [name for name, rows in drawn.items() if not rows][:10]
    result = observing.recorder.feedback([FeedbackItem(name, 1) for name in (*audited, *others)])
    assert result.accepted == len(audited) + 10
    assert observing.recorder.open_audits(1000) == []
    assert observing.recorder.feedback([FeedbackItem(audited[0], 1)]).duplicate == [audited[0]]
    window = total(observing)
    assert window.feedback == len(audited) + 10
    assert window.arrays["confusion"].sum() == window.arrays["expected_labels"][0].sum() == 10
    assert window.arrays["audits"].sum(axis=1).tolist()[:2] == [len(audited), len(audited)]
    observing.stop()


def test_nothing_is_drawn_that_could_not_be_labelled_or_that_nobody_asked_for(tmp_path: Path) -> None:
    keeps_nothing = opened(tmp_path / "a" / "agent.db", feedback_keep=0)
    assert keeps_nothing.recorder.audit_share == 0
    keeps_nothing.stop()
    observing = opened(tmp_path / "b" / "agent.db")
    assert observing.recorder.audit_share == SHARE
    unknown = release(with_profile=False)
    observing.recorder.wanted_outputs(unknown)
    assert not any(observing.recorder.drawn(unknown, name, 1) for name in names(60))
    observing.policy.take(InsightsPolicy().to_wire())
    observing.recorder.follow(observing.policy.current)
    assert observing.recorder.audit_share == 0
    observing.stop()


def test_who_gave_an_earlier_answer_is_known_for_as_long_as_it_is_kept(tmp_path: Path) -> None:
    observing = opened(tmp_path / "agent.db")
    answer(observing, names(20), rows=3)
    rows = observing.recorder.kept("p19")
    assert [(row.id, row.index) for row in rows] == [("p19", 0), ("p19", 1), ("p19", 2)]
    assert {row.release for row in rows} == {release().digest} and all(0 < row.confidence <= 1 for row in rows)
    assert observing.recorder.kept("p99") == []
