"""The regression: what it must learn from trials, what must not fool it, and what it says about its own errors."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from genet.arch.network import BlockType, Network, SuperBlock
from genet.arch.space import superblock_of
from genet.config.reader import read_space
from genet.config.recipe import Distill, RegressionModel
from genet.errors import EvidenceError
from genet.search import fit as fitting
from genet.search.fit import LEAST, fit
from genet.search.regression import Regression
from genet.trials.plan import Change, Trial, plan_trials
from genet.trials.results import TrialResult, failed

SPACE = read_space("digits")
WIDTHS = SPACE.widths_on_offer()
MASTERNET = SPACE.masternet(32)
OWN = MASTERNET.superblocks
CHOICES = [(index, each) for index in range(len(OWN)) for each in SPACE.choices(index, WIDTHS)]
PLAN = plan_trials(SPACE, WIDTHS, 32, 0, Distill(epochs=1, learning_rate=0.1))
ACCURACY = 0.6  # the MasterNet's
IMAGES = 1000
COUNTLESS = 10**12  # images, so many that every trial is weighted alike
XX, DW = BlockType("XX", 3), BlockType("DW", 3, 3.0)
MODELS: tuple[RegressionModel, ...] = ("auto", "paper")


@dataclass(frozen=True)
class World:
    """What accuracies truly do: linear in log-width and log-depth, less for another block type, and fine-tuning's cost."""

    per_doubling: float = 0.02
    deeper: float = 0.02  # per doubling of depth
    another_type: float = -0.03
    costs: dict[int, float] = field(default_factory=dict)  # super-block -> what fine-tuning changes there
    anew: dict[int, float] = field(default_factory=dict)  # super-block -> what having to learn all of it anew changes
    noise: float = 0.0
    seed: int = 0

    def gain(self, index: int, superblock: SuperBlock) -> float:
        """What the change itself is worth."""
        own = OWN[index]
        moves = self.per_doubling * math.log2(superblock.width / own.width) + self.deeper * doublings(superblock, own)
        return moves + (self.another_type if superblock.block_type != own.block_type else 0.0)

    def result(self, trial: Trial) -> TrialResult:
        """What the trial finds."""
        luck = random.Random(f"{self.seed}/{trial.id}").gauss(0, self.noise)
        fresh = trial.fresh or trial.superblock.type != OWN[trial.index].type
        cost = self.costs.get(trial.index, 0.0) + (self.anew.get(trial.index, 0.0) if fresh else 0.0)
        found = ACCURACY + self.gain(trial.index, trial.superblock) + cost + luck
        return TrialResult(**dict(trial), accuracy=found)

    def results(self, trials: Iterable[Trial] = PLAN) -> list[TrialResult]:
        """What all of them find."""
        return [self.result(trial) for trial in trials]


NOISY = World(noise=0.01)
FEW = tuple(trial for trial in PLAN if trial.index in (1, 3))  # enough to learn from, and quick


def doublings(superblock: SuperBlock, own: SuperBlock) -> float:
    """Of the depth; a super-block that vanished is half a block deep."""
    return math.log2((superblock.depth or 0.5) / own.depth)


def everywhere(cost: float) -> dict[int, float]:
    return dict.fromkeys(range(len(OWN)), cost)


def trial(index: int, superblock: SuperBlock, *, control: bool = False) -> Trial:
    network = MASTERNET.model_copy(update={"superblocks": (*OWN[:index], superblock, *OWN[index + 1 :])})
    return Trial(index=index, superblock=superblock, control=control, network=str(network), seed=0)


def sized(index: int, kind: BlockType | None = None, width: int | None = None, depth: int | None = None) -> SuperBlock:
    """The MasterNet's own super-block, but for what is given."""
    own = OWN[index]
    return superblock_of(kind or own.block_type, width or own.width, depth or own.depth, own.stride)


def size_of(index: int, superblock: SuperBlock) -> float:
    """Logarithm of the width, and half that of the depth, against the MasterNet's own."""
    own = OWN[index]
    return math.log2(superblock.width / own.width) + doublings(superblock, own) / 2


def gains(regression: Regression, choices: Sequence[tuple[int, SuperBlock]] = CHOICES) -> list[float]:
    found = [regression.gain(*choice) for choice in choices]
    return [gain for gain in found if gain is not None]


def apart(one: Regression, other: Regression) -> float:
    """The largest difference between two regressions' gains."""
    here, there = gains(one), gains(other)
    assert len(here) == len(there) > 0
    return max(abs(a - b) for a, b in zip(here, there, strict=True))


def rms(errors: Iterable[float]) -> float:
    return math.sqrt(np.mean([error**2 for error in errors]))


def networks() -> st.SearchStrategy[Network]:
    """Any network of the space."""
    offered = [[each for place, each in CHOICES if place == index] for index in range(len(OWN))]
    return st.tuples(*map(st.sampled_from, offered)).map(lambda superblocks: SPACE.network(superblocks, 32))


@cache
def plain_fit() -> Regression:
    return fit(MASTERNET, ACCURACY, World().results(FEW), IMAGES)


@cache
def noisy_fit(model: RegressionModel = "auto") -> Regression:
    return fit(MASTERNET, ACCURACY, NOISY.results(), IMAGES, model)


@pytest.fixture
def one_penalty(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the regression choose nothing: one penalty, widths and depths by their logarithms, and never size alone."""

    def only(penalty: float) -> None:
        monkeypatch.setattr(fitting, "PENALTIES", (penalty,))
        monkeypatch.setattr(fitting, "OTHERS", (fitting.LOGARITHMS,))
        monkeypatch.setattr(fitting, "PAYS", math.inf)

    return only


# what it learns


@pytest.mark.parametrize(
    ("width", "depth", "kind"), [(0.05, 0.05, -0.01), (0.05, 0.005, -0.1), (0.005, 0.05, -0.1), (0.015, 0.03, -0.06)]
)
def test_slopes_of_accuracies_linear_in_log_width_and_log_depth_are_found(
    one_penalty: Callable[[float], None], width: float, depth: float, kind: float
) -> None:
    """To 3 % of the largest effect, which the least penalty bends."""
    one_penalty(min(fitting.PENALTIES))
    regression = fit(MASTERNET, ACCURACY, World(per_doubling=width, deeper=depth, another_type=kind).results(), IMAGES)
    worst = 0.03 * max(width, depth, -kind)
    assert len(regression.gradients) == 12
    for gradient in regression.gradients:
        own = OWN[gradient.index]
        assert gradient.per_doubling.value == pytest.approx(width, abs=worst)
        assert gradient.per_block.value == pytest.approx(depth * math.log2((own.depth + 1) / own.depth), abs=worst)
        assert gradient.at_own_size.value == pytest.approx(kind if gradient.block_type != own.block_type else 0.0, abs=worst)


@settings(max_examples=4)
@given(st.floats(0.005, 0.05), st.floats(0.005, 0.05), st.floats(-0.1, -0.01))
def test_gains_linear_in_log_width_and_log_depth_are_found(width: float, depth: float, kind: float) -> None:
    """Of every super-block of the space, tried or not, whatever form was chosen."""
    world = World(per_doubling=width, deeper=depth, another_type=kind)
    found = gains(fit(MASTERNET, ACCURACY, world.results(), IMAGES))
    assert found == pytest.approx([world.gain(*choice) for choice in CHOICES], abs=0.12 * max(width, depth, -kind))


def test_the_masternets_own_superblocks_gain_nothing_tried_or_not() -> None:
    regression = fit(MASTERNET, ACCURACY, World(costs=everywhere(-0.03), noise=0.01).results(FEW), IMAGES)
    assert gains(regression, list(enumerate(OWN))) == [0.0] * len(OWN)


@settings(max_examples=4)
@given(st.floats(-0.1, 0.1))
def test_what_fine_tuning_costs_every_trial_changes_no_prediction(cost: float) -> None:
    free = plain_fit()
    paid = fit(MASTERNET, ACCURACY, World(costs=everywhere(cost)).results(FEW), IMAGES)
    assert apart(paid, free) < 0.001 * abs(cost) + 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_what_fine_tuning_costs_every_trial_changes_noisy_predictions_by_a_tenth_of_it_at_most(seed: int) -> None:
    free = fit(MASTERNET, ACCURACY, World(noise=0.01, seed=seed).results(), IMAGES)
    paid = fit(MASTERNET, ACCURACY, World(noise=0.01, seed=seed, costs=everywhere(-0.1)).results(), IMAGES)
    assert apart(paid, free) < 0.1 * 0.1


@settings(max_examples=4)
@given(st.sampled_from([1, 3]), st.floats(-0.1, 0.1))
def test_what_fine_tuning_costs_one_superblock_changes_predictions_by_a_fortieth_of_it_at_most(index: int, cost: float) -> None:
    free = plain_fit()
    paid = fit(MASTERNET, ACCURACY, World(costs={index: cost}).results(FEW), IMAGES)
    assert apart(paid, free) < abs(cost) / 40 + 1e-6


def test_fine_tuning_is_what_it_changed_in_the_control_trial() -> None:
    regression = fit(MASTERNET, ACCURACY, World(costs={1: -0.04, 3: 0.01}).results(FEW), IMAGES)
    coefficients = np.array(list(regression.coefficients.values()))
    found = {index: float(regression.trial_vector(index, OWN[index]) @ coefficients) for index in (1, 3)}
    assert found == pytest.approx({1: -0.04, 3: 0.01}, abs=0.0005)


def test_having_to_learn_anew_is_not_taken_for_a_worse_type() -> None:
    """Super-blocks lose 1 to 10 points where nothing is inherited, fresh controls too: what a type is worth stays."""
    worlds = (World(), World(anew={index: -0.01 - 0.03 * index for index in range(len(OWN))}))
    plain, anew = (fit(MASTERNET, ACCURACY, world.results(), COUNTLESS) for world in worlds)
    types = [g for g in anew.gradients if g.block_type.kind != OWN[g.index].type]
    assert len(types) > 3
    assert all(g.at_own_size.value == pytest.approx(-0.03, abs=0.006) for g in types)
    assert apart(plain, anew) < 0.006


def test_without_a_control_that_learnt_anew_a_worse_type_still_counts_as_worse() -> None:
    """Runs from before there were such controls, or one that failed: what cannot be told apart is not taken for free."""
    results = [result for result in World(another_type=-0.06).results() if not result.fresh]
    types = [g for g in fit(MASTERNET, ACCURACY, results, COUNTLESS).gradients if g.block_type.kind != OWN[g.index].type]
    assert all(g.at_own_size.value < -0.04 for g in types)


def test_a_control_takes_the_cost_of_fine_tuning_out_of_other_types() -> None:
    """All types but the own lose as much as the control: the change itself is worth nothing."""
    world = World(per_doubling=0.0, deeper=0.0, another_type=0.0, costs=everywhere(-0.1))
    trials = [t for t in FEW if t.control or t.superblock.block_type != OWN[t.index].block_type]
    regression = fit(MASTERNET, ACCURACY, world.results(trials), IMAGES)
    assert gains(regression, [(1, sized(1, kind=DW)), (3, sized(3, kind=XX))]) == pytest.approx([0.0, 0.0], abs=0.001)


@settings(max_examples=4)
@given(st.floats(0.01, 0.2), st.integers(0, 99))
def test_a_type_that_is_worse_at_every_size_is_predicted_worse(loss: float, seed: int) -> None:
    world = World(another_type=-loss, noise=loss / 10, seed=seed, costs=everywhere(-0.02))
    regression = fit(MASTERNET, ACCURACY, world.results(FEW), IMAGES)
    same_size = [
        (index, sized(index, width=each.width, depth=each.depth), each)
        for index, each in CHOICES
        if index in (1, 3) and each.block_type != OWN[index].block_type and each in {t.superblock for t in FEW}
    ]
    assert same_size
    for index, own, other in same_size:
        assert gains(regression, [(index, other)]) < gains(regression, [(index, own)])


def test_noise_without_a_trend_is_shrunk_until_more_is_better() -> None:
    """Every trial twice, once with as much luck as the other time without."""
    flat = World(per_doubling=0.0, deeper=0.0, another_type=0.0)
    lucky = [flat.result(t).model_copy(update={"accuracy": ACCURACY + sign * 0.02}) for t in FEW for sign in (1, -1)]
    regression = fit(MASTERNET, ACCURACY, lucky, IMAGES)
    assert regression.penalty == fitting.ALONE
    assert regression.coefficients["size"] == LEAST
    moved = [choice for choice in CHOICES if choice[0] in (1, 3)]
    assert gains(regression, moved) == pytest.approx([LEAST * size_of(*choice) for choice in moved], abs=1e-6)
    for index in (1, 3):
        for kind in SPACE.block_types(index):
            wider = [gains(regression, [(index, sized(index, kind, width=w))])[0] for w in WIDTHS[index, kind]]
            deeper = [gains(regression, [(index, sized(index, kind, depth=d))])[0] for d in SPACE.depths(index)]
            assert wider == sorted(set(wider))
            assert deeper == sorted(set(deeper))


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_moves_predictions_less_than_it_moved_the_trials(seed: int) -> None:
    world = World(per_doubling=0.0, deeper=0.0, another_type=0.0, noise=0.02, seed=seed)
    regression = fit(MASTERNET, ACCURACY, world.results(), IMAGES)
    paper = fit(MASTERNET, ACCURACY, world.results(), IMAGES, "paper")
    tried = [(t.index, t.superblock) for t in PLAN if not t.control]
    assert rms(gains(regression, tried)) < 0.6 * 0.02
    assert rms(gains(regression)) < 0.75 * rms(gains(paper))


@cache
def drawn() -> tuple[Network, ...]:
    """Random networks of the space."""
    draw = random.Random(0)
    offered = [[each for place, each in CHOICES if place == index] for index in range(len(OWN))]
    return tuple(SPACE.network(tuple(map(draw.choice, offered)), 32) for _ in range(100))


def agreement(of: Callable[[int, SuperBlock], float], regression: Regression | None = None) -> float:
    """Kendall's tau of random networks ranked by the regression, or by size alone, with what is summed over super-blocks."""

    def summed(network: Network, each: Callable[[int, SuperBlock], float]) -> float:
        return sum(each(index, superblock) for index, superblock in enumerate(network.superblocks))

    ranked = [summed(network, size_of) if regression is None else regression.accuracy_of(network) for network in drawn()]
    return float(kendalltau(ranked, [summed(network, of) for network in drawn()]).statistic)


def ranked_by_size(noise: float, costs: dict[int, float], seeds: Iterable[int]) -> int:
    """Under how many seeds pure noise leaves the ranking to size."""
    worlds = (World(0.0, 0.0, 0.0, costs=costs, noise=noise, seed=seed) for seed in seeds)
    return sum(agreement(size_of, fit(MASTERNET, ACCURACY, world.results(), IMAGES)) >= 0.8 for world in worlds)


@pytest.mark.slow
def test_pure_noise_mostly_leaves_the_ranking_to_size() -> None:
    """In 10 of 15 draws at least; in the others slopes of luck predict left-out trials better than size alone by `PAYS`."""
    draws = ((0.005, 0.0, range(5)), (0.02, -0.02, range(5, 10)), (0.05, -0.05, range(10, 15)))
    assert sum(ranked_by_size(noise, everywhere(cost), seeds) for noise, cost, seeds in draws) >= 10


def test_pure_noise_leaves_the_ranking_to_size_where_fine_tuning_costs_superblocks_differently() -> None:
    assert ranked_by_size(0.005, {0: -0.005, 1: -0.01, 2: -0.015, 3: -0.02}, range(5)) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0005, 0.003])
def test_a_weak_trend_is_seldom_ranked_worse_than_by_size_alone(slope: float) -> None:
    """In one of six draws at most, in which luck is taken for slopes."""
    found = []
    for seed in range(6):
        world = World(slope, slope, 0.0, noise=0.01, seed=seed)
        regression = fit(MASTERNET, ACCURACY, world.results(), IMAGES)
        found.append(agreement(world.gain, regression) - agreement(world.gain))
    assert sum(more >= -0.05 for more in found) >= 5


def test_too_few_trials_are_told_of_one_super_block_or_of_several() -> None:
    one = fit(MASTERNET, ACCURACY, World().results([trial(3, sized(3, width=96))]), IMAGES)
    (gradient,) = one.gradients
    two, none = (
        one.model_copy(update={"gradients": each}) for each in ((gradient.model_copy(update={"index": 0}), gradient), ())
    )
    assert one.lacking == f"super-block 4 as {gradient.block_type} (1 of 2)"
    assert two.lacking.startswith("super-blocks 1 as ")
    assert not none.lacking


@settings(max_examples=5)
@given(st.floats(-0.03, 0.03), st.floats(-0.03, 0.03), st.integers(0, 99))
def test_size_is_never_worth_less_than_the_least(width: float, depth: float, seed: int) -> None:
    world = World(per_doubling=width, deeper=depth, noise=0.01, seed=seed)
    assert fit(MASTERNET, ACCURACY, world.results(FEW), IMAGES).coefficients["size"] >= LEAST


def test_a_type_with_one_trial_borrows_the_slopes_of_the_others() -> None:
    lone = trial(3, sized(3, kind=XX))  # at the MasterNet's own size: it tells nothing of widths and depths
    trials = [t for t in PLAN if (t.index, t.superblock.block_type) != (3, XX)]
    regression = fit(MASTERNET, ACCURACY, World().results([*trials, lone]), IMAGES)
    by_type = {(g.index, g.block_type): g for g in regression.gradients}
    assert (by_type[3, XX].trials, by_type[3, XX].missing) == (1, 2)
    assert by_type[3, DW].missing == 0
    assert by_type[3, XX].per_doubling.value == pytest.approx(0.02, rel=0.05)
    assert by_type[3, XX].at_own_size.value == pytest.approx(-0.03, rel=0.05)


def test_a_superblock_of_few_trials_borrows_the_slopes_of_the_others_in_part() -> None:
    few = [trial(3, sized(3, kind=kind)) for kind in SPACE.block_types(3)[1:]] + [trial(3, sized(3, depth=3))]
    regression = fit(MASTERNET, ACCURACY, World().results([*(t for t in PLAN if t.index != 3 or t.control), *few]), IMAGES)
    mine = [gradient for gradient in regression.gradients if gradient.index == 3]
    assert [gradient.missing for gradient in mine] == [2, 1, 2]  # nobody has to learn what the MasterNet's own type is worth
    assert [gradient.per_doubling.value for gradient in mine] == pytest.approx([0.02] * 3, rel=0.25)


# what it leaves out


@pytest.mark.parametrize("model", MODELS)
def test_failed_and_paired_trials_are_left_out(model: RegressionModel) -> None:
    good = NOISY.results(FEW)
    bad = failed(trial(1, sized(1, width=40, depth=3)), "bug", "out of luck")
    pair = NOISY.result(trial(1, sized(1, width=48))).model_copy(
        update={"accuracy": 0.1, "also": (Change(index=3, superblock=sized(3, depth=1)),)}
    )
    assert fit(MASTERNET, ACCURACY, [bad, *good, pair], IMAGES, model) == fit(MASTERNET, ACCURACY, good, IMAGES, model)


@pytest.mark.parametrize("model", MODELS)
def test_a_superblock_with_a_control_alone_is_left_out(model: RegressionModel) -> None:
    alone = World(costs={2: -0.3}).result(trial(2, OWN[2], control=True))
    regression = fit(MASTERNET, ACCURACY, [*NOISY.results(FEW), alone], IMAGES, model)
    assert regression == fit(MASTERNET, ACCURACY, NOISY.results(FEW), IMAGES, model)
    assert regression.gain(2, sized(2, depth=4)) is None
    assert regression.gain(2, OWN[2]) == 0


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_predicted_of_a_block_type_without_trials(model: RegressionModel) -> None:
    trials = [t for t in FEW if (t.index, t.superblock.block_type) != (3, XX)]
    regression = fit(MASTERNET, ACCURACY, NOISY.results(trials), IMAGES, model)
    for index, superblock in CHOICES:
        known = superblock == OWN[index] or (index in (1, 3) and (index, superblock.block_type) != (3, XX))
        assert (regression.gain(index, superblock) is not None) == known


def test_a_control_is_no_trial_of_the_masternets_own_type_but_belongs_to_what_was_tried() -> None:
    deep = [trial(1, OWN[1], control=True), *(trial(1, sized(1, width=w, depth=3)) for w in (40, 48))]
    (gradient,) = fit(MASTERNET, ACCURACY, NOISY.results(deep), IMAGES).gradients
    assert (gradient.trials, gradient.missing) == (2, 0)
    assert (gradient.depths, gradient.widths) == ((2, 3), (32, 48))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "results",
    [[], [failed(trial(1, sized(1, depth=1)), "bug", "out of luck")], World().results([trial(1, OWN[1], control=True)])],
    ids=["none", "failed", "control"],
)
def test_without_a_finished_perturbation_the_command_that_makes_some_is_named(
    results: list[TrialResult], model: RegressionModel
) -> None:
    with pytest.raises(EvidenceError, match=r"at least one finished trial.*`genet distill RUN`"):
        fit(MASTERNET, ACCURACY, results, IMAGES, model)


# how sure it is


@settings(max_examples=10)
@given(st.sampled_from([0.03, 1.0, 30.0]), st.sampled_from([1.0, -1.0]), st.integers(2, 12), st.integers(0, 999))
def test_left_out_predictions_are_those_of_a_ridge_without_the_row(penalty: float, slope: float, count: int, seed: int) -> None:
    """Size is worth so much, or so little, that it is held at its least with no row or with any."""
    draw = np.random.default_rng(seed)
    rows = [{name: float(draw.normal()) for name in ("1 width", "1 DW k3 width", "depth")} for _ in range(count)]
    rows = [row | {"size": float(draw.uniform(0.5, 1.5) * draw.choice([-1, 1]))} for row in rows]
    changes = np.array([slope * row["size"] for row in rows]) + draw.normal(0, 0.05, size=count)
    weights = draw.uniform(0.2, 2.0, size=count)
    found = fitting.solve(rows, changes, weights, penalty)
    for row in range(count):
        others = np.arange(count) != row
        refit = fitting.solve([rows[other] for other in np.flatnonzero(others)], changes[others], weights[others], penalty)
        predicted = sum(refit.coefficients[name] * value for name, value in rows[row].items())
        assert (found.coefficients["size"] == LEAST) == (refit.coefficients["size"] == LEAST) == (slope < 0)
        assert found.left_out[row] == pytest.approx(predicted, abs=1e-6)


def test_the_left_out_error_is_that_of_fits_without_each_trial(one_penalty: Callable[[float], None]) -> None:
    one_penalty(0.3)
    results = World(per_doubling=0.05, deeper=0.05, noise=0.01).results(FEW)
    regression = fit(MASTERNET, ACCURACY, results, COUNTLESS)
    errors = []
    for result in results:
        others = fit(MASTERNET, ACCURACY, [other for other in results if other != result], COUNTLESS)
        assert min(others.coefficients["size"], regression.coefficients["size"]) > LEAST  # with no trial left out is it held
        if not result.control:
            changed = float(others.trial_vector(result.index, result.superblock) @ [*others.coefficients.values()])
            errors.append(changed - ((result.accuracy or 0.0) - ACCURACY))
    assert len(errors) == 18
    assert regression.left_out_error == pytest.approx(rms(errors), rel=1e-4)


def test_the_papers_left_out_error_is_that_of_fits_without_each_trial(one_penalty: Callable[[float], None]) -> None:
    one_penalty(1.0)  # of the other model, for speed
    results = NOISY.results(FEW)
    errors = []
    for result in results:
        if not result.control:
            others = fit(MASTERNET, ACCURACY, [other for other in results if other != result], IMAGES, "paper")
            (gain,) = gains(others, [(result.index, result.superblock)])
            errors.append(gain - ((result.accuracy or 0.0) - ACCURACY))
    assert fit(MASTERNET, ACCURACY, results, IMAGES, "paper").left_out_error == pytest.approx(rms(errors))


@pytest.mark.parametrize("model", MODELS)
def test_errors_of_both_models_of_size_alone_and_of_no_change_are_told_whichever_is_fitted(model: RegressionModel) -> None:
    regression = noisy_fit(model)
    assert set(regression.left_out_errors) == {"auto", "paper", "size alone", "no change"}
    assert regression.left_out_errors == noisy_fit("auto").left_out_errors
    assert regression.left_out_error == regression.left_out_errors[model]
    changes = [(result.accuracy or 0.0) - ACCURACY for result in NOISY.results() if not result.control]
    assert regression.left_out_errors["no change"] == pytest.approx(rms(changes))


def test_where_accuracies_have_a_trend_left_out_trials_are_predicted_better_than_by_no_change() -> None:
    errors = noisy_fit().left_out_errors
    assert errors["auto"] < 0.6 * errors["no change"]


@pytest.mark.parametrize("penalty", [0.3, fitting.ALONE])
def test_all_left_out_errors_are_over_the_perturbations_that_the_paper_can_predict(
    one_penalty: Callable[[float], None], penalty: float
) -> None:
    """A type's only trial teaches the others, but counts in no error."""
    one_penalty(penalty)
    lone = World(per_doubling=0.05, deeper=0.05).result(trial(3, sized(3, kind=XX, width=96)))
    several = World(per_doubling=0.05, deeper=0.05, noise=0.01).results([t for t in FEW if t.index == 1])
    errors = fit(MASTERNET, ACCURACY, [*several, lone], COUNTLESS).left_out_errors
    changes, missed = [], []
    for result in several:
        if not result.control:
            others = fit(MASTERNET, ACCURACY, [lone, *(other for other in several if other != result)], COUNTLESS)
            predicted = others.trial_vector(result.index, result.superblock) @ list(others.coefficients.values())
            changes.append((result.accuracy or 0.0) - ACCURACY)
            missed.append(predicted - changes[-1])
    assert errors["auto"] == pytest.approx(rms(missed), rel=1e-4)
    assert errors["no change"] == pytest.approx(rms(changes))
    assert errors["paper"] == pytest.approx(fit(MASTERNET, ACCURACY, several, COUNTLESS).left_out_errors["paper"])
    assert (errors["size alone"] == pytest.approx(errors["auto"])) == (penalty == fitting.ALONE)


@pytest.mark.parametrize("noise", [0.003, 0.02])
@pytest.mark.parametrize("tried", ["widths", "depths"])
def test_a_direction_that_was_not_tried_in_a_superblock_is_in_doubt(tried: str, noise: float) -> None:
    """What other super-blocks lend it tells no network from the MasterNet with certainty."""
    if tried == "widths":
        mine, moves = [sized(1, width=width) for width in (16, 24, 40, 48)], [sized(1, depth=3), sized(1, depth=1)]
    else:
        mine, moves = [sized(1, depth=depth) for depth in (1, 3, 4)], [sized(1, width=48), sized(1, width=16)]
    some = [*(t for t in PLAN if t.index != 1 or t.control), *(trial(1, each) for each in mine)]
    lent, learnt = (fit(MASTERNET, ACCURACY, World(noise=noise).results(each), IMAGES) for each in (some, PLAN))
    for moved in moves:
        network = MASTERNET.model_copy(update={"superblocks": (OWN[0], moved, *OWN[2:])})
        found = lent.difference(network, MASTERNET)
        assert found.error > learnt.difference(network, MASTERNET).error > 0
        assert abs(found.value) < 2 * found.error


@pytest.mark.parametrize("noise", [0.003, 0.02])
def test_depths_that_were_tried_nowhere_have_an_error(noise: float) -> None:
    wide = [trial(index, sized(index, width=w)) for index in range(len(OWN)) for w in WIDTHS[index, OWN[index].block_type]]
    wide = [t for t in PLAN if t.control] + [t for t in wide if t.superblock != OWN[t.index]]
    regression = fit(MASTERNET, ACCURACY, World(noise=noise).results(wide), IMAGES)
    assert len(regression.gradients) == len(OWN)
    for gradient in regression.gradients:
        assert gradient.per_block.error > 0.05 * noise


def test_the_papers_slopes_from_two_trials_are_in_doubt() -> None:
    """As many trials as unknowns leave no residual to judge by; what the changes are is then taken for noise."""
    two = [trial(index, each) for index in (1, 3) for kind in SPACE.block_types(index) for each in corners(index, kind)]
    regression = fit(MASTERNET, ACCURACY, NOISY.results(two), IMAGES, "paper")
    assert [(gradient.trials, gradient.missing) for gradient in regression.gradients] == [(2, 0)] * 6
    assert min(g.per_block.error for g in regression.gradients) > 0.001
    assert min(g.per_doubling.error for g in regression.gradients) > 0.001


def corners(index: int, kind: BlockType) -> tuple[SuperBlock, SuperBlock]:
    """Two perturbations that tell both slopes."""
    return sized(index, kind, depth=OWN[index].depth + 1), sized(index, kind, width=OWN[index].width // 2)


def test_the_quality_of_the_superblocks_adds_up_to_the_left_out_error() -> None:
    results = [result for result in NOISY.results() if not result.control]
    regression = fit(MASTERNET, ACCURACY, results, IMAGES)
    assert [(each.index, each.trials) for each in regression.quality] == [(0, 8), (1, 9), (2, 9), (3, 9)]
    squares = sum(each.trials * each.left_out_error**2 for each in regression.quality)
    assert math.sqrt(squares / len(results)) == pytest.approx(regression.left_out_error)
    assert all(0 < each.leverage < 1 for each in regression.quality)


def test_the_quality_of_a_superblock_counts_its_control_and_ranks_its_trials() -> None:
    quality = fit(MASTERNET, ACCURACY, World().results(), IMAGES).quality
    assert [each.trials for each in quality] == [10, 11, 11, 11]
    assert all(each.kendall is not None and each.kendall > 0.8 for each in quality)


def test_no_rank_correlation_is_made_of_two_trials() -> None:
    two = [trial(1, sized(1, depth=3)), trial(1, sized(1, width=48))]
    assert [(q.trials, q.kendall) for q in fit(MASTERNET, ACCURACY, NOISY.results(two), IMAGES).quality] == [(2, None)]


def test_standard_errors_are_halved_at_least_by_four_copies_of_every_trial(one_penalty: Callable[[float], None]) -> None:
    """With four times the penalty, so that every coefficient is the same and only the errors are not."""
    one_penalty(0.1)
    once = fit(MASTERNET, ACCURACY, NOISY.results(), COUNTLESS)
    one_penalty(0.4)
    often = fit(MASTERNET, ACCURACY, NOISY.results() * 4, COUNTLESS)
    assert often.coefficients == pytest.approx(once.coefficients, abs=1e-9)
    found = shares(once, often)
    assert len(found) == 32  # all but the MasterNet's own types at their own size
    assert max(found) < 0.5


def test_standard_errors_shrink_with_more_trials(one_penalty: Callable[[float], None]) -> None:
    """On average: of one network's terms more may be free, where fewer trials held them at the least."""
    one_penalty(0.1)
    luckier = [result for seed in range(4) for result in dataclasses.replace(NOISY, seed=seed).results()]
    found = shares(fit(MASTERNET, ACCURACY, NOISY.results(), IMAGES), fit(MASTERNET, ACCURACY, luckier, IMAGES))
    assert float(np.mean(found)) < 0.9


def shares(before: Regression, after: Regression) -> list[float]:
    """How large the standard errors are after, as shares of those before."""
    names = ("at_own_size", "per_block", "per_doubling")
    both = [
        (getattr(one, name).error, getattr(other, name).error)
        for one, other in zip(before.gradients, after.gradients, strict=True)
        for name in names
    ]
    return [now / then for then, now in both if then > 0]


def test_standard_errors_grow_with_the_noise(one_penalty: Callable[[float], None]) -> None:
    one_penalty(0.1)
    quiet, loud = (fit(MASTERNET, ACCURACY, World(noise=noise).results(), COUNTLESS) for noise in (0.005, 0.02))
    for before, after in zip(quiet.gradients, loud.gradients, strict=True):
        assert after.per_doubling.error > 2 * before.per_doubling.error


@pytest.mark.parametrize("model", MODELS)
@given(one=networks(), other=networks())
def test_the_difference_of_networks_is_that_of_their_gains_and_turns_with_them(
    model: RegressionModel, one: Network, other: Network
) -> None:
    regression = noisy_fit(model)
    forth, back = regression.difference(one, other), regression.difference(other, one)
    summed = [sum(gains(regression, list(enumerate(network.superblocks)))) for network in (one, other)]
    assert forth.value == pytest.approx(summed[0] - summed[1], abs=1e-12)
    assert (forth.value, forth.error) == pytest.approx((-back.value, back.error), abs=1e-12)
    told = regression.vector(one) - regression.vector(other)
    assert (forth.error > 1e-6) == bool(told.any())
    assert model == "paper" or bool(told.any()) == (one != other)  # the paper has no term for a type at the MasterNet's size


@pytest.mark.parametrize("model", MODELS)
@given(network=networks())
def test_a_network_differs_from_itself_by_nothing_without_doubt(model: RegressionModel, network: Network) -> None:
    same = noisy_fit(model).difference(network, network)
    assert (same.value, same.error) == pytest.approx((0.0, 0.0), abs=1e-12)


@given(networks())
def test_beyond_trials_are_exactly_the_superblocks_outside_of_what_was_tried(network: Network) -> None:
    trials = [t for t in PLAN if t.index != 0 and not (t.index == 3 and t.superblock.block_type == XX)][::2]
    trials += [t for t in PLAN if t.control and t.index != 0 and t not in trials]
    regression = fit_once(tuple(trials))
    beyond = []
    for index, superblock in enumerate(network.superblocks):
        alike = [t.superblock for t in trials if t.index == index and t.superblock.block_type == superblock.block_type]
        deep = any(each.depth >= superblock.depth for each in alike) and any(each.depth <= superblock.depth for each in alike)
        wide = any(each.width >= superblock.width for each in alike) and any(each.width <= superblock.width for each in alike)
        if superblock != OWN[index] and not (deep and wide):
            beyond.append(index)
    assert regression.beyond_trials(network) == tuple(beyond)


@cache
def fit_once(trials: tuple[Trial, ...]) -> Regression:
    return fit(MASTERNET, ACCURACY, NOISY.results(trials), IMAGES)


@pytest.mark.parametrize("model", MODELS)
def test_the_regression_comes_back_from_json_as_it_was(model: RegressionModel, tmp_path: Path) -> None:
    regression = noisy_fit(model)
    again = Regression.model_validate_json(regression.model_dump_json())
    regression.save(tmp_path / "regression.json")
    for read in (again, Regression.load(tmp_path / "regression.json")):
        assert read == regression
        assert gains(read) == gains(regression)
        changed = MASTERNET.model_copy(update={"superblocks": (*OWN[:3], sized(3, width=96))})
        assert read.difference(changed, MASTERNET) == regression.difference(changed, MASTERNET)


# the gradients that it shows


@pytest.mark.parametrize("model", MODELS)
def test_pseudo_gradients_say_what_the_gains_say(model: RegressionModel) -> None:
    regression = noisy_fit(model)
    planned = {(index, kind): 0 for index in range(len(OWN)) for kind in SPACE.block_types(index)}
    for t in PLAN:
        planned[t.index, t.superblock.block_type] += not t.control
    assert {(g.index, g.block_type): g.trials for g in regression.gradients} == planned
    for gradient in regression.gradients:
        index, kind = gradient.index, gradient.block_type
        here = sized(index, kind)
        own, deeper, wider = gains(
            regression,
            [(index, here), (index, sized(index, kind, depth=here.depth + 1)), (index, sized(index, kind, 2 * here.width))],
        )
        assert gradient.at_own_size.value == pytest.approx(own, abs=1e-12)
        assert gradient.per_block.value == pytest.approx(deeper - own, abs=1e-12)
        assert gradient.per_doubling.value == pytest.approx(wider - own, abs=1e-12)


# the paper's form


def in_the_papers_form(
    trials: Iterable[Trial], slopes: Callable[[Trial], tuple[float, float]], shift: float
) -> list[TrialResult]:
    """Accuracies linear in the blocks added and in the widths added, in widths of the MasterNet's own."""
    found = []
    for each in trials:
        own, (per_block, per_width) = OWN[each.index], slopes(each)
        moves = per_block * (each.superblock.depth - own.depth) + per_width * (each.superblock.width / own.width - 1)
        found.append(TrialResult(**dict(each), accuracy=ACCURACY + moves + (0.0 if each.control else shift)))
    return found


def slopes_by_group(seed: int) -> Callable[[Trial], tuple[float, float]]:
    def slopes(each: Trial) -> tuple[float, float]:
        draw = random.Random(f"{seed}/{each.index}/{each.superblock.block_type}")
        return draw.uniform(-0.03, 0.03), draw.uniform(-0.03, 0.03)

    return slopes


@pytest.mark.parametrize("seed", range(3))
def test_the_paper_finds_its_own_form_exactly(seed: int, one_penalty: Callable[[float], None]) -> None:
    one_penalty(1.0)  # of the other model, for speed
    trials = [t for t in PLAN if t.index in (2, 3)]  # three different moves of every type: both slopes show
    slopes = slopes_by_group(seed)
    regression = fit(MASTERNET, ACCURACY, in_the_papers_form(trials, slopes, 0.0), IMAGES, "paper")
    for each in trials:
        per_block, per_width = slopes(each)
        kind = f"{each.index + 1} {each.superblock.block_type}"
        assert regression.coefficients[f"{kind} depth"] == pytest.approx(per_block, abs=1e-9)
        assert regression.coefficients[f"{kind} width"] == pytest.approx(per_width, abs=1e-9)
    assert (regression.width, regression.depth, regression.penalty) == ("linear", "linear", 0)


def test_the_paper_predicts_no_change_from_another_type_alone_however_bad_the_type_is() -> None:
    regression = fit(MASTERNET, ACCURACY, World(another_type=-0.2).results(FEW), IMAGES, "paper")
    assert gains(regression, [(1, sized(1, kind=DW)), (3, sized(3, kind=XX))]) == [0.0, 0.0]
    mended = fit(MASTERNET, ACCURACY, World(another_type=-0.2).results(FEW), IMAGES, "auto")
    assert max(gains(mended, [(1, sized(1, kind=DW)), (3, sized(3, kind=XX))])) < -0.15


def test_the_paper_takes_a_cost_of_fine_tuning_for_slopes_which_auto_does_not() -> None:
    free, paid = World(), World(costs=everywhere(-0.05))
    before, after = (fit(MASTERNET, ACCURACY, world.results(FEW), IMAGES, "paper") for world in (free, paid))
    moved = [abs(after.coefficients[name] - before.coefficients[name]) for name in before.coefficients]
    assert max(moved) > 0.02
    assert apart(after, before) > 0.02
    assert apart(*(fit(MASTERNET, ACCURACY, world.results(FEW), IMAGES, "auto") for world in (free, paid))) < 0.0001


def test_the_paper_has_no_left_out_error_where_every_type_has_one_trial() -> None:
    lone = [trial(1, sized(1, depth=3)), trial(1, sized(1, kind=DW, width=48)), trial(3, sized(3, width=96))]
    regression = fit(MASTERNET, ACCURACY, World().results(lone), IMAGES, "paper")
    assert set(regression.left_out_errors) == {"auto", "size alone", "no change"}
    assert regression.left_out_error is None
    assert regression.quality == ()


def test_the_papers_left_out_error_is_made_of_the_types_that_have_several_trials() -> None:
    lone = trial(3, sized(3, kind=XX, width=96))
    several = [t for t in FEW if t.index == 1]
    alone = fit(MASTERNET, ACCURACY, NOISY.results(several), IMAGES, "paper")
    regression = fit(MASTERNET, ACCURACY, NOISY.results([*several, lone]), IMAGES, "paper")
    assert regression.left_out_error == pytest.approx(alone.left_out_error)
    assert [each.index for each in regression.quality] == [1]


# the same again


@pytest.mark.parametrize("model", MODELS)
def test_the_same_trials_make_the_same_regression(model: RegressionModel) -> None:
    assert fit(MASTERNET, ACCURACY, NOISY.results(), IMAGES, model) == noisy_fit(model)


@settings(max_examples=3)
@given(st.sampled_from(MODELS), st.randoms(use_true_random=False))
def test_the_order_of_the_trials_does_not_matter(model: RegressionModel, draw: random.Random) -> None:
    results = NOISY.results()
    shuffled = fit(MASTERNET, ACCURACY, draw.sample(results, len(results)), IMAGES, model)
    ordered = noisy_fit(model)
    assert gains(shuffled) == pytest.approx(gains(ordered), abs=1e-10)
    assert shuffled.left_out_errors == pytest.approx(ordered.left_out_errors, abs=1e-10)
    assert [(g.index, g.block_type) for g in shuffled.gradients] == [(g.index, g.block_type) for g in ordered.gradients]
    assert (shuffled.width, shuffled.depth, shuffled.penalty) == (ordered.width, ordered.depth, ordered.penalty)


def test_one_trial_alone_is_predicted_from_nothing_and_so_as_well_as_by_no_change() -> None:
    regression = fit(MASTERNET, ACCURACY, World().results([trial(3, sized(3, width=96))]), IMAGES)
    assert regression.left_out_error == pytest.approx(regression.left_out_errors["no change"], rel=0.01)
    assert [gradient.missing for gradient in regression.gradients] == [1]
