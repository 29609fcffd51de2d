"""The rules of rollouts: one table of cases, and what must hold whatever devices report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.policy import RolloutPolicy, Step
from cloud_hub.rollouts.rules import (
    Abort,
    DeviceView,
    Finish,
    Progress,
    Requests,
    RolloutState,
    Wait,
    Widen,
    count,
    decide,
    fraction_for,
    step_is_done,
    too_many_errors,
)

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
POLICY = RolloutPolicy(
    steps=(Step(devices=1), Step(share=0.5), Step(share=1.0)),
    bake_s=10.0,
    timeout_s=100.0,
    max_failure_share=0.2,
    min_done_share=0.8,
)
FINE = Requests(1000, 0)


def device(place: float, **changes: Any) -> DeviceView:
    view = DeviceView(f"d{place}", place, online=True, release=OLD, update_state="idle")
    return replace(view, **changes)


def done(place: float, **changes: Any) -> DeviceView:
    return device(place, release=NEW, update_state="committed", update_release=NEW, update_rollout="r", **changes)


def failed(place: float, **changes: Any) -> DeviceView:
    return device(
        place, update_state="rolled_back", update_release=NEW, update_rollout="r", reason="golden cases", **changes
    )


def trying(place: float, **changes: Any) -> DeviceView:
    return device(place, **{"update_state": "probation", "update_release": NEW, "update_rollout": "r", **changes})


def at(step: int, fraction: float, *, started: float = 0.0, done_since: float | None = None) -> RolloutState:
    return RolloutState("r", NEW, step, fraction, started, done_since)


def ask(state: RolloutState, devices: list[DeviceView], now: float, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"policy": POLICY, "candidate": FINE, "current": FINE} | changes
    return decide(state, arguments.pop("policy"), devices, now, **arguments)


TEN = [device(i / 10) for i in range(10)]
BEGIN = at(-1, 0.0)
CANARY = at(0, 0.05)
HALF = at(1, 0.5)


def five(*views: Any) -> list[DeviceView]:
    """Ten devices: the first five as given by their makers, the others on the old release."""
    return [make(i / 10) for i, make in enumerate(views)] + TEN[len(views) :]


CASES = {
    "the first step reaches exactly one": (BEGIN, TEN, 1.0, Widen, "step 1 of 3: 1 of 10 online devices"),
    "nobody there yet": (BEGIN, [], 1.0, Wait, "no device of the channel is online"),
    "everybody is offline": (BEGIN, [device(0.1, online=False)], 1.0, Wait, "no device"),
    "nobody came in time": (BEGIN, [], 101.0, Abort, "took longer than 100 s: no device"),
    "the canary has not moved": (CANARY, TEN, 1.0, Wait, "0 of 1 devices run it, 80% have to"),
    "the canary is trying": (CANARY, five(trying), 1.0, Wait, "0 of 1"),
    "the canary failed": (CANARY, five(failed), 1.0, Abort, "1 of 1 devices went back: golden cases"),
    "the canary failed and went offline": (
        CANARY,
        [failed(0.0, online=False), *TEN[1:]],
        1.0,
        Abort,
        "1 of 1 devices went back",
    ),
    "the canary committed: watched": (CANARY, five(done), 5.0, Wait, "watched for 10 s"),
    "a device that is new to the hub follows": (CANARY, [done(0.0), device(0.01), *TEN[1:]], 5.0, Wait, "1 of 2"),
    "the canary is offline": (CANARY, [device(0.0, online=False), *TEN[1:]], 1.0, Wait, "1 are offline"),
    "the canary fell silent while trying": (CANARY, [trying(0.0, online=False), *TEN[1:]], 1.0, Wait, "0 of 1"),
    "and never came back": (CANARY, [trying(0.0, online=False), *TEN[1:]], 101.0, Abort, "took longer than 100 s"),
    "the only canary committed and left": (CANARY, [done(0.0, online=False), *TEN[1:]], 1.0, Wait, "0 of 0"),
    "an unknown state is not an end": (CANARY, [trying(0.0, update_state="dreaming"), *TEN[1:]], 1.0, Wait, "0 of 1"),
    "rolled back in an older rollout": (
        CANARY,
        [failed(0.0, online=True).__class__(**{**vars(failed(0.0)), "update_rollout": "q"}), *TEN[1:]],
        1.0,
        Wait,
        "0 of 1",
    ),
    "one of five failed: within the share": (HALF, five(done, done, done, done, failed), 5.0, Wait, "watched"),
    "two of five failed: beyond it": (HALF, five(done, done, done, failed, failed), 5.0, Abort, "2 of 5"),
    "failures are looked at before anything else": (
        at(1, 0.5, done_since=-100.0),
        five(done, done, done, failed, failed),
        5.0,
        Abort,
        "2 of 5 devices went back",
    ),
    "offline ones are not waited for": (
        at(1, 0.5, done_since=0.0),
        [done(0.0), *(device(i / 10, online=False) for i in range(1, 5)), *TEN[5:]],
        10.0,
        Widen,
        "step 3 of 3",
    ),
    "too slow": (HALF, five(done, done, done, trying, trying), 101.0, Abort, "3 of 5 devices run it, 80% have to"),
    "the last step is watched": (at(2, 1.0), [done(0.1)], 5.0, Wait, "watched for 10 s"),
    "the last step is baked": (at(2, 1.0, done_since=0.0), [done(0.1)], 10.0, Finish, "1 of 1 devices run it"),
    "the clock went back while baking": (at(2, 1.0, done_since=500.0), [done(0.1)], 10.0, Wait, "watched"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_table(name: str) -> None:
    state, devices, now, kind, reason = CASES[name]
    decision = ask(state, devices, now)
    assert type(decision) is kind, decision
    assert reason in decision.reason


def test_a_group_that_has_ended_below_its_success_share_goes_back() -> None:
    """hawkBit advances here: every device has ended, so the group is finished, however few succeeded."""
    lenient = POLICY.model_copy(update={"max_failure_share": 0.5})
    devices = five(done, done, done, failed, failed)
    decision = ask(HALF, devices, 5.0, policy=lenient)
    assert decision == Abort("all have ended, and only 3 of 5 devices run it")


@pytest.mark.parametrize("which", ["candidate", "current"])
def test_windows_that_cannot_be_read_never_advance_a_rollout(which: str) -> None:
    state, devices = at(2, 1.0, done_since=0.0), [done(0.1)]
    assert isinstance(ask(state, devices, 50.0), Finish)
    blind = ask(state, devices, 50.0, **{which: None})
    assert isinstance(blind, Wait) and blind.why == "evidence" and blind.done_since is None
    assert isinstance(ask(replace(state, done_since=None), devices, 101.0, **{which: None}), Abort)


@pytest.mark.parametrize(
    ("candidate", "current", "bad"),
    [
        (Requests(0, 0), Requests(0, 0), False),
        (Requests(100, 0), Requests(100, 0), False),
        (Requests(0, 19), Requests(1000, 0), False),  # too few to say anything
        (Requests(0, 20), Requests(1000, 0), True),
        (Requests(80, 20), Requests(1000, 0), True),
        (Requests(80, 20), Requests(800, 200), False),  # the current release is no better
        (Requests(70, 30), Requests(900, 100), True),
        (Requests(995, 5), Requests(100_000, 0), False),  # the floor: 1 in 200
        (Requests(970, 30), Requests(100_000, 0), True),
        (Requests(0, 500), Requests(0, 0), True),
        (Requests(0, 500), Requests(0, 500), False),
    ],
)
def test_error_rate_gate(candidate: Requests, current: Requests, bad: bool) -> None:
    assert bool(too_many_errors(candidate, current)) is bad
    decision = ask(at(2, 1.0, done_since=0.0), [done(0.1)], 50.0, candidate=candidate, current=current)
    assert isinstance(decision, Abort if bad else Finish)


def test_a_break_in_the_bake_starts_it_again() -> None:
    devices = five(done, done, done, done, trying)
    assert ask(HALF, devices, 3.0).done_since == 3.0
    assert ask(at(1, 0.5, done_since=3.0), devices, 9.0).done_since == 3.0
    broken = ask(at(1, 0.5, done_since=3.0), five(done, done, done, trying, trying), 10.0)
    assert broken.done_since is None
    assert ask(at(1, 0.5, done_since=None), devices, 14.0).done_since == 14.0


def test_a_long_bake_survives_a_device_that_comes_online_late() -> None:
    """The step was done in time; that a device below its fraction wakes up later is no reason to go back."""
    late = five(done, done, done, trying, trying)
    assert isinstance(ask(at(1, 0.5, done_since=20.0), late, 5000.0), Wait)
    assert isinstance(ask(at(1, 0.5, started=5000.0), late, 5099.0), Wait), "it has its time, from now on"
    assert isinstance(ask(at(1, 0.5, started=5000.0), late, 5101.0), Abort)


def test_steps_that_reach_nobody_new_are_passed_over() -> None:
    policy = RolloutPolicy(steps=(Step(devices=1), Step(share=0.1), Step(share=0.3), Step(share=1.0)), bake_s=0)
    devices = [done(0.2), device(0.5), device(0.9)]
    decision = ask(at(0, 0.3), devices, 1.0, policy=policy)
    assert isinstance(decision, Widen) and (decision.step, decision.fraction) == (3, 1.0)


def test_fraction_reaches_exactly_the_number_wanted() -> None:
    devices = [device(p) for p in (0.9, 0.2, 0.4, 0.6)] + [device(0.3, online=False), device(0.01, online=False)]
    for wanted, expected in ((1, 0.25), (2, 0.5), (3, 0.75)):
        assert fraction_for(Step(devices=wanted), devices) == pytest.approx(expected)
    assert fraction_for(Step(devices=9), devices) == pytest.approx(0.95)
    assert fraction_for(Step(share=1.0), devices) == 1.0
    assert fraction_for(Step(share=0.5), devices) == pytest.approx(0.5)
    assert fraction_for(Step(share=0.001), devices) == pytest.approx(0.25)
    assert fraction_for(Step(devices=1), devices, least=0.8) == 0.8
    assert fraction_for(Step(share=1.0), []) is None


# ── whatever devices report ──────────────────────────────────────────────────────────────────────

places = st.integers(0, (1 << 53) - 1).map(lambda n: n / (1 << 53))
states = st.sampled_from(
    [None, "idle", "fetching", "verifying", "staged", "testing", "probation", "committed", "rolled_back", "odd"]
)
digests = st.sampled_from([None, OLD, NEW])
views = st.builds(
    DeviceView,
    name=st.text(max_size=3),
    position=places,
    online=st.booleans(),
    release=digests,
    update_state=states,
    update_release=digests,
    update_rollout=st.sampled_from([None, "r", "other"]),
)
fleets = st.lists(views, max_size=12, unique_by=lambda view: view.position)
requests = st.none() | st.builds(Requests, st.integers(0, 2000), st.integers(0, 200))
steps = st.lists(
    st.one_of(
        st.integers(1, 15).map(lambda n: Step(devices=n)),
        st.floats(0.001, 1.0).map(lambda x: Step(share=x)),
    ),
    max_size=4,
).map(lambda found: (*found, Step(share=1.0)))
policies = st.builds(
    RolloutPolicy,
    steps=steps,
    bake_s=st.floats(0, 100),
    timeout_s=st.floats(0.1, 1000),
    max_failure_share=st.floats(0, 1),
    min_done_share=st.floats(0.01, 1),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[RolloutState, RolloutPolicy, list[DeviceView], float, Any, Any]:
    policy, fleet = draw(policies), draw(fleets)
    step = draw(st.integers(-1, len(policy.steps) - 1))
    fraction = 0.0 if step < 0 else draw(st.floats(0, 1))
    state = RolloutState("r", NEW, step, fraction, draw(st.floats(0, 500)), draw(st.none() | st.floats(0, 600)))
    return state, policy, fleet, draw(st.floats(0, 2000)), draw(requests), draw(requests)


@given(situations())
def test_what_holds_for_every_decision(situation: Any) -> None:
    state, policy, fleet, now, candidate, current = situation
    decision = decide(state, policy, fleet, now, candidate=candidate, current=current)
    assert decision.reason
    progress = count(state, [view for view in fleet if view.position < state.fraction])
    assert progress.selected == progress.done + progress.failed + progress.pending + progress.away
    if isinstance(decision, Widen):
        assert decision.fraction >= state.fraction, "a fraction never shrinks"
        assert decision.step > state.step, "a step is never taken again"
        assert 0 < decision.fraction <= 1
    if isinstance(decision, (Widen, Finish)) and state.step >= 0:
        assert candidate is not None and current is not None, "what cannot be evaluated is not good"
        assert step_is_done(progress, policy) and progress.done >= 1
        assert progress.failed <= policy.max_failure_share * progress.answering, "no step past a failed one"
        assert not too_many_errors(candidate, current)
        assert policy.bake_s == 0 or state.done_since is not None
        assert state.done_since is None or now - state.done_since >= policy.bake_s
    if isinstance(decision, Finish):
        assert state.step == len(policy.steps) - 1
    if progress.failed > policy.max_failure_share * progress.answering:
        assert isinstance(decision, Abort)
    if isinstance(decision, Wait):
        baking = decision.done_since is not None
        was_done = state.done_since is not None
        assert baking or was_done or now - state.step_started <= policy.timeout_s, "every wait has an end"
        assert decision.done_since is None or decision.done_since <= now
    assert decision == decide(state, policy, list(reversed(fleet)), now, candidate=candidate, current=current)


@given(fleets, steps, st.floats(0, 0.999))
def test_fractions_reach_what_they_promise(fleet: list[DeviceView], wanted: tuple[Step, ...], least: float) -> None:
    online = [view for view in fleet if view.online]
    for step in wanted:
        fraction = fraction_for(step, fleet)
        if not online:
            assert fraction is None
            continue
        assert fraction is not None and 0 < fraction <= 1
        takes = sum(view.position < fraction for view in online)
        if step.devices is not None:
            assert takes == min(step.devices, len(online))
        else:
            assert step.share is not None
            assert 1 <= takes <= max(1, round(step.share * len(online) + 0.5))
        assert (fraction_for(step, fleet, least) or 0) >= least


@given(fleets, policies, st.floats(0, 1))
def test_a_fleet_that_commits_everything_ends_with_the_candidate(
    fleet: list[DeviceView], policy: RolloutPolicy, _unused: float
) -> None:
    """Driven to its end with devices that follow at once: finished, and no wait that lasts for ever."""
    fleet = [replace(view, online=True, release=OLD, update_state="idle", update_rollout=None) for view in fleet]
    state, now = RolloutState("r", NEW, -1, 0.0, 0.0, None), 0.0
    seen = []
    for _ in range(4 * len(policy.steps) + 10):
        decision = decide(state, policy, fleet, now, candidate=FINE, current=FINE)
        seen.append(decision)
        if isinstance(decision, (Finish, Abort)):
            break
        if isinstance(decision, Widen):
            state = replace(state, step=decision.step, fraction=decision.fraction, step_started=now, done_since=None)
            fleet = [
                replace(view, release=NEW, update_state="committed", update_release=NEW, update_rollout="r")
                if view.position < state.fraction
                else view
                for view in fleet
            ]
        else:
            state = replace(state, done_since=decision.done_since)
            now += policy.bake_s + (0 if fleet else policy.timeout_s + 1)
    assert isinstance(seen[-1], Finish if fleet else Abort), seen
    if fleet:
        assert state.fraction == 1.0


def test_no_selected_device_is_no_success() -> None:
    assert not step_is_done(Progress(), POLICY)
    assert not step_is_done(Progress(selected=3, away=3), POLICY)
