"""What a search tries first, and how it decides between the best: timed in turn, by the upper end of what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from edgeloop.runtime import timing
from edgeloop.runtime.comparing import Compared
from model_export.data import Table
from model_export.graphs.opsets import limits_of, too_new
from model_export.prepare import prepare
from model_export.sources import open_source
from model_export.tuning.bench import Bench
from model_export.tuning.options import TuneOptions
from model_export.tuning.search import STALE, search
from model_export.tuning.space import EXCLUDED, Space
from model_export.tuning.trials import Objective, Trial
from model_export.variants.made import Variant
from model_export.variants.maker import Maker
from model_export.variants.recipes import Int8Options, VariantRecipe
from model_export.variants.targets import TARGETS
from tests.unit.export import networks

ROWS = 320


@pytest.fixture(scope="module", name="transformer")
def transformer_once() -> Maker:
    rows = networks.sentences(ROWS)
    table = Table({"input_ids": rows}, networks.classes(ROWS), "rows", "0" * 64)
    source = open_source(networks.transformer(), table)
    return Maker(prepare(source, table, labels=None, given={}), {"input_ids": rows[:32]})


def _plain(scheme: Any) -> VariantRecipe:
    narrow = scheme == "u8s8"  # any x86 has to compute the same
    return VariantRecipe(
        "int8", int8=Int8Options(scheme, reduce_range=narrow, per_channel=False, dynamic=True, embeddings=True)
    )


def test_what_others_make_by_default_comes_first_then_dynamic_fused_and_not(transformer: Maker) -> None:
    space = Space.of(transformer, TARGETS["cpu"])
    static = VariantRecipe("int8", int8=Int8Options("s8s8", reduce_range=True, per_channel=False))
    assert [space.recipe(start) for start in space.usual()] == [_plain("u8s8"), _plain("u8u8"), static]
    recipes = [space.recipe(start) for start in space.first()]
    assert recipes[:3] == [_plain("u8s8"), _plain("u8u8"), static] and len(set(recipes)) == len(recipes)
    dynamic = [recipe for recipe in recipes[3:8] if recipe.int8 is not None and recipe.int8.dynamic]
    assert len(dynamic) == 5
    assert {recipe.fused for recipe in dynamic} == {False, True}
    assert {(r.int8.per_channel, r.int8.reduce_range) for r in dynamic if r.int8} == {(False, True), (True, True)}


def test_a_target_gets_of_the_usual_what_it_takes(transformer: Maker) -> None:
    told = {name: Space.of(transformer, TARGETS[name]) for name in ("cpu-vnni", "openvino")}
    static = Int8Options("u8s8", reduce_range=False, per_channel=False)
    assert [told["cpu-vnni"].recipe(start) for start in told["cpu-vnni"].usual()] == [
        VariantRecipe("int8", "cpu-vnni", int8=replace(static, dynamic=True, embeddings=True)),
        VariantRecipe("int8", "cpu-vnni", int8=static),
    ]
    assert [told["openvino"].recipe(start) for start in told["openvino"].usual()] == [
        VariantRecipe("int8", "openvino", int8=static)
    ]


def test_ranges_around_zero_are_a_choice_where_the_scheme_leaves_one(transformer: Maker) -> None:
    found: dict[str, set[bool]] = {}
    for name in ("cpu", "tensorrt"):
        space = Space.of(transformer, TARGETS[name])
        for scheme in TARGETS[name].schemes:
            starts = [{"kind": "int8", "scheme": scheme, "symmetric": around} for around in (False, True)]
            made = [space.recipe(start).int8 for start in map(space._complete, starts)]
            found[f"{name} {scheme}"] = {options.symmetric for options in made if options is not None}
    assert found["cpu u8s8"] == found["cpu u8u8"] == {False, True}
    assert found["cpu s8s8"] == found["tensorrt s8s8"] == {False}  # they have them always


@pytest.mark.parametrize("objective", ["latency", "energy"])
def test_the_best_of_many_has_to_be_the_best_beside_the_others_too(
    objective: Objective, transformer: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first was timed in a lucky moment; beside the second it is slower, and the second is chosen."""
    pytest.importorskip("optuna", reason="pip install 'edgeloop[tune]'")
    lucky, steady = _plain("u8s8"), _plain("u8u8")
    apart, together = {lucky: 0.4, steady: 0.6}, {lucky: 0.8, steady: 0.6}

    def compare(
        self: Bench, base: Variant, candidates: Sequence[Variant], budget_s: float, hopeless: float = 0.0
    ) -> list[Compared]:
        shares = apart if len(candidates) == 1 else together
        return [_compared(1.0), *(_compared(shares.get(variant.recipe, 0.9)) for variant in candidates)]

    monkeypatch.setattr(Bench, "compare", compare)
    options = TuneOptions(objective, accuracy_drop=0.5, trials=2, time_limit_s=60)
    found = search(transformer, TARGETS["cpu"], np.arange(32, ROWS), options)
    assert found.chosen == steady
    assert [(trial.recipe, trial.ratio) for trial in found.trials] == [(lucky, 0.8), (steady, 0.6)]


def test_a_search_ends_when_suggestions_are_no_gain(transformer: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="pip install 'edgeloop[tune]'")

    def compare(
        self: Bench, base: Variant, candidates: Sequence[Variant], budget_s: float, hopeless: float = 0.0
    ) -> list[Compared]:
        return [_compared(1.0), *(_compared(0.9) for _ in candidates)]

    monkeypatch.setattr(Bench, "compare", compare)
    options = TuneOptions(accuracy_drop=0.5, trials=100, time_limit_s=240)
    found = search(transformer, TARGETS["cpu"], np.arange(32, ROWS), options)
    # What is tried first may grow once nodes are blamed, and what was tried before counts as no gain either.
    first = len(Space.of(transformer, TARGETS["cpu"]).first()) + len(EXCLUDED)
    assert len(found.trials) <= first + STALE


@pytest.mark.parametrize("ratio", [0.7, 0.5])
def test_no_node_is_blamed_where_static_int8_is_too_slow_however_right(
    transformer: Maker, monkeypatch: pytest.MonkeyPatch, ratio: float
) -> None:
    def compare(
        self: Bench, base: Variant, candidates: Sequence[Variant], budget_s: float, hopeless: float = 0.0
    ) -> list[Compared]:
        static = [c.recipe.int8 is not None and not c.recipe.int8.dynamic for c in candidates]
        return [_compared(1.0), *(_compared(ratio if still else 0.6) for still in static)]

    monkeypatch.setattr(Bench, "compare", compare)
    steps: list[str] = []
    options = TuneOptions(accuracy_drop=0.5, trials=6, time_limit_s=240)
    found = search(transformer, TARGETS["cpu"], np.arange(32, ROWS), options, steps.append)
    slow = ratio > 0.6
    assert bool(found.sensitivity) != slow and ("measuring what int8 does to each node" in steps) != slow
    assert any("static int8 would be slower" in note for note in found.notes) == slow


def test_a_search_for_an_older_runtime_makes_nothing_that_it_does_not_read(
    transformer: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="pip install 'edgeloop[tune]'")
    limits = limits_of("1.16")
    timed: list[Variant] = []

    def compare(
        self: Bench, base: Variant, candidates: Sequence[Variant], budget_s: float, hopeless: float = 0.0
    ) -> list[Compared]:
        timed.extend((base, *candidates))
        return [_compared(1.0), *(_compared(0.9) for _ in candidates)]

    monkeypatch.setattr(Bench, "compare", compare)
    base = replace(transformer.prepared, model=ModelProto.FromString(transformer.prepared.model.SerializeToString()))
    base.model.ir_version = 12
    found = search(
        replace(transformer, prepared=base, limits=limits),
        TARGETS["cpu"],
        np.arange(32, ROWS),
        TuneOptions("size", accuracy_drop=0.5, trials=20, time_limit_s=60),
    )
    kinds = {(trial.recipe.precision, trial.recipe.fused) for trial in found.trials}
    assert {("int8", False), ("int8", True), ("fp32", True), ("fp16", False)} <= kinds
    assert "int4" not in {precision for precision, _ in kinds} and all(not trial.why for trial in found.trials)
    assert all(variant.model.ir_version <= limits.ir and not too_new(variant.model, limits) for variant in timed)


def _compared(share: float) -> Compared:
    timed = timing.Timing(share, share, share, None, share, share, share, 100, energy_high=share)
    return Compared("", timed, 1.0, 0)


@pytest.mark.parametrize(
    ("objective", "measured", "surely"),
    [
        ("latency", {"ratio": 0.5, "ratio_high": 1.1}, False),
        ("latency", {"ratio": 0.5, "ratio_high": 0.9}, True),
        ("energy", {"cpu_ms": 0.5, "baseline_cpu_ms": 1.0, "energy_high": 1.1}, False),
        ("energy", {"cpu_ms": 0.5, "baseline_cpu_ms": 1.0, "energy_high": 0.9}, True),
        ("energy", {"ratio": 0.5, "ratio_high": 0.9}, False),
        ("size", {"size_bytes": 1}, True),
    ],
)
def test_a_clock_is_believed_by_the_upper_end_of_what_it_said(
    objective: Objective, measured: dict[str, Any], surely: bool
) -> None:
    assert Trial(VariantRecipe("fp32"), **measured).surely_less(objective) is surely


def test_energy_is_compared_within_a_round_by_processor_time_where_no_counter_can_be_read() -> None:
    base, mine = ([timing._Block(1.0, cpu, None) for cpu in row] for row in ([1.0, 2.0, 1.0], [0.5, 1.0, 2.0]))
    assert timing._energy_high(mine, base) == 2.0
    base, mine = ([timing._Block(1.0, 1.0, energy) for energy in row] for row in ([2.0, None, 4.0], [1.0, 9.0, 1.0]))
    assert timing._energy_high(mine, base) == 0.5
    assert timing._energy_high([timing._Block(1.0, 0.0, None)], [timing._Block(1.0, 0.0, None)]) is None
