"""What the figures of a race say, judged before they are drawn; and what can be pointed at in them."""

from __future__ import annotations

from genet.arch.network import Network
from genet.config.recipe import Measure
from genet.latency.table import Setting
from genet.report import race_figures
from genet.report.race_figures import ShortTraining
from genet.search.outcome import Outcome, Outcomes, RacedNetwork, TrainedNetwork
from tests.fixtures.cards import CARD

WON = RacedNetwork(
    name="mine-r8-1",
    network="@8x1 | Conv k3 c8 s2 | XX k3 c8 s2 d1 | 10",
    resolution=8,
    searched=True,
    design=None,
    trainings=2,
    held_out_accuracy=0.9,
    held_out_error=0.01,
    test_accuracy=0.88,
    test_error=0.012,
    predicted_accuracy=0.91,
    predicted_ms_per_image=0.2,
    ms_per_image=0.21,
    interval_ms_per_image=0.01,
    parameters=10,
    macs=20,
)
OTHER, LOST = (WON.network.replace("c8", width) for width in ("c16", "c24"))
KNOWN = WON.model_copy(
    update={"name": "resnet-r8-2", "network": OTHER, "searched": False, "design": "resnet", "held_out_accuracy": 0.8}
)


def outcomes() -> Outcomes:
    facts = {"budget": "0.5x", "budget_ms_per_image": 0.25, "tie": False, "known": KNOWN, "best_searched": WON}
    return Outcomes(
        inputs="",
        setting=Setting.of(CARD, Measure()),
        masternet=TrainedNetwork(inputs="", network="m", resolution=8, nas_accuracy=0.7, nas_images=100, test_accuracy=0.71),
        masternet_ms_per_image=0.5,
        outcomes=(Outcome.model_validate(WON.model_dump() | facts),),
        unmet=(),
        raced=(WON, KNOWN),
        trainings=3.0,
    )


def test_what_the_networks_raced_began_with_is_told_if_some_inherited() -> None:
    assert outcomes().initial_weights_note == ""
    some = outcomes().model_copy(update={"raced": (WON.model_copy(update={"inherited": True}), KNOWN)})
    assert some.initial_weights_note == f"the networks raced began with the MasterNet's weights, but {KNOWN.name} with new ones"


def test_networks_are_drawn_by_their_test_accuracy_and_each_can_be_pointed_at() -> None:
    info = race_figures.race_info(outcomes())
    ((mine,), (known,)) = info.searched, info.known
    assert (mine.percent, mine.won, known.won) == (88.0, True, False)
    assert (info.masternet, info.budgets) == ((0.5, 71.0), (0.25,))
    drawn = race_figures.draw_race(info)
    assert "<title>mine-r8-1: 88.0 ± 1.2 % at 0.2100 ms</title>" in drawn
    assert "<title>resnet-r8-2: " in drawn


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
    assert race_figures.draw_rungs((first, second, third)).startswith("<svg")


def test_a_network_is_drawn_block_by_block() -> None:
    network = Network.parse("@30x3 | Conv k3 c8 s2 | XX k3 c16 s2 d3 | DW k5 c8 s1 d2 r6 | Conv k1 c32 | 10")
    drawn = race_figures.draw_network(network)
    assert drawn.count('<g id="patch_') == 1 + 3 + 2 + 1 + 1  # stem, blocks, head; and the background
    assert race_figures.draw_network(network) == drawn
