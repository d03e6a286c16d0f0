"""The plan of the trials: how many, which, and that the draw depends on the seed alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from genet.spec.network import Network
from genet.spec.reader import read_space
from genet.trials.plan import plan_trials
from tests.tiny import tiny_recipe

DIGITS = read_space("digits")
WIDTHS = DIGITS.widths_on_offer()


def test_every_superblock_and_block_type_gets_its_samples() -> None:
    counts = Counter((trial.index, trial.superblock.block_type) for trial in plan_trials(DIGITS, WIDTHS, 32, seed=0))
    assert set(counts) == set(WIDTHS)
    for (index, kind), kept in WIDTHS.items():
        own = DIGITS.superblocks[index]
        possible = len(kept) * len(DIGITS.depths(index)) - (kind == own.block_type)
        assert counts[index, kind] == min(DIGITS.perturb.samples, possible)


def test_no_trial_is_repeated_and_none_is_the_masternet() -> None:
    for seed in range(5):
        trials = plan_trials(DIGITS, WIDTHS, 32, seed)
        assert len({trial.id for trial in trials}) == len(trials)
        assert str(DIGITS.masternet(32)) not in {trial.network for trial in trials}


def test_a_trial_differs_from_the_masternet_in_its_own_superblock_only() -> None:
    for trial in plan_trials(DIGITS, WIDTHS, 32, seed=1):
        child = Network.parse(trial.network)
        differing = [i for i, (a, b) in enumerate(zip(child.superblocks, DIGITS.superblocks, strict=True)) if a != b]
        assert differing == [trial.index]
        assert child.superblocks[trial.index] == trial.superblock
        assert trial.superblock.width in WIDTHS[trial.index, trial.superblock.block_type]
        assert trial.superblock.depth in DIGITS.depths(trial.index)


def test_the_same_seed_plans_the_same_and_another_seed_something_else() -> None:
    assert plan_trials(DIGITS, WIDTHS, 32, seed=3) == plan_trials(DIGITS, WIDTHS, 32, seed=3)
    assert plan_trials(DIGITS, WIDTHS, 32, seed=3) != plan_trials(DIGITS, WIDTHS, 32, seed=4)


def test_the_draw_of_one_block_type_does_not_depend_on_the_others_widths() -> None:
    some = dict(WIDTHS)
    key, *others = some
    for other in others:
        some[other] = some[other][:1]
    mine = [t for t in plan_trials(DIGITS, WIDTHS, 32, 0) if (t.index, t.superblock.block_type) == key]
    assert mine == [t for t in plan_trials(DIGITS, some, 32, 0) if (t.index, t.superblock.block_type) == key]


def test_where_fewer_perturbations_exist_all_are_tried(tmp_path: Path) -> None:
    space = tiny_recipe(tmp_path).space
    narrow = {key: kept[:1] for key, kept in space.widths_on_offer().items()}
    greedy = space.model_copy(update={"perturb": space.perturb.model_copy(update={"samples": 100})})
    trials = plan_trials(greedy, narrow, 16, 0)
    assert len(trials) == sum(len(space.depths(index)) for index, _ in narrow)
