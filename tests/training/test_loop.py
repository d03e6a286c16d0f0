"""The training loop: its rate, what it changes, and that an interruption changes nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from genet.arch.network import Network
from genet.arch.space import SpaceInput
from genet.config.recipe import Data, Schedule, Training
from genet.errors import DataError, NonFiniteLossError
from genet.models.build import GENet, build
from genet.signals import Terminated
from genet.training.accuracy import accuracy
from genet.training.checkpoints import Checkpoints
from genet.training.image_sets import Batch, TensorImages, View
from genet.training.learner import learning_rate
from genet.training.loop import EpochDone, Execution, TrainingInputs, finished, train, training_stages
from genet.training.splits import Splits, load_data

CPU = torch.device("cpu")
TINY = Network.parse("@8x1 | Conv k3 c8 s1 | XX k3 c16 s2 d1 | DW k3 c16 s1 d1 r2 | BL k3 c16 s2 d1 r0.5 | Conv k1 c24 | 10")
SCHEDULE = Schedule(epochs=4, batch=32, learning_rate=0.8, warmup_epochs=1)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(Data(), SpaceInput(channels=1, classes=10, resolutions=(8,)), seed=0)


@pytest.fixture(scope="module")
def few(digits: Splits) -> TensorImages:
    """A hundred digits: enough where nothing has to be learnt."""
    pixels, labels = next(digits.train.batches(100, 8))
    return TensorImages(pixels, labels)


def trained(
    images: TensorImages,
    schedule: Schedule = SCHEDULE,
    seed: int = 0,
    checkpoint: Path | None = None,
    epoch_done: EpochDone | None = None,
) -> GENet:
    module = build(TINY, seed=1)
    train(module, TrainingInputs(images, schedule, 8, seed), Execution(checkpoint=checkpoint), epoch_done)
    return module


def differing(one: nn.Module, other: nn.Module) -> list[str]:
    ones, others = one.state_dict(), other.state_dict()
    return [name for name in ones if not torch.equal(ones[name], others[name])]


# The rate


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.0), (1, 0.2), (2, 0.4), (4, 0.4 * (1 + 2**-0.5) / 2), (6, 0.2), (10, 0.0), (11, 0.0)]
)
def test_the_rate_rises_linearly_over_the_warm_up_and_then_falls_by_half_a_cosine(epoch: float, rate: float) -> None:
    schedule = Schedule(epochs=10, warmup_epochs=2, learning_rate=0.4)
    assert learning_rate(schedule, 256, epoch) == pytest.approx(rate, abs=1e-12)


def test_the_rate_is_given_per_256_images_and_grows_with_the_batch() -> None:
    schedule = Schedule(epochs=10, warmup_epochs=2, learning_rate=0.4)
    rates = [learning_rate(schedule, batch, 3.5) for batch in (64, 256, 512)]
    assert rates == pytest.approx([rates[1] / 4, rates[1], rates[1] * 2])


def test_without_a_warm_up_the_rate_starts_at_its_peak() -> None:
    assert learning_rate(Schedule(epochs=10, learning_rate=0.4), 256, 0.0) == 0.4


def test_the_rate_never_jumps() -> None:
    schedule = Schedule(epochs=10, warmup_epochs=2, learning_rate=0.4)
    rates = [learning_rate(schedule, 256, step / 100) for step in range(1001)]
    assert max(abs(after - before) for before, after in itertools.pairwise(rates)) <= 0.4 / 200 + 1e-12


# What training does


def test_a_tiny_network_learns_the_digits(digits: Splits) -> None:
    losses: list[tuple[int, float]] = []
    module = trained(digits.train, epoch_done=lambda epochs, loss, _: losses.append((epochs, loss)))
    assert [epochs for epochs, _ in losses] == [1, 2, 3, 4]
    assert losses[-1][1] < losses[0][1] / 2
    assert accuracy(module, digits.test, 8, CPU) > 0.6  # chance is 0.1
    assert not module.training


def test_a_tiny_network_learns_in_16_bits_too(few: TensorImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: there copies of the weights are kept within a step, and must not be kept for longer."""
    monkeypatch.setattr("genet.training.learner.number_format", lambda _: torch.bfloat16)
    losses: list[float] = []
    trained(few, SCHEDULE.model_copy(update={"epochs": 15}), epoch_done=lambda _, loss, __: losses.append(loss))
    assert losses[-1] < 0.6 * losses[0]


def test_the_result_depends_on_the_seed_alone(few: TensorImages) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        one = trained(few, seed=3)
        torch.manual_seed(2)
        again = trained(few, seed=3)
    assert differing(one, again) == []
    assert "stages.0.0.conv1_kxk.conv.weight" in differing(one, trained(few, seed=4))


def test_every_epoch_has_an_order_of_its_own(few: TensorImages) -> None:
    seen: list[list[int]] = []

    class Watched(TensorImages):
        def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
            epoch = list(super().batches(batch, resolution, shuffle_seed, skip))
            seen.append([label for _, labels in epoch for label in labels.tolist()])
            yield from epoch

    pixels, labels = next(few.batches(100, 8))
    trained(Watched(pixels, labels))
    assert len({tuple(epoch) for epoch in seen}) == SCHEDULE.epochs


def test_a_set_smaller_than_the_batch_is_trained_on_whole(few: TensorImages) -> None:
    module = trained(few, Schedule(epochs=3, batch=256, learning_rate=0.8))
    assert "head.fc.weight" in differing(module, build(TINY, seed=1))


def test_a_training_of_a_single_step_moves_the_weights(few: TensorImages) -> None:
    module = trained(few, Schedule(epochs=1, batch=100, learning_rate=0.8))
    assert "head.fc.weight" in differing(module, build(TINY, seed=1))


def test_weight_decay_pulls_on_convolutions_and_the_classifier_but_on_no_batch_normalisation_or_bias(few: TensorImages) -> None:
    class FirstEpochDoneError(Exception):
        pass

    def stop(_epochs: int, _loss: float, _accuracy: float) -> None:
        raise FirstEpochDoneError

    modules = []
    for decay in (0.0, 0.5):
        module = build(TINY, seed=1)
        schedule = Schedule(epochs=2, batch=100, learning_rate=0.8, weight_decay=decay)
        with pytest.raises(FirstEpochDoneError, match=r"^$"):
            train(module, TrainingInputs(few, schedule, 8, 0), epoch_done=stop)  # one step, so decay acts by itself alone
        modules.append(module)
    decayed = {name for name in differing(*modules) if "running" not in name}
    assert decayed == {name for name, parameter in build(TINY).named_parameters() if parameter.ndim > 1}


def test_label_smoothing_keeps_the_loss_above_what_it_is_without(few: TensorImages) -> None:
    losses = []
    for smoothing in (0.0, 0.5):
        schedule = SCHEDULE.model_copy(update={"label_smoothing": smoothing, "epochs": 8})
        trained(few, schedule, epoch_done=lambda epochs, loss, _: losses.append(loss) if epochs == 8 else None)
    assert losses[1] > losses[0] + 0.1


# Interruptions


class Stop:
    """Interrupts, as a user does, when so many epochs are done."""

    def __init__(self, after: int) -> None:
        self.after, self.epochs = after, []

    def __call__(self, epochs: int, _loss: float, _accuracy: float) -> None:
        self.epochs.append(epochs)
        if epochs == self.after:
            raise KeyboardInterrupt("stopped by the test")


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_training_interrupted_after_an_epoch_ends_where_an_undisturbed_one_ends(few, tmp_path: Path, after: int) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt, match="stopped by the test"):
        trained(few, checkpoint=checkpoint, epoch_done=Stop(after))
    rest = Stop(-1)
    continued = trained(few, checkpoint=checkpoint, epoch_done=rest)
    assert rest.epochs == list(range(after + 1, 5))
    assert differing(continued, trained(few)) == []


def test_a_training_that_goes_on_still_knows_its_first_epochs(few: TensorImages, tmp_path: Path) -> None:
    inputs, execution = TrainingInputs(few, SCHEDULE, 8, 0), Execution(checkpoint=tmp_path / "checkpoint.pt")
    whole = finished(training_stages(build(TINY, seed=1), inputs, Execution()))
    with pytest.raises(KeyboardInterrupt, match="stopped by the test"):
        train(build(TINY, seed=1), inputs, execution, Stop(2))
    assert finished(training_stages(build(TINY, seed=1), inputs, execution)) == whole
    assert [number for number, *_ in whole] == [1, 2, 3, 4]


def test_a_checkpoint_without_its_epochs_as_earlier_versions_wrote_is_gone_on_from(few: TensorImages, tmp_path: Path) -> None:
    inputs, execution = TrainingInputs(few, SCHEDULE, 8, 0), Execution(checkpoint=tmp_path / "checkpoint.pt")
    whole = finished(training_stages(build(TINY, seed=1), inputs, Execution()))
    for done, known in ((2, whole[2:]), (4, whole[3:])):
        with pytest.raises(KeyboardInterrupt, match="stopped by the test"):
            train(build(TINY, seed=1), inputs, execution, Stop(done))
        checkpoints = Checkpoints(tmp_path / "checkpoint.pt")
        state = checkpoints.read() or {}
        del state["epochs"]
        checkpoints.write(state)
        found = finished(training_stages(build(TINY, seed=1), inputs, execution))
        assert [epoch[:2] for epoch in found] == [epoch[:2] for epoch in known]
        checkpoints.remove()


def test_a_training_interrupted_in_the_middle_of_an_epoch_ends_where_an_undisturbed_one_ends(few, tmp_path: Path) -> None:
    class Interrupted(TensorImages):
        delivered = 0

        def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
            for each in super().batches(batch, resolution, shuffle_seed, skip):
                self.delivered += 1
                if self.delivered == 8:  # three batches are an epoch
                    raise KeyboardInterrupt("stopped by the test")
                yield each

    pixels, labels = next(few.batches(100, 8))
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt, match="stopped by the test"):
        trained(Interrupted(pixels, labels), checkpoint=checkpoint)
    rest = Stop(-1)
    continued = trained(few, checkpoint=checkpoint, epoch_done=rest)
    assert rest.epochs == [3, 4]
    assert differing(continued, trained(few)) == []


def test_a_finished_training_is_not_repeated(few: TensorImages, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    once = trained(few, checkpoint=checkpoint)
    again = Stop(-1)
    twice = trained(few, checkpoint=checkpoint, epoch_done=again)
    assert again.epochs == []
    assert differing(once, twice) == []
    assert not twice.training


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_of_a_damaged_checkpoint_the_one_before_is_gone_on_from(few: TensorImages, tmp_path: Path, place: float) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt, match="stopped by the test"):
        trained(few, checkpoint=checkpoint, epoch_done=Stop(3))
    newest = max(tmp_path.glob("checkpoint.pt*"), key=lambda path: (path.suffix != ".sha256", path.stat().st_mtime_ns))
    flip(newest, place)
    again = Stop(-1)
    module = trained(few, checkpoint=checkpoint, epoch_done=again)
    assert again.epochs == [3, 4]
    assert differing(module, trained(few)) == []


def test_when_both_checkpoints_are_damaged_or_lack_their_checksum_the_training_begins_anew(few, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt, match="stopped by the test"):
        trained(few, checkpoint=checkpoint, epoch_done=Stop(3))
    flip(checkpoint, 0.5)
    checkpoint.with_name("checkpoint.pt.other.sha256").unlink()
    again = Stop(-1)
    assert differing(trained(few, checkpoint=checkpoint, epoch_done=again), trained(few)) == []
    assert again.epochs == [1, 2, 3, 4]


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def test_checkpoints_are_written_in_turn_and_the_furthest_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a.checkpoint")
    assert checkpoints.read() is None
    for step in range(3):
        checkpoints.write({"epoch": 0, "step": step, "loss": 1.0})
    again = Checkpoints(tmp_path / "a.checkpoint")
    assert again.read() == {"epoch": 0, "step": 2, "loss": 1.0}
    again.write({"epoch": 1, "step": 0, "loss": 1.0})
    flip(tmp_path / "a.checkpoint.other", 0.5)  # the newest of the four
    assert Checkpoints(tmp_path / "a.checkpoint").read() == {"epoch": 0, "step": 2, "loss": 1.0}
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_training_told_to_end_saves_its_very_step_and_ends_where_an_undisturbed_one_ends(few, tmp_path: Path) -> None:
    class Told(TensorImages):
        delivered = 0

        def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
            for each in super().batches(batch, resolution, shuffle_seed, skip):
                self.delivered += 1
                if self.delivered == 5:  # the second of the second epoch
                    os.kill(os.getpid(), signal.SIGTERM)
                yield each

    pixels, labels = next(few.batches(100, 8))
    checkpoint, training = (
        tmp_path / "checkpoint.pt",
        Training(**SCHEDULE.model_dump(), ema=0.9, mixup=0.2, random_erase_prob=0.25),
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated):
        trained(Told(pixels, labels), training, checkpoint=checkpoint)
    assert signal.getsignal(signal.SIGTERM) == before
    state = Checkpoints(checkpoint).read()
    assert state is not None
    assert (state["epoch"], state["step"]) == (1, 2)
    assert differing(trained(few, training, checkpoint=checkpoint), trained(few, training)) == []


# Losses that are not finite


@pytest.mark.parametrize("rate", [1e6, 1e15, 1e30, 1e38])
def test_a_loss_that_is_not_finite_stops_the_training_before_any_weight_is_spoilt(few: TensorImages, rate: float) -> None:
    module = build(TINY, seed=1)
    with pytest.raises(
        NonFiniteLossError,
        match=r"epoch \d, step \d+: got a loss of \S+, expected the loss and its gradients to stay finite; lower learning_rate",
    ):
        train(module, TrainingInputs(few, Schedule(epochs=4, batch=32, learning_rate=rate), 8, 0))
    assert [name for name, parameter in module.named_parameters() if not parameter.isfinite().all()] == []


def test_an_image_that_is_not_finite_stops_the_training_at_its_step(few: TensorImages) -> None:
    pixels, labels = next(few.batches(100, 8))
    pixels = pixels.clone()
    pixels[17] = float("nan")
    module = build(TINY, seed=1)
    with pytest.raises(NonFiniteLossError, match=r"failed in epoch 1, step [123]: got a loss of nan,"):
        train(module, TrainingInputs(TensorImages(pixels, labels), Schedule(epochs=1, batch=33, learning_rate=0.1), 8, 0))
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_told_to_end_when_all_is_done_it_still_ends(few: TensorImages) -> None:
    def tell(epochs: int, _loss: float, _accuracy: float) -> None:
        if epochs == SCHEDULE.epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        trained(few, epoch_done=tell)


def test_the_facts_of_a_batch_that_is_not_finite_stand_beside_the_checkpoint(few: TensorImages, tmp_path: Path) -> None:
    pixels, labels = next(few.batches(100, 8))
    pixels = pixels.clone()
    pixels[17, 0, :4] = float("nan")
    checkpoint = tmp_path / "net.checkpoint"
    schedule = Schedule(epochs=1, batch=100, learning_rate=0.1)
    with pytest.raises(NonFiniteLossError, match=r"details of the batch are in .*net\.bad-batch\.json"):
        train(build(TINY, seed=1), TrainingInputs(TensorImages(pixels, labels), schedule, 8, 0), Execution(checkpoint=checkpoint))
    facts = json.loads((tmp_path / "net.bad-batch.json").read_text())
    assert (facts["epoch"], facts["step"], facts["largest_pixel"]) == (1, 1, "nan")
    assert facts["finite_pixels"] == pytest.approx(1 - 32 / 6400)
    assert sorted(facts["labels"]) == sorted(labels.tolist())
    assert not checkpoint.exists()


# What the paper's training adds


def test_every_addition_changes_the_result_and_none_of_them_depends_on_anything_but_the_seed(few: TensorImages) -> None:
    found = {}
    additions: list[dict[str, object]] = [{}, {"mixup": 0.2}, {"ema": 0.5}, {"clip_grad_norm": 0.1}, {"grad_accum_steps": 2}]
    for addition in additions:
        training = Training(**SCHEDULE.model_dump(), **addition)
        found[str(addition)] = trained(few, training)
        assert differing(found[str(addition)], trained(few, training)) == []
    plain = found.pop("{}")
    for module in found.values():
        assert "head.fc.weight" in differing(module, plain)


def test_averaged_weights_lag_behind_and_their_decay_says_how_far(few: TensorImages) -> None:
    start, plain = build(TINY, seed=1), trained(few)

    def way(module: GENet) -> float:
        return (module.head.fc.weight - start.head.fc.weight).norm().item()

    ways = [way(trained(few, Training(**SCHEDULE.model_dump(), ema=decay))) for decay in (0.001, 0.9, 0.999)]
    assert ways[0] == pytest.approx(way(plain), rel=0.01)
    assert ways[2] < ways[1] < ways[0]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole_where_no_batch_is_normalised(few: TensorImages) -> None:
    def plain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))

    modules = []
    for parts in (1, 4):
        module = plain()
        train(module, TrainingInputs(few, Training(**SCHEDULE.model_dump(), grad_accum_steps=parts), 8, 0))
        modules.append(module)
    for one, other in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_clipped_gradient_is_no_longer_than_asked(few: TensorImages) -> None:
    moved = []
    for clip in (None, 1e-3):
        module = build(TINY, seed=1)
        once = Training(epochs=1, batch=100, learning_rate=0.8, momentum=0, weight_decay=0, clip_grad_norm=clip)
        train(module, TrainingInputs(few, once, 8, 0))
        start = dict(build(TINY, seed=1).named_parameters())
        moved.append(torch.cat([(p - start[name]).flatten() for name, p in module.named_parameters()]).norm().item())
    rate = 0.8 * 100 / 256 / 2  # half way down the cosine
    assert moved[1] == pytest.approx(1e-3 * rate, rel=0.01)
    assert moved[0] > 10 * moved[1]


def test_a_teacher_that_is_always_sure_pulls_towards_its_answer(digits: Splits) -> None:
    class Sure(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 50 * nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    def threes(module: nn.Module) -> float:
        pixels, _ = next(digits.test.batches(359, 8))
        with torch.inference_mode():
            return float(module(pixels).softmax(1)[:, 3].mean())

    taught = build(TINY, seed=1)
    train(taught, TrainingInputs(digits.train, SCHEDULE, 8, 0, Sure()))
    assert threes(taught) > 0.4 > 0.2 > threes(trained(digits.train))


def test_erased_images_lose_a_rectangle_and_only_while_training(few: TensorImages) -> None:
    pixels, labels = next(few.batches(100, 8))
    erasing = TensorImages(pixels, labels, View(erasing=1.0))
    torch.testing.assert_close(next(erasing.batches(100, 8))[0], pixels)
    (shown, _), (again, _) = (next(erasing.batches(100, 8, shuffle_seed=5)) for _ in range(2))
    (whole, _) = next(few.batches(100, 8, shuffle_seed=5))
    torch.testing.assert_close(shown, again)
    erased = (shown == 0) & (whole != 0)
    assert 0.5 < erased.flatten(1).any(1).float().mean() <= 1
    assert torch.equal(shown[~erased], whole[~erased])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_parts_of_all_processes_are_the_batch_and_pairs_that_mixup_mixes_stay_together(ranks: int) -> None:
    pixels, labels = torch.zeros(100, 1, 1, 1), torch.arange(100)
    numbered = [TensorImages(pixels, labels, View(rank=rank, ranks=ranks)) for rank in range(ranks)]
    whole = [shown for _, shown in TensorImages(pixels, labels).batches(32, 1, 7)]
    parts = [[labels for _, labels in images.batches(32, 1, 7)] for images in numbered]
    for step, batch in enumerate(whole):
        pairs = {frozenset((a, b)) for a, b in zip(batch.tolist(), batch.flip(0).tolist(), strict=True)}
        mine = [part[step] for part in parts]
        assert sorted(torch.cat(mine).tolist()) == sorted(batch.tolist())
        assert {frozenset((a, b)) for p in mine for a, b in zip(p.tolist(), p.flip(0).tolist(), strict=True)} == pairs
    counted = [labels for images in numbered for _, labels in images.batches(32, 1)]
    assert sorted(torch.cat(counted).tolist()) == list(range(100))


def test_a_batch_that_does_not_divide_among_the_processes_is_refused(few: TensorImages) -> None:
    pixels, labels = next(few.batches(100, 8))
    with pytest.raises(DataError, match=r"must divide evenly among 3 processes.*\(got 32\)"):
        next(TensorImages(pixels, labels, View(ranks=3)).batches(32, 8, 0))


# Accuracy


class Told(nn.Module):
    """Answers what is written in the first pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 10).float()


class Constant(nn.Module):
    """Answers class 3, whatever it is shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()


def written_down(labels: torch.Tensor) -> TensorImages:
    return TensorImages(labels.float().view(-1, 1, 1, 1), labels)


def test_a_model_that_is_always_right_has_accuracy_one_over_several_batches_and_a_short_one() -> None:
    assert accuracy(Told(), written_down(torch.arange(603) % 10), 1, CPU) == 1.0


def test_a_constant_model_has_the_share_of_its_class_as_accuracy() -> None:
    labels = torch.tensor([3] * 150 + [4] * 450)
    assert accuracy(Constant(), written_down(labels), 1, CPU) == 0.25
    assert accuracy(Constant(), written_down(torch.tensor([1, 2])), 1, CPU) == 0.0


def test_taking_the_accuracy_changes_nothing_of_the_module(few: TensorImages) -> None:
    module = build(TINY, seed=1).train()
    accuracy(module, few, 8, CPU)
    assert differing(module, build(TINY, seed=1)) == []
    assert not module.training
