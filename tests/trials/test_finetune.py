"""Trials side by side: each as if it were alone and trained the plain way, and every way in which one can fail."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from genet.arch.network import Network
from genet.arch.space import SearchSpace
from genet.config.recipe import Distill, DistillMode, Recipe, Schedule
from genet.errors import DataError, LostDeviceError
from genet.models.build import GENet, Stage, build
from genet.models.inherit import inherit
from genet.storage import digest
from genet.training.accuracy import accuracy
from genet.training.image_sets import Batch, TensorImages
from genet.training.learner import Learner, learning_rate
from genet.training.loop import TrainingInputs, epoch_seed, train
from genet.training.splits import Splits, load_data
from genet.trials.checkpoint import CheckpointPlace
from genet.trials.context import TrialContext
from genet.trials.finetune import Child, TrialGroup, fine_tune, trained_parts
from genet.trials.plan import Trial, plan_trials
from genet.trials.results import Event, FailureKind, ProgressDelta, TrialResult, settled
from genet.trials.work import FineTune
from tests.fixtures.tiny import tiny_recipe

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = 256
SHORT = Distill(epochs=2, batch=64, learning_rate=0.1, patience=9)
MODES: tuple[DistillMode, ...] = get_args(DistillMode)
EveryMode = pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[pytest.mark.slow] * (mode not in ("features", "whole"))) for mode in MODES]
)
BothSuperblocks = pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.slow), 1])
Outcome = tuple[float | None, tuple[float, ...], FailureKind | None]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def splits(recipe: Recipe) -> Splits:
    """Some hundred digits: enough to learn a little."""
    whole = load_data(recipe.data, recipe.space.input, 0)
    train_set, held_out = next(whole.train.batches(IMAGES, 8)), next(whole.nas_validation.batches(125, 8))
    return Splits(TensorImages(*train_set), TensorImages(*held_out), whole.test)


@pytest.fixture(scope="module")
def weights(recipe: Recipe, splits: Splits) -> dict[str, Tensor]:
    """A MasterNet that knows some digits."""
    module = build(recipe.space.masternet(16), seed=1)
    train(module, TrainingInputs(splits.train, Schedule(epochs=4, batch=32, learning_rate=0.8), 16, 0))
    return module.state_dict()


@pytest.fixture
def context(recipe: Recipe, splits: Splits, weights: dict[str, Tensor]) -> TrialContext:
    return TrialContext(parent(recipe, weights), splits, SHORT, 16, seed=7)


@pytest.fixture(scope="module")
def trials(recipe: Recipe) -> tuple[Trial, ...]:
    return plan_trials(recipe.space, recipe.space.widths_on_offer(), 16, 0, SHORT.model_copy(update={"paired_fraction": 0.3}))


def parent(recipe: Recipe, weights: dict[str, Tensor]) -> GENet:
    module = build(recipe.space.masternet(16))
    module.load_state_dict(weights)
    return module


def changed(context: TrialContext, **distill: Any) -> TrialContext:
    return dataclasses.replace(context, distill=context.distill.model_copy(update=distill))


def trained_on(context: TrialContext, images: TensorImages) -> TrialContext:
    return dataclasses.replace(context, splits=dataclasses.replace(context.splits, train=images))


def of(trials: Sequence[Trial], index: int) -> list[Trial]:
    return [trial for trial in trials if trial.index == index]


def ran(context: TrialContext, trials: Sequence[Trial]) -> dict[str, TrialResult]:
    return by_id(fine_tune(context, trials, CPU))


def by_id(events: Iterator[Event]) -> dict[str, TrialResult]:
    return {event.id: event for event in events if isinstance(event, TrialResult)}


def outcome(result: TrialResult) -> Outcome:
    return result.accuracy, result.curve, result.failure.kind if result.failure else None


def kinds(results: dict[str, TrialResult]) -> list[FailureKind | None]:
    return [result.failure.kind if result.failure else None for result in results.values()]


def walked(events: Sequence[Event]) -> float:
    return sum(event.tasks for event in events if isinstance(event, ProgressDelta))


def shown(images: TensorImages) -> Batch:
    """All images of a set, unshuffled, at their own size."""
    return next(images.batches(images.size, 8))


# Side by side as if alone


@EveryMode
@BothSuperblocks
def test_a_groups_results_are_those_of_each_trial_alone_in_any_order(
    context: TrialContext, trials: tuple[Trial, ...], mode: DistillMode, index: int
) -> None:
    context, group = changed(context, mode=mode), of(trials, index)
    together = ran(context, group)
    backwards = ran(context, group[::-1])
    assert set(together) == {trial.id for trial in group}
    assert len({result.curve for result in together.values()}) > 1
    for trial in group:
        (alone,) = ran(context, [trial]).values()
        assert outcome(together[trial.id]) == outcome(backwards[trial.id]) == outcome(alone)
        assert alone.accuracy == alone.curve[-1]
        assert (alone.group, together[trial.id].group) == (1, len(group))


@EveryMode
def test_the_masternet_stays_as_it_was(
    context: TrialContext, trials: tuple[Trial, ...], weights: dict[str, Tensor], mode: DistillMode
) -> None:
    before = {name: tensor.clone() for name, tensor in context.parent.state_dict().items()}
    for index in (0, 1):
        ran(changed(context, mode=mode), of(trials, index))
    assert [name for name, tensor in context.parent.state_dict().items() if not torch.equal(tensor, before[name])] == []


def meant_parts(rest: nn.Module, trial: Trial, mode: DistillMode) -> list[nn.Module]:
    """What a mode trains, written down by hand for a network of two super-blocks."""
    if mode == "whole":
        return [rest]
    assert isinstance(rest, nn.Sequential)
    stages = [part for part in rest if isinstance(part, Stage)]
    end = [part for part in rest if not isinstance(part, Stage)]  # the classifier is the last, and without a head alone
    first_after = [stage[0] for stage in stages[1:]] + end[:1]
    parts: list[nn.Module] = [stages[0], *(stages[1:] if trial.also else [])]
    if mode != "superblock":
        parts += first_after[:2] if trial.also else first_after[:1]
    return [*parts, end[-1]] if mode == "local" else parts


@EveryMode
@BothSuperblocks
def test_the_parts_of_the_mode_are_trained_and_no_others(
    context: TrialContext, trials: tuple[Trial, ...], mode: DistillMode, index: int
) -> None:
    group = TrialGroup(changed(context, mode=mode), of(trials, index), CPU)
    children = list(group.children)
    before = [[parameter.detach().clone() for parameter in child.rest.parameters()] for child in children]
    list(group.run())
    for child, fresh in zip(children, before, strict=True):
        named = list(child.rest.named_parameters())
        moved = {name for (name, now), then in zip(named, fresh, strict=True) if not torch.equal(now, then)}
        inside = {id(p) for part in meant_parts(child.rest, child.trial, mode) for p in part.parameters()}
        meant = {name for name, parameter in named if id(parameter) in inside}
        assert moved <= meant
        assert {name for name in meant if name.endswith(("conv.weight", "fc.weight"))} <= moved


@EveryMode
def test_the_learners_parts_are_those_of_the_mode(context: TrialContext, trials: tuple[Trial, ...], mode: DistillMode) -> None:
    for trial in trials:
        child = inherit(context.parent, Network.parse(trial.network), trial.seed)
        parts = trained_parts(child, trial, context.distill.model_copy(update={"mode": mode}))
        rest = child if mode == "whole" else child.suffix(trial.index)
        found, meant = ({id(p) for part in some for p in part.parameters()} for some in (parts, meant_parts(rest, trial, mode)))
        assert found == meant


@EveryMode
def test_without_a_head_the_classifier_is_what_reads_the_last_super_block(
    context: TrialContext, recipe: Recipe, mode: DistillMode
) -> None:
    space = recipe.space.model_copy(update={"head": None})
    parent = build(space.masternet(16), seed=1)
    headless = changed(dataclasses.replace(context, parent=parent), mode=mode, epochs=1)
    trial = of(plan_trials(space, space.widths_on_offer(), 16, 0, SHORT), 1)[-1]
    child = inherit(parent, Network.parse(trial.network), trial.seed)
    assert child.reader(1) is child.head
    parts, rest = trained_parts(child, trial, headless.distill), child if mode == "whole" else child.suffix(1)
    found, meant = ({id(p) for part in some for p in part.parameters()} for some in (parts, meant_parts(rest, trial, mode)))
    assert found == meant
    assert kinds(ran(headless, [trial])) == [None]


def test_without_a_head_the_masternets_logits_are_learnt_without_a_single_label(context: TrialContext, recipe: Recipe) -> None:
    space = recipe.space.model_copy(update={"head": None})
    parent = build(space.masternet(16), seed=1)
    train(parent, TrainingInputs(context.splits.train, Schedule(epochs=8, batch=32, learning_rate=0.8), 16, 0))
    pixels, labels = shown(context.splits.train)
    blind = trained_on(dataclasses.replace(context, parent=parent), TensorImages(pixels, torch.full_like(labels, -1)))
    blind = changed(blind, mode="features", epochs=6, learning_rate=0.5)
    planned = of(plan_trials(space, space.widths_on_offer(), 16, 0, SHORT), 1)
    trial = min(planned, key=lambda each: each.superblock.width)
    group, (seen_large, _) = TrialGroup(blind, [trial], CPU), next(context.splits.train.batches(256, 16))
    (child,) = group.children

    @torch.no_grad()
    def apart() -> float:
        shared = group.prefix(seen_large)
        wanted, found = group.targets[trial.last](shared), child.body.train()(shared)
        return nn.functional.kl_div(found.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean").item()

    before = apart()
    assert kinds(by_id(group.run())) == [None]
    assert apart() < 0.5 * before


def still_space(recipe: Recipe, depth: int, perturb: tuple[int, int]) -> SearchSpace:
    """The first super-block does not stride, and may vanish or come in."""
    own = recipe.space.superblocks
    first = own[0].model_copy(update={"stride": 1, "depth": depth})
    ranges = recipe.space.perturb.model_copy(update={"depth": perturb, "trials_per_type": 9})
    return recipe.space.model_copy(update={"superblocks": (first, own[1]), "perturb": ranges})


@EveryMode
@pytest.mark.parametrize(("depth", "perturb"), [(1, (-1, 0)), (0, (0, 1))], ids=["vanished", "control of none"])
def test_where_a_super_block_is_none_the_first_block_after_it_is_trained(
    context: TrialContext, recipe: Recipe, mode: DistillMode, depth: int, perturb: tuple[int, int]
) -> None:
    space = still_space(recipe, depth, perturb)
    parent = build(space.masternet(16), seed=1)
    still = changed(dataclasses.replace(context, parent=parent), mode=mode, epochs=1)
    planned = plan_trials(space, space.widths_on_offer(), 16, 0, SHORT)
    (trial,) = (each for each in planned if each.index == 0 and not each.superblock.depth)
    child = inherit(parent, Network.parse(trial.network), trial.seed)
    first = child.superblocks[1].blocks[0]
    meant = {"whole": [child], "superblock": [first], "features": [first], "local": [first, child.head]}[mode]
    parts = trained_parts(child, trial, still.distill)
    found, wanted = ({id(p) for part in some for p in part.parameters()} for some in (parts, meant))
    assert found == wanted
    assert kinds(ran(still, [trial, *(each for each in planned if each.index == 0 and each.superblock.depth)][:3])) == [None] * 3


# As trained the plain way


def plainly(context: TrialContext, trial: Trial) -> tuple[GENet, list[float]]:
    """The whole child in every step, nothing shared; the part before the super-block in the MasterNet's state."""
    distill, images = context.distill, context.splits.train
    anew = trial.index if trial.fresh else None
    child = inherit(context.parent, Network.parse(trial.network), trial.seed, anew).to(memory_format=torch.channels_last)
    learner = Learner(child, distill, trained_parts(child, trial, distill))
    seed = int(digest(f"{context.seed}/{trial.index}")[:12], 16)
    frozen: list[nn.Module] = [] if distill.mode == "whole" else [child.stem, *child.superblocks[: trial.index]]
    behind = [part for part in child.modules() if not any(part in set(each.modules()) for each in frozen)]
    curve = []

    def in_training() -> None:
        child.train()
        for part in frozen:
            part.eval()

    for epoch in range(distill.epochs):
        in_training()
        steps = images.size // distill.batch
        for step, (pixels, labels) in enumerate(images.batches(distill.batch, 16, epoch_seed(seed, epoch))):
            if distill.mode == "features":
                with torch.no_grad():
                    target = seen(context.parent.eval(), trial, pixels)
                loss = (seen(child, trial, pixels) - target).square().mean() / target.var()
            else:
                loss = nn.functional.cross_entropy(child(pixels), labels, label_smoothing=distill.label_smoothing)
            learner.set_rate(learning_rate(distill, distill.batch, epoch + (step + 0.5) / steps))
            learner.step(loss)
        if epoch + 1 == distill.epochs:
            norms = [part for part in behind if isinstance(part, nn.BatchNorm2d)]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
            with torch.no_grad():
                for pixels, _ in images.batches(distill.batch, 16, epoch_seed(seed, distill.epochs)):
                    child(pixels)
        curve.append(accuracy(child, context.splits.nas_validation, 16, CPU))
    return child, curve


def seen(network: GENet, trial: Trial, pixels: Tensor) -> Tensor:
    """What the first block after the last perturbed super-block answers."""
    x = network.stem(pixels)
    for stage in network.superblocks[: trial.last + 1]:
        x = stage(x)
    return network.reader(trial.last)(x)


@EveryMode
@BothSuperblocks
def test_a_trial_with_a_shared_prefix_is_the_one_trained_the_plain_way(
    context: TrialContext, trials: tuple[Trial, ...], mode: DistillMode, index: int
) -> None:
    context = changed(context, mode=mode, warmup_epochs=1, label_smoothing=0.1)
    group = TrialGroup(context, of(trials, index), CPU)
    children = list(group.children)
    results = by_id(group.run())
    for child in children:
        plain, curve = plainly(context, child.trial)
        expected = plain if mode == "whole" else plain.suffix(index)
        assert results[child.trial.id].curve == pytest.approx(curve, abs=2 / context.splits.nas_validation.size)
        for name, tensor in child.rest.state_dict().items():
            torch.testing.assert_close(
                tensor, expected.state_dict()[name], rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_the_prefix_is_computed_once_per_batch_however_many_trials_share_it(
    context: TrialContext, trials: tuple[Trial, ...]
) -> None:
    computed = []
    context.parent.stem.register_forward_hook(lambda *_: computed.append(1))
    counts = []
    for group in (of(trials, 1)[:1], of(trials, 1)):
        ran(context, group)
        counts.append(len(computed))
        computed.clear()
    assert counts[0] == counts[1] > 0


def test_nothing_is_remembered_for_gradients_of_the_prefix(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    ran(context, of(trials, 1))
    assert all(parameter.grad is None for parameter in context.parent.parameters())


@pytest.mark.slow
def test_features_are_learnt_without_a_single_label(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    pixels, labels = shown(context.splits.train)
    for mode, blind in (("features", True), ("local", False)):
        asked = changed(context, mode=mode)
        right = ran(asked, of(trials, 0))
        nonsense = ran(trained_on(asked, TensorImages(pixels, (labels + 1) % 10)), of(trials, 0))
        assert ([outcome(r) for r in right.values()] == [outcome(r) for r in nonsense.values()]) is blind


def test_features_are_learnt_although_no_label_is_a_class(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    pixels, labels = shown(context.splits.train)
    asked = changed(context, mode="features")
    results = ran(trained_on(asked, TensorImages(pixels, torch.full_like(labels, -1))), of(trials, 0))
    assert kinds(results) == [None] * len(results)


@pytest.mark.slow
def test_learning_features_brings_a_child_closer_to_the_masternet(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    pixels, _ = next(context.splits.train.batches(256, 16))
    asked = changed(context, mode="features", epochs=6, learning_rate=0.5)
    for trial in of(trials, 0):
        target = seen(context.parent.eval(), trial, pixels)
        child = inherit(context.parent, Network.parse(trial.network), trial.seed).train()
        group = TrialGroup(asked, [trial], CPU)
        (learnt,) = group.children
        list(group.run())
        with torch.no_grad():
            before, after = seen(child, trial, pixels), learnt.body.train()(group.prefix(pixels))
        if not trial.control:  # which has nothing to learn
            assert (after - target).square().mean() < 0.8 * (before - target).square().mean()


def test_statistics_of_all_batch_normalisations_are_taken_anew(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    group = TrialGroup(changed(context, mode="features"), of(trials, 0), CPU)
    children = list(group.children)
    list(group.run())
    for child in children:
        assert isinstance(child.rest, nn.Sequential)
        norm, before = child.rest[-2].bn, context.parent.final_conv.bn  # far behind what was trained
        assert not torch.equal(norm.running_mean, before.running_mean)
        norms = [part for part in child.rest.modules() if isinstance(part, nn.BatchNorm2d)]
        assert {int(part.num_batches_tracked) for part in norms} == {IMAGES // SHORT.batch}
        assert {part.momentum for part in norms} == {0.1}


def test_the_search_seed_decides_batches_and_so_the_results(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    one, other = (ran(dataclasses.replace(context, seed=seed), of(trials, 0)) for seed in (1, 2))
    assert [r.curve for r in one.values()] != [r.curve for r in other.values()]


def test_every_trial_is_charged_for_its_time_and_what_is_shared_is_divided(
    context: TrialContext, trials: tuple[Trial, ...]
) -> None:
    results = list(ran(context, of(trials, 1)).values())
    for result in results:
        assert min(result.seconds.images, result.seconds.prefix, result.seconds.training, result.seconds.validation) > 0
    for shared in ("images", "prefix"):
        shares = [getattr(result.seconds, shared) for result in results]
        assert max(shares) < 2 * min(shares)


# Early ends


def test_a_trial_that_has_settled_ends_after_one_more_epoch(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    still = changed(context, epochs=30, patience=2, learning_rate=1e-12, mode="superblock")
    events = list(fine_tune(still, of(trials, 1), CPU))
    control = next(result for result in by_id(iter(events)).values() if result.control)
    assert settled(control.curve[:-1], 2), "the last epoch is the one in which its rate falls to zero"
    assert not settled(control.curve[:-2], 2)
    assert control.accuracy == control.curve[-1]
    assert max(len(result.curve) for result in by_id(iter(events)).values()) < 30
    assert walked(events) == pytest.approx(len(of(trials, 1)))


def test_a_trial_goes_to_its_last_epoch_where_its_patience_is_longer(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    still = changed(context, epochs=4, patience=4, learning_rate=1e-12)
    assert {len(result.curve) for result in ran(still, of(trials, 1)).values()} == {4}


@pytest.mark.slow
def test_settling_early_is_each_trials_own_affair(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    asked = changed(context, epochs=8, patience=1)
    together = ran(asked, of(trials, 0))
    lengths = {len(result.curve): id for id, result in together.items()}
    assert len(lengths) > 1
    for trial in (trial for trial in of(trials, 0) if trial.id in lengths.values()):
        assert outcome(ran(asked, [trial])[trial.id]) == outcome(together[trial.id])


def test_the_rate_of_a_settled_trial_falls_from_the_schedules_to_zero_within_an_epoch(
    context: TrialContext, trials: tuple[Trial, ...]
) -> None:
    schedule = context.distill.model_copy(update={"epochs": 10})
    child = Child(trials[0], context, CPU)
    assert child.rate(schedule, 128, 3.5) == learning_rate(schedule, 128, 3.5)
    child.cools_from = 4
    rates = [child.rate(schedule, 128, epoch) for epoch in (4.0, 4.5, 5.0)]
    assert rates == pytest.approx([learning_rate(schedule, 128, 4), learning_rate(schedule, 128, 4) / 2, 0.0])


# Failures


@pytest.fixture
def poisoned(context: TrialContext) -> TrialContext:
    """In the MasterNet's first super-block a weight is infinite: its own kind inherits it, another kind does not.

    Trials learn labels, for the MasterNet's features are infinite too.
    """
    with torch.no_grad():
        context.parent.superblocks[0].blocks[0].convs[0].conv.weight[:] = float("inf")
    return changed(context, mode="local")


def test_a_loss_that_is_not_finite_fails_its_own_trial_only(poisoned: TrialContext, trials: tuple[Trial, ...]) -> None:
    group = of([trial for trial in trials if not trial.also], 0)
    results = ran(poisoned, group)
    for trial in group:
        if trial.superblock.type == "XX" and not trial.fresh:  # it inherits what is poisoned
            assert results[trial.id].accuracy is None
            assert results[trial.id].failure is not None
            assert results[trial.id].failure.kind == "non-finite loss"
            assert "in epoch 1, step 1" in results[trial.id].failure.message
        else:
            assert results[trial.id].accuracy is not None
            assert outcome(results[trial.id]) == outcome(ran(poisoned, [trial])[trial.id])
    assert set(kinds(results)) == {None, "non-finite loss"}


@EveryMode
def test_an_absurd_rate_fails_all_trials_and_gives_none_an_accuracy(
    context: TrialContext, trials: tuple[Trial, ...], mode: DistillMode
) -> None:
    results = ran(changed(context, mode=mode, learning_rate=1e30, epochs=3), of(trials, 0))
    assert kinds(results) == ["non-finite loss"] * len(of(trials, 0))
    assert all(result.accuracy is None for result in results.values())


def test_a_trial_over_its_time_limit_is_given_up_and_says_so(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    results = ran(changed(context, time_limit_s=1e-9), of(trials, 1))
    assert kinds(results) == ["time limit"] * len(of(trials, 1))
    for result in results.values():
        assert result.accuracy is None
        assert result.failure is not None
        assert "did not end within 1e-09 s" in result.failure.message
        assert result.seconds.total > 1e-9


def test_a_generous_time_limit_changes_nothing(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    limited, free = ran(changed(context, time_limit_s=1e6), of(trials, 1)), ran(context, of(trials, 1))
    assert [outcome(result) for result in limited.values()] == [outcome(result) for result in free.values()]


class Faulty(TensorImages):
    """Raises at one of its batches, counted over all epochs."""

    def __init__(self, images: TensorImages, fault: Exception, at: int) -> None:
        super().__init__(*shown(images))
        self._fault, self._left = fault, at

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        for each in super().batches(batch, resolution, shuffle_seed, skip):
            if self._left == 0:
                raise self._fault
            self._left -= 1
            yield each


def faulty(context: TrialContext, fault: Exception, at: int = 2) -> FineTune:
    images = context.splits.train
    assert isinstance(images, TensorImages)
    return FineTune(trained_on(context, Faulty(images, fault, at)), "cpu")


def test_an_image_that_cannot_be_read_fails_the_whole_group_by_its_data(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    results = by_id(faulty(context, DataError("cat.png: must be an image"))(of(trials, 0)))
    assert kinds(results) == ["data"] * len(of(trials, 0))
    assert {result.failure.message for result in results.values() if result.failure} == {"cat.png: must be an image"}


def test_a_fault_of_the_program_is_told_with_its_place(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    results = by_id(faulty(context, ZeroDivisionError("division by zero\nmore"))(of(trials, 0)))
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "raise self._fault" in text)
    assert kinds(results) == ["bug"] * len(of(trials, 0))
    messages = {result.failure.message for result in results.values() if result.failure}
    assert messages == {f"ZeroDivisionError: division by zero (test_finetune.py:{line})"}


def test_a_trial_that_has_its_result_keeps_it_when_the_rest_of_its_group_fails(
    poisoned: TrialContext, trials: tuple[Trial, ...]
) -> None:
    group = of([trial for trial in trials if not trial.also], 0)
    results = by_id(faulty(poisoned, DataError("cat.png"), at=5)(group))
    expected = {trial.id: "non-finite loss" if trial.superblock.type == "XX" and not trial.fresh else "data" for trial in group}
    assert {id: result.failure.kind for id, result in results.items() if result.failure} == expected


@pytest.mark.parametrize("fault", [LostDeviceError("gone"), RuntimeError("CUDA error: an illegal memory access")])
def test_a_lost_device_is_no_trials_failure(context: TrialContext, trials: tuple[Trial, ...], fault: Exception) -> None:
    with pytest.raises(LostDeviceError, match="the device stopped answering"):
        list(faulty(context, fault)(of(trials, 0)))


def under_way() -> int:
    """Trials whose networks are in memory."""
    return sum(type(each) is Child for each in gc.get_objects())


class Crowded(TensorImages):
    """Has no memory for more than so many trials at once."""

    def __init__(self, images: TensorImages, room: int) -> None:
        super().__init__(*shown(images))
        gc.collect()
        self._room = room + under_way()

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        for number, each in enumerate(super().batches(batch, resolution, shuffle_seed, skip)):
            if number == 1 and under_way() > self._room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield each


def crowded(context: TrialContext, room: int) -> FineTune:
    images = context.splits.train
    assert isinstance(images, TensorImages)
    return FineTune(trained_on(context, Crowded(images, room)), "cpu")


@pytest.mark.slow
def test_a_group_without_room_is_run_in_two_halves_with_the_same_results(
    context: TrialContext, trials: tuple[Trial, ...]
) -> None:
    group = of(trials, 0)[:5]
    results = by_id(crowded(context, room=3)(group))
    expected = ran(context, group)
    assert {id: outcome(result) for id, result in results.items()} == {id: outcome(r) for id, r in expected.items()}
    assert [results[trial.id].group for trial in group] == [3, 3, 3, 2, 2]


@pytest.mark.slow
def test_a_group_without_room_is_halved_until_it_fits(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    group = of(trials, 0)[:5]
    results = by_id(crowded(context, room=2)(group))
    assert [results[trial.id].group for trial in group] == [2, 2, 1, 2, 2]
    assert [outcome(results[trial.id]) for trial in group] == [outcome(ran(context, [trial])[trial.id]) for trial in group]


def test_a_single_trial_without_room_fails_by_memory(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    (result,) = by_id(crowded(context, room=0)(of(trials, 0)[:1])).values()
    assert outcome(result) == (None, (), "out of memory")
    assert result.failure is not None
    assert "lower distill.batch" in result.failure.message


def test_memory_that_a_processor_lacks_is_known_by_its_words(context: TrialContext, trials: tuple[Trial, ...]) -> None:
    fault = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    results = by_id(faulty(context, fault)(of(trials, 0)[:2]))
    assert kinds(results) == ["out of memory"] * 2


# Strides


STRIDES = {
    "all end well": lambda context: FineTune(context, "cpu"),
    "some lose their loss": lambda context: FineTune(spoilt(context), "cpu"),
    "all lose their loss": lambda context: FineTune(changed(context, learning_rate=1e30, epochs=3), "cpu"),
    "time is over": lambda context: FineTune(changed(context, time_limit_s=1e-9), "cpu"),
    "settled": lambda context: FineTune(changed(context, epochs=9, patience=1), "cpu"),
    "no image": lambda context: faulty(context, DataError("cat.png"), at=5),
    "a bug": lambda context: faulty(context, ZeroDivisionError("x"), at=0),
    "in halves": partial(crowded, room=4),
    "in halves, one in vain": partial(crowded, room=3),
    "no room at all": partial(crowded, room=0),
}


def spoilt(context: TrialContext) -> TrialContext:
    with torch.no_grad():
        context.parent.superblocks[0].blocks[0].convs[0].conv.weight[:] = float("inf")
    return changed(context, mode="local")


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how not in ("some lose their loss", "a bug"))) for how in STRIDES]
)
def test_strides_add_up_to_the_trials_and_every_trial_has_one_result(
    context: TrialContext, trials: tuple[Trial, ...], how: str
) -> None:
    group = of(trials, 0)
    events = list(STRIDES[how](context)(group))
    assert sorted(event.id for event in events if isinstance(event, TrialResult)) == sorted(trial.id for trial in group)
    assert walked(events) == pytest.approx(len(group))


def test_the_work_goes_to_another_device_with_the_same_context(context: TrialContext) -> None:
    assert FineTune(context, "cpu").on("cuda:1") == FineTune(context, "cuda:1")


# Checkpoints


class UserStops(BaseException):
    """Stands for Ctrl-C."""


class Stopped(TensorImages):
    """Is stopped when so many training batches were given, be it at the end of an epoch."""

    def __init__(self, images: TensorImages, after: int) -> None:
        super().__init__(*shown(images))
        self._left = after

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        for each in super().batches(batch, resolution, shuffle_seed, skip):
            if self._left == 0:
                raise UserStops
            self._left -= 1
            yield each
        if self._left == 0:
            raise UserStops


def stopped(context: TrialContext, after: int) -> TrialContext:
    images = context.splits.train
    assert isinstance(images, TensorImages)
    return trained_on(context, Stopped(images, after))


def saving(context: TrialContext, folder: Path, mode: DistillMode = "features") -> TrialContext:
    return dataclasses.replace(changed(context, mode=mode), folder=folder, checkpoint_every_s=0.0)


@EveryMode
@pytest.mark.parametrize("after", [5, *(pytest.param(after, marks=pytest.mark.slow) for after in (1, 3, 4, 8))])
def test_trials_that_go_on_from_any_step_end_as_undisturbed_ones(
    context: TrialContext, trials: tuple[Trial, ...], tmp_path: Path, mode: DistillMode, after: int
) -> None:
    context, steps = changed(context, mode=mode), IMAGES // SHORT.batch
    expected = ran(context, of(trials, 1))
    group = TrialGroup(stopped(saving(context, tmp_path, mode), after), of(trials, 1), CPU)
    with pytest.raises(UserStops):
        list(group.run())
    place = CheckpointPlace((after - 1) // steps, (after - 1) % steps + 1)
    group.checkpoints.write({child.trial: child.state for child in group.children}, place)
    events = list(FineTune(saving(context, tmp_path, mode), "cpu")(of(trials, 1)))
    assert {id: outcome(r) for id, r in by_id(iter(events)).items()} == {id: outcome(r) for id, r in expected.items()}
    assert walked(events) == pytest.approx(len(expected))


def test_a_group_that_is_stopped_goes_on_from_what_it_saved_by_itself(
    context: TrialContext, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    group = of(trials, 0)[:3]
    expected = ran(context, group)
    with pytest.raises(UserStops):
        list(FineTune(stopped(saving(context, tmp_path), 7), "cpu")(group))
    saved = {path.name.split("-")[0] for path in tmp_path.glob("*.checkpoint")}
    assert saved == {trial.id for trial in group}
    given = Stopped(context.splits.train, 10**6)  # type: ignore[arg-type]
    again = by_id(FineTune(trained_on(saving(context, tmp_path), given), "cpu")(group))
    assert {id: outcome(r) for id, r in again.items()} == {id: outcome(r) for id, r in expected.items()}
    assert 10**6 - given._left < 8 + 4, "batches before the checkpoint are not learnt again"


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_trial_whose_checkpoint_is_lost_begins_anew_and_the_others_go_on(
    context: TrialContext, trials: tuple[Trial, ...], tmp_path: Path, loss: str
) -> None:
    group = of(trials, 0)[:3]
    expected = ran(context, group)
    with pytest.raises(UserStops):
        list(FineTune(stopped(saving(context, tmp_path), 5), "cpu")(group))
    lost = min(tmp_path.glob("*.checkpoint"))
    if loss == "gone":
        lost.unlink()
    else:
        data = bytearray(lost.read_bytes())
        data[len(data) // 2] ^= 1
        lost.write_bytes(data)
    again = by_id(FineTune(saving(context, tmp_path), "cpu")(group))
    assert {id: outcome(r) for id, r in again.items()} == {id: outcome(r) for id, r in expected.items()}
    assert sorted(result.group for result in again.values()) == [1, *[len(expected) - 1] * (len(expected) - 1)]


def test_without_a_folder_nothing_is_saved(
    context: TrialContext, trials: tuple[Trial, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran(dataclasses.replace(context, checkpoint_every_s=0.0), of(trials, 1))
    assert list(tmp_path.iterdir()) == []
