"""What a device decides about trust: pure rules, and the thread on which verification waits its turn."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.ports import Untrusted, Vouched
from edge_agent.trust.asking import Role
from edge_agent.trust.floors import gone_back, raised
from edge_agent.trust.judging import expired, impossible
from edge_agent.trust.latest import Latest
from edge_agent.trust.open import NoRoot
from edge_agent.updates import vouching

DAY = 86_400.0


def role(version: int | None, keys: str = "a", listed: int | None = None, expires: float | None = None) -> Role:
    return Role(tuple(keys), version, listed, expires)


def seen(version: int, keys: str = "a") -> dict[str, dict[str, object]]:
    return {"channels": {"version": version, "keyids": list(keys)}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (role(5), ""),
        (role(6), ""),
        (role(4), "version 4; version 5 was seen"),
        (role(None, listed=4), "version 4; version 5 was seen"),
        (role(None, listed=5), ""),
        (role(None), "is gone"),
        (role(4, "b"), ""),  # people have given it other keys
        (role(4, "ab"), ""),
    ],
)
def test_no_version_goes_back_while_the_keys_are_the_same(found: Role, said: str) -> None:
    told = gone_back(seen(5), {"channels": found})
    assert said in told
    assert bool(said) == bool(told)


def test_a_role_that_is_no_more_and_one_that_was_never_seen() -> None:
    assert gone_back(seen(5), {}) == ""
    assert gone_back({}, {"channels": role(1)}) == ""


def test_a_root_never_goes_back_whatever_its_keys() -> None:
    floors = {"root": {"version": 3, "keyids": ["a"]}}
    assert "version 2" in gone_back(floors, {"root": role(2, "b")})


def test_only_what_was_verified_makes_a_floor() -> None:
    floors = raised(seen(5), {"channels": role(None, listed=2**31), "targets": role(2)})
    assert floors == {**seen(5), "targets": {"version": 2, "keyids": ["a"]}}


@pytest.mark.parametrize(
    ("now", "grace", "said"),
    [
        (99 * DAY, 0.0, ""),
        (101 * DAY, 0.0, "targets ended on 1970-04-11"),
        (101 * DAY, 2 * DAY, ""),
        (103 * DAY, 2 * DAY, "targets ended"),
        (0.0, 0.0, ""),  # before the enrolment: as of the enrolment
        (-1e18, 0.0, ""),
        (1e18, 0.0, "targets ended"),
    ],
)
def test_metadata_ends_by_the_clock_as_far_as_that_can_be_right(now: float, grace: float, said: str) -> None:
    roles = {"root": role(1, expires=200 * DAY), "targets": role(1, expires=100 * DAY), "channels": role(None)}
    told = expired(roles, now, 90 * DAY, grace)
    assert said in told
    assert bool(said) == bool(told)


def test_a_clock_before_the_enrolment_is_told() -> None:
    assert "1970-01-02" in impossible(DAY, 90 * DAY)
    assert impossible(91 * DAY, 90 * DAY) == ""
    assert expired({}, 0.0, 0.0, 0.0) == ""


ORDERS = st.tuples(st.integers(1, 5), st.integers(0, 3))


@given(st.lists(ORDERS, min_size=1, max_size=20))
def test_a_floor_never_falls_and_leaves_one_step_back(offered: list[tuple[int, int]]) -> None:
    """Whatever is offered in whatever order: what was left lies at most one step below what runs."""
    floors: dict[str, tuple[int, int]] = {}
    runs, before = "", ""
    for counter, revision in offered:
        target = f"retrained/m/{counter}/{revision}" if revision else f"releases/m/{counter}"
        vouched = Vouched("m", (counter, revision))
        if vouching.objection(vouched, floors, runs, ()):
            assert (counter, revision) < floors["m"]
            continue
        last = floors.get("m", (0, 0))
        floors = vouching.raised(floors, runs, target)
        before, runs = runs, target
        assert floors.get("m", last) >= last
        for kept in filter(None, (before, runs)):
            order = vouching.parse_release(kept).order
            assert not vouching.objection(Vouched("m", order), floors, runs, ()), "the way back is closed"


def test_models_of_a_device() -> None:
    other = Vouched("other", (1, 0))
    assert vouching.objection(other, {}, "", ()) == ""
    assert "this device runs m" in vouching.objection(other, {}, "releases/m/1", ())
    assert vouching.objection(other, {}, "releases/m/1", ("m", "other")) == ""
    assert "its owner may allow it" in vouching.objection(other, {}, "", ("m",))
    assert vouching.objection(Vouched(), {"m": (9, 0)}, "releases/m/9", ()) == ""
    assert vouching.raised({"m": (2, 0)}, "releases/m/3", "releases/other/1") == {"m": (2, 0)}
    assert vouching.raised({}, "", "releases/m/3") == {}
    assert vouching.raised({}, "releases/m/3", "") == {}


def test_of_a_subject_only_the_latest_counts() -> None:
    latest, done, free, began = Latest("test"), [], threading.Event(), threading.Event()
    ended = threading.Event()

    def hold() -> None:
        began.set()
        free.wait(20)

    latest.put("a", hold)
    assert began.wait(20)
    for number in range(5):
        latest.put("a", lambda number=number: done.append(number))  # type: ignore[misc]
    latest.put("b", ended.set)
    free.set()
    assert ended.wait(20)
    latest.put("c", (last := threading.Event()).set)
    assert last.wait(20)
    latest.stop(20)
    assert done == [4]
    latest.put("a", lambda: done.append(9))
    assert done == [4]


def test_what_may_pass_is_looked_at_again_and_a_fault_of_ours_ends_nothing() -> None:
    latest, tries, ended = Latest("test"), [], threading.Event()

    def work() -> None:
        tries.append(1)
        if tries.count(1) < 3:
            raise Untrusted("not yet", again=True)
        ended.set()

    def fault() -> None:
        raise RuntimeError("a fault")

    def refused() -> None:
        tries.append(100)
        raise Untrusted("never")

    latest.put("fault", fault)
    latest.put("never", refused)
    latest.put("again", work)
    assert ended.wait(20)
    latest.stop(20)
    assert sorted(tries) == [1, 1, 1, 100]


def test_a_device_that_was_enrolled_without_a_root_trusts_nothing_and_says_so() -> None:
    trust = NoRoot()
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        trust.open_channel("stable", b"")

    trust.soon("c/stable", work)
    assert tried == [1]
    for ask in (lambda: trust.open_desired(b"x"), lambda: trust.vouch("sha256:0", 1, "releases/m/1")):
        with pytest.raises(Untrusted, match="enrol it again"):
            ask()
    assert "enrol it again" in trust.state().trouble
