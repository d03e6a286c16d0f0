"""What the figures say, judged before they are drawn; and that equal figures are equal bytes."""

from __future__ import annotations

from genet.arch.network import BlockType
from genet.arch.space import superblock_of
from genet.config.recipe import Measure
from genet.latency.staircase.space_sweeps import PlacedStaircase, Staircases
from genet.latency.staircase.staircase import analyse
from genet.latency.staircase.sweep import Sweep
from genet.latency.table import Setting
from genet.latency.timing.curves import Curve, Curves
from genet.report import search_figures
from genet.report.latency_figures import draw_curves, draw_staircase
from genet.search.certificate import SelectedNetwork, Selection
from genet.search.solver import Candidate
from genet.trials.results import TrialResult
from tests.fixtures.cards import CARD


def stair(index: int, resolution: int, kind: str = "XX k3") -> PlacedStaircase:
    found = analyse(Sweep(widths=(8, 16), ms=(1.0, 2.0), sigma=(0.01, 0.01)))
    return PlacedStaircase(superblock=index, resolution=resolution, block_type=kind, staircase=found, kept=(8, 16))


def choice(within: bool, measured: float | None) -> SelectedNetwork:
    return SelectedNetwork(
        budget="0.5x",
        budget_ms_per_image=0.2,
        resolution=32,
        network="n",
        predicted_accuracy=0.9,
        predicted_ms_per_image=0.19,
        measured_ms_per_image=measured,
        interval_ms_per_image=None,
        within=within,
    )


def test_staircases_are_grouped_by_superblock_at_one_resolution() -> None:
    stairs = Staircases(setting="s", staircases=(stair(0, 32), stair(1, 32), stair(0, 32, "DW k3 r3"), stair(0, 24)))
    panels = search_figures.staircase_info(stairs, 32)
    assert [panel.title for panel in panels] == ["super-block 1", "super-block 2"]
    assert [len(panel.stairs) for panel in panels] == [2, 1]


def test_a_staircase_whose_steps_noise_hides_is_drawn_with_a_warning() -> None:
    clear = stair(0, 32)
    assert clear.staircase
    noisy = clear.model_copy(update={"staircase": clear.staircase.model_copy(update={"eps": 0.35})})
    one, both = ([search_figures.StairPanel("super-block 1", found)] for found in ((clear,), (clear, noisy)))
    assert search_figures.unclear_stairs(one) == ""
    assert search_figures.unclear_stairs(both) == "1 of 2 staircases are too noisy to tell steps (dotted)"
    assert "too noisy" not in search_figures.draw_staircases(one)
    assert "XX k3, too noisy to tell (35%)" in search_figures.draw_staircases(both)


def test_failed_trials_are_not_drawn_as_points() -> None:
    superblock = superblock_of(BlockType("XX", 3), 16, 1, 1)
    results = [TrialResult(index=1, superblock=superblock, network=str(a), seed=0, accuracy=a) for a in (0.9, None)]
    (point,) = search_figures.trial_info(results, 0.95)
    assert (point.superblock, point.kind, round(point.points, 6)) == (2, "XX", -5)


def test_trials_are_drawn_against_the_control_of_their_super_block() -> None:
    superblock = superblock_of(BlockType("XX", 3), 16, 1, 1)
    control = TrialResult(index=1, superblock=superblock, network="own", seed=0, control=True, accuracy=0.92)
    trial = TrialResult(index=1, superblock=superblock, network="other", seed=0, accuracy=0.9)
    (point,) = search_figures.trial_info([control, trial], 0.95)
    assert round(point.points, 6) == -2
    other_type = superblock_of(BlockType("DW", 3, 3.0), 16, 1, 1)
    fresh = control.model_copy(update={"fresh": True, "accuracy": 0.85})
    retyped = TrialResult(index=1, superblock=other_type, network="dw", seed=0, accuracy=0.86)
    assert [round(each.points, 6) for each in search_figures.trial_info([control, fresh, retyped], 0.95)] == [1]


def test_only_networks_within_their_budget_count_as_chosen() -> None:
    front = (Candidate(network="n", resolution=32, predicted_ms=64.0, predicted_accuracy=0.9, parameters=1),)
    setting = Setting.of(CARD, Measure())
    choices = (choice(True, 0.18), choice(False, 0.3))
    selection = Selection(inputs="", setting=setting, masternet_ms_per_image=0.4, prediction_error=None, choices=choices)
    info = search_figures.frontier_info({32: front}, selection, batch=64)
    assert info.lines[0].ms_per_image == (1.0,)
    assert info.chosen == ((0.18, 90.0),)
    assert info.budgets == (0.2,)


def test_curves_are_grouped_by_super_block_and_controls_kept_apart() -> None:
    superblock = superblock_of(BlockType("XX", 3), 16, 1, 1)
    trial = TrialResult(index=1, superblock=superblock, network="n", seed=0, accuracy=0.9, curve=(0.5, 0.9))
    control = trial.model_copy(update={"control": True, "curve": (0.8, 0.95)})
    failed = trial.model_copy(update={"accuracy": None})
    brief = trial.model_copy(update={"index": 2, "curve": (0.9,)})  # of one epoch: a point is no curve
    (panel,) = search_figures.curve_info([trial, control, failed, brief])
    assert panel == search_figures.CurvePanel(2, ((50.0, 90.0),), ((80.0, 95.0),))
    assert search_figures.draw_trial_curves([panel]).startswith("<svg")


def test_equal_figures_are_equal_bytes_and_self_contained() -> None:
    panels = search_figures.staircase_info(Staircases(setting="s", staircases=(stair(0, 32),)), 32)
    first, second = search_figures.draw_staircases(panels), search_figures.draw_staircases(panels)
    assert first == second
    assert first.startswith("<svg")
    assert 'href="http' not in first


def test_a_staircase_is_drawn_with_utilization_and_with_throughput_where_the_macs_are_known() -> None:
    sweep = Sweep(widths=(8, 16, 24, 32), ms=(1.0, 1.0, 2.0, 2.0), sigma=(0.01,) * 4)
    plain, counted = draw_staircase(analyse(sweep), "t"), draw_staircase(analyse(sweep, (1, 2, 3, 4)), "t")
    assert plain.startswith("<svg")
    assert counted.count('id="axes_') == 3
    assert plain.count('id="axes_') == 2


def test_curves_over_width_are_drawn_over_parameters_too_and_missing_points_left_out() -> None:
    curve = Curve(name="XX", values=(8, 16), ms=(1.0, None), parameters=(10, 40))
    over = {name: Curves(variable=name, device="d", estimate=True, batch=64, curves=(curve,)) for name in ("width", "size")}
    assert draw_curves(over["width"]).count('id="axes_') == 2
    assert draw_curves(over["size"]).count('id="axes_') == 1
    assert draw_curves(over["width"]) == draw_curves(over["width"])
