"""What the figures say, judged before they are drawn; and that equal figures are equal bytes."""

from __future__ import annotations

from genet.choose.certificate import Choice, Selection
from genet.choose.selection import Candidate
from genet.device import DeviceCard
from genet.latency.staircase import Staircase, Staircases
from genet.latency.table import Setting
from genet.report import figures
from genet.spec.network import BlockType
from genet.spec.recipe import Measure
from genet.spec.space import superblock_of
from genet.trials.plan import TrialResult

CARD = DeviceCard(
    kind="cpu",
    name="some CPU",
    processors=2,
    memory_bytes=None,
    l2_bytes=None,
    capability=None,
    driver=None,
    cuda=None,
    cudnn=None,
    torch="2",
    python="3",
    platform="x",
)


def stair(index: int, resolution: int, kind: str = "XX k3") -> Staircase:
    return Staircase(
        superblock=index,
        resolution=resolution,
        block_type=kind,
        widths=(8, 16),
        ms=(1.0, 2.0),
        eps=0.02,
        edges=(8,),
        kept=(8, 16),
    )


def choice(within: bool, measured: float | None) -> Choice:
    return Choice(
        budget="0.5x",
        budget_ms_per_image=0.2,
        resolution=32,
        network="n",
        predicted_accuracy=0.9,
        predicted_ms_per_image=0.19,
        measured_ms_per_image=measured,
        within=within,
    )


def test_staircases_are_grouped_by_superblock_at_one_resolution() -> None:
    stairs = Staircases(setting="s", staircases=(stair(0, 32), stair(1, 32), stair(0, 32, "DW k3 r3"), stair(0, 24)))
    panels = figures.staircase_info(stairs, 32)
    assert [panel.title for panel in panels] == ["super-block 1", "super-block 2"]
    assert [len(panel.stairs) for panel in panels] == [2, 1]


def test_failed_trials_are_not_drawn_as_points() -> None:
    superblock = superblock_of(BlockType("XX", 3), 16, 1, 1)
    results = [
        TrialResult(trial=str(a), index=1, superblock=superblock, accuracy=a, failure=None if a else "x", seconds=0)
        for a in (0.9, None)
    ]
    (point,) = figures.trial_info(results, 0.95)
    assert (point.superblock, point.kind, round(point.points, 6)) == (2, "XX", -5)


def test_only_networks_within_their_budget_count_as_chosen() -> None:
    front = (Candidate(network="n", resolution=32, predicted_ms=64.0, predicted_accuracy=0.9),)
    setting = Setting.of(CARD, Measure())
    choices = (choice(True, 0.18), choice(False, 0.3))
    selection = Selection(inputs="", setting=setting, masternet_ms_per_image=0.4, choices=choices)
    info = figures.frontier_info({32: front}, selection, batch=64)
    assert info.lines[0].ms_per_image == (1.0,)
    assert info.chosen == ((0.18, 90.0),)
    assert info.budgets == (0.2,)


def test_equal_figures_are_equal_bytes_and_self_contained() -> None:
    panels = figures.staircase_info(Staircases(setting="s", staircases=(stair(0, 32),)), 32)
    first, second = figures.draw_staircases(panels), figures.draw_staircases(panels)
    assert first == second
    assert first.startswith("<svg")
    assert 'href="http' not in first
