"""What the figures of a race say, judged before they are drawn; and what can be pointed at in them."""

from __future__ import annotations

import re

import pytest

from genet.arch.network import Network
from genet.config.budget import Budget
from genet.report import race_figures
from genet.report.race_figures import ShortTraining
from tests.fixtures.raced import KNOWN, OTHER, WON, outcomes

LOST = WON.network.replace("c8", "c24")


def test_what_the_networks_raced_began_with_is_told_if_some_inherited() -> None:
    assert outcomes().initial_weights_note == ""
    some = outcomes().model_copy(update={"raced": (WON.model_copy(update={"inherited": True}), KNOWN)})
    assert some.initial_weights_note == f"the networks in the race began with the MasterNet's weights, except {KNOWN.name}"


def test_networks_are_drawn_by_their_test_accuracy_and_each_can_be_pointed_at() -> None:
    info = race_figures.race_info(outcomes())
    ((mine,), (known,)) = info.searched, info.known
    assert (mine.percent, mine.won, known.won) == (88.0, True, False)
    assert (info.masternet, info.budgets) == ((0.5, 71.0), (0.25,))
    drawn = race_figures.draw_race(info)
    assert "<title>mine-r8-1: 88.0 ± 1.2 % at 0.2100 ms</title>" in drawn
    assert "<title>resnet-r8-2: " in drawn


def test_latencies_that_were_not_measured_are_drawn_as_predictions_or_not_at_all() -> None:
    predicted, unknown = (each.model_copy(update={"ms_per_image": None, "interval_ms_per_image": None}) for each in (WON, KNOWN))
    unknown = unknown.model_copy(update={"predicted_ms_per_image": None})
    measured = race_figures.race_info(outcomes())
    info = race_figures.race_info(outcomes().model_copy(update={"raced": (predicted, unknown)}))
    ((point,), known) = info.searched, info.known
    assert (point.ms_per_image, known) == (0.2, ())
    assert (info.predicted, measured.predicted) == (True, False)
    drawn, filled = race_figures.draw_race(info), race_figures.draw_race(measured._replace(known=()))
    assert "<title>mine-r8-1: 88.0 ± 1.2 % at predicted 0.2000 ms</title>" in drawn
    assert drawn.count("fill: #ffffff") > filled.count("fill: #ffffff"), "hollow"


def test_a_budget_all_of_whose_trainings_failed_is_drawn_too() -> None:
    failed = outcomes().model_copy(update={"untrained": (Budget.parse("0.1x"),)})
    assert race_figures.race_info(failed).budgets == pytest.approx((0.25, 0.05))


def test_the_rungs_of_a_race_lead_from_short_to_full_trainings_the_best_first() -> None:
    short = {
        OTHER: ShortTraining("mine-r8-2", 0.5, True),  # as it was a joint trial
        WON.network: ShortTraining("mine-r8-1", 0.4, True),
        LOST: ShortTraining("lost-r8-3", 0.3, True),
    }
    first, second, third = race_figures.rungs_info(outcomes(), short)
    assert (first.name, first.short, first.full, first.won) == ("mine-r8-1", 40.0, 90.0, True)
    assert (second.name, second.searched, second.short, second.full) == ("resnet-r8-2", False, 50.0, 80.0)
    assert (third.name, third.short, third.full, third.searched) == ("lost-r8-3", 30.0, None, True)
    drawn = race_figures.draw_rungs((first, second, third))
    (top, height), *_ = re.findall(r'<clipPath id="\w+">\s*<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawn)
    marks = [float(y) for y in re.findall(r'<g clip-path="[^"]+">\s*<use [^>]*?y="([\d.]+)"', drawn)]
    ring = 5.0  # points, half of the largest mark's height
    assert float(top) + ring <= min(marks) < max(marks) <= float(top) + float(height) - ring, "none is cut off"


def test_a_network_is_drawn_block_by_block() -> None:
    network = Network.parse("@30x3 | Conv k3 c8 s2 | XX k3 c16 s2 d3 | DW k5 c8 s1 d2 r6 | Conv k1 c32 | 10")
    drawn = race_figures.draw_network(network)
    assert drawn.count('<g id="patch_') == 1 + 3 + 2 + 1 + 1  # stem, blocks, head; and the background
    assert race_figures.draw_network(network) == drawn
