"""One suite for the standard library's dataclass and for ours: whoever uses one cannot tell them apart."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Callable
from dataclasses import field
from functools import cached_property
from typing import Any, ClassVar

import pytest

from edgeloop import records


def both(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("dataclass", [dataclasses.dataclass, records.dataclass], ids=["theirs", "ours"])(
        test
    )


@both
def test_values_are_taken_by_position_and_by_name(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Point:
        """A point."""

        x: int
        y: int = 2
        more: list[int] = field(default_factory=list)
        known: ClassVar[dict[str, int]] = {"a": 7}

    assert (Point(1).x, Point(1, 3).y, Point(1, y=4).y, Point(x=1).more, Point.known) == (1, 3, 4, [], {"a": 7})
    assert Point(1).more is not Point(1).more


WRONG = [((), {}), ((), {"x": 1, "z": 2}), ((), {"y": 1}), ((1, 2, [], 4), {}), ((1,), {"x": 2}), ((1,), {"fixed": 3})]


@both
@pytest.mark.parametrize(("args", "kwargs"), WRONG)
@pytest.mark.parametrize("before", [0, 1, 100])
def test_wrong_values_are_refused_and_the_next_is_made(
    dataclass: Any, args: tuple[Any, ...], kwargs: dict[str, Any], before: int
) -> None:
    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        more: list[int] = field(default_factory=list)
        fixed: int = field(init=False, default=7)

    for _ in range(before):
        assert Point(1, 5).y == 5
    with pytest.raises(TypeError, match=r"__init__\(\)"):
        Point(*args, **kwargs)
    assert (Point(3, more=[1]).more, Point(3).fixed, Point(3).y) == ([1], 7, 2)


@both
def test_a_frozen_one_cannot_be_changed_and_has_a_hash(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Point:
        x: int
        note: str = field(default="", compare=False)
        known: ClassVar[dict[str, int]] = {"a": 7}

        @cached_property
        def double(self) -> int:
            return 2 * self.x

    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    with pytest.raises(AttributeError):
        point.other = 2
    assert point.double == 2
    assert point == Point(1, "other") and hash(point) == hash(Point(1, "other")) and point != Point(2)
    assert {point: "found"}[Point(1)] == "found"
    assert point != (1, "") and point.__eq__(3) is NotImplemented


@both
def test_one_that_may_change_has_no_hash(dataclass: Any) -> None:
    @dataclass
    class Count:
        n: int = 0

    count = Count()
    count.n += 1
    assert count == Count(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(count)


@both
def test_without_eq_an_object_equals_itself_alone(dataclass: Any) -> None:
    @dataclass(frozen=True, eq=False)
    class Thing:
        x: int

    thing = Thing(1)
    assert thing == thing and thing != Thing(1) and len({thing, Thing(1)}) == 2


@both
def test_it_is_shown_as_it_is_made(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Secret:
        name: str
        word: str = field(default="x", repr=False)

    assert repr(Secret("a")).endswith("Secret(name='a')")


@both
def test_methods_of_the_class_itself_are_kept(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Own:
        x: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 5

        def __repr__(self) -> str:
            return "mine"

    assert Own(1) == Own(2) and hash(Own(1)) == 5 and repr(Own(1)) == "mine"


@both
def test_keywords_alone_and_what_comes_after(dataclass: Any) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Named:
        first: int = 1
        second: int
        twice: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.second)

    assert Named(second=4).twice == 8
    with pytest.raises(TypeError):
        Named(1, 2)


@both
def test_one_inherits_from_another(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Base:
        x: int
        y: int = 0

    @dataclass(frozen=True)
    class More(Base):
        z: int = 9

    class Plain(Base):
        pass

    assert (More(1).x, More(1, 2, 3).z, Plain(1).x, More(1).y) == (1, 3, 1, 0)
    assert Base(1) != More(1) and More(1) == More(1, 0, 9)
    assert isinstance(Base(1), Base) and type(Plain(2)) is Plain


@both
def test_the_library_s_own_functions_know_it(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2

    assert dataclasses.is_dataclass(Point) and [f.name for f in dataclasses.fields(Point)] == ["x", "y"]
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 2} and dataclasses.astuple(Point(1)) == (1, 2)
    assert dataclasses.replace(Point(1), y=5) == Point(1, 5)
    assert copy.deepcopy(Point(1)) == Point(1)
    match Point(1):
        case Point(x, y):
            assert (x, y) == (1, 2)
    assert Point.y == 2 and Point.__match_args__ == ("x", "y")


@dataclasses.dataclass(frozen=True)
class Theirs:
    x: int


@records.dataclass(frozen=True)
class Ours:
    x: int


@pytest.mark.parametrize("kind", [Theirs, Ours])
def test_it_is_pickled_before_and_after_another_was_made(kind: Any) -> None:
    written = pickle.dumps(kind(3))
    assert pickle.loads(written) == kind(3)


@both
def test_two_threads_make_the_first_at_once(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Point:
        x: int

    made: list[Any] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        made.append(Point(1))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Point(1)] * 8


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(TypeError, match="order"):
        records.dataclass(order=True)  # type: ignore[call-overload]  # theirs would take it
