"""What a policy means: threads, spinning, memory, processors."""

from __future__ import annotations

import pytest

from edgeloop.package import Package
from edgeloop.runtime import ModelSession
from edgeloop.runtime import policy as policies
from edgeloop.runtime.options import CpuOptions
from edgeloop.runtime.policy import Policy, affinities, session_options, thread_settings, threads_of


@pytest.mark.parametrize(
    ("cores", "balanced", "fast"), [(1, (1,), (1,)), (2, (1,), (1, 2)), (4, (1, 2), (1, 2, 4)), (7, (1, 3), (1, 3, 7))]
)
def test_threads(monkeypatch: pytest.MonkeyPatch, cores: int, balanced: tuple[int, ...], fast: tuple[int, ...]) -> None:
    monkeypatch.setattr(policies, "processors", lambda: tuple(range(cores)))
    assert thread_settings("quiet") == (1,)
    assert thread_settings("balanced") == balanced and threads_of("balanced") == balanced[-1]
    assert thread_settings("fast") == fast and threads_of("fast") == cores
    assert thread_settings("fast", 3) == (3,)


@pytest.mark.parametrize(
    ("policy", "spins", "arena"), [("quiet", "0", False), ("balanced", "0", True), ("fast", "1", True)]
)
def test_session_options(policy: Policy, spins: str, arena: bool) -> None:
    options = session_options(policy, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spins
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == spins
    assert options.enable_cpu_mem_arena is arena and options.enable_mem_pattern is arena
    assert options.intra_op_num_threads == 1 and options.inter_op_num_threads == 1


def test_the_owners_options_are_stronger() -> None:
    own = CpuOptions(
        enable_cpu_mem_arena=True,
        enable_mem_pattern=True,
        allow_spinning=True,
        spin_duration_us=50,
        intra_op_thread_affinities="2",
    )
    options = session_options("quiet", 2, own)
    assert options.enable_cpu_mem_arena and options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == "50"
    assert options.get_session_config_entry("session.intra_op_thread_affinities") == "2"


@pytest.mark.parametrize(
    ("policy", "threads", "there", "speeds", "expected"),
    [
        ("fast", 4, (0, 1, 2, 3), {}, "2;3;4"),
        ("fast", 4, (2, 3, 6, 7), {}, "4;7;8"),  # a container's share of the processors
        ("fast", 2, (0, 1, 2, 3), {}, None),  # not all: others run there too
        ("fast", 2, (0, 1), {}, None),  # few: pinned threads would be in the way
        ("fast", 1, (0, 1, 2, 3), {}, None),  # nobody but the caller
        ("balanced", 2, (0, 1, 2, 3), {0: 1800, 1: 1800, 2: 2400, 3: 2400}, "3,4"),
        ("balanced", 3, (0, 1, 2, 3), {0: 1800, 1: 1800, 2: 2400, 3: 2400}, None),  # more threads than fast ones
        ("balanced", 2, (0, 1, 2, 3), dict.fromkeys(range(4), 2000), None),
        ("balanced", 2, (0, 1, 2, 3), {}, None),
        ("quiet", 1, (0, 1, 2, 3), {0: 1800, 1: 2400}, None),
    ],
)
def test_processors(
    policy: Policy, threads: int, there: tuple[int, ...], speeds: dict[int, int], expected: str | None
) -> None:
    assert affinities(policy, threads, there, speeds) == expected


def test_onnx_runtime_takes_the_affinities_of_this_machine(monkeypatch: pytest.MonkeyPatch, tiny: Package) -> None:
    monkeypatch.setattr(policies, "FEWEST_TO_PIN", 2)
    session = ModelSession.load(tiny, "cpu-fp32", policy="fast")
    assert len(session.run({"x": tiny.golden().inputs["x"]})) == 3
