"""What a GPU would do, on a pretend one: no device is mixed with another, no step waits, and all ends as on the processor."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from genet.arch.network import Network
from genet.arch.space import SpaceInput
from genet.cli import main as cli
from genet.config.augment import Augment
from genet.config.reader import read_recipe
from genet.config.recipe import Data, Distill, DistillMode, Measure, Schedule, Training
from genet.device import open_device, read_card
from genet.errors import DeviceError, LostDeviceError, NoKernelError, NonFiniteLossError
from genet.latency.table import Setting
from genet.latency.timing.meter import DeviceMeter
from genet.latency.workload import read_workload
from genet.models.build import GENet, build
from genet.pipeline.context import open_run
from genet.pipeline.distill import run_planned_trials
from genet.pipeline.fit import fit_trials
from genet.pipeline.master import train_master
from genet.pipeline.profile import check_job, profile_device
from genet.pipeline.race import run_race
from genet.pipeline.select import select_networks
from genet.progress import Progress
from genet.training.accuracy import accuracy
from genet.training.image_sets import Batch, TensorImages, View
from genet.training.loop import Execution, TrainingInputs, train
from genet.training.splits import Splits, load_data
from genet.trials.context import TrialContext
from genet.trials.plan import Trial, plan_trials
from genet.trials.results import TrialResult
from genet.trials.work import FineTune
from tests.fixtures.heard import Heard
from tests.fixtures.pretend_gpu import CUDA, label, pretend_gpu
from tests.fixtures.tiny import RECIPE, tiny_recipe, write_recipe

SLOW = pytest.mark.slow
CPU = torch.device("cpu")
TINY = Network.parse("@16x1 | Conv k3 c8 s2 | XX k3 c16 s2 d1 | DW k3 c24 s2 d1 r2 | Conv k1 c32 | 10")
PLAIN = Schedule(epochs=2, batch=64, learning_rate=0.4, warmup_epochs=1)
EVERYTHING = Training(
    **PLAIN.model_dump(exclude={"label_smoothing"}),
    label_smoothing=0.1,
    random_erase_prob=0.3,
    mixup=0.2,
    ema=0.8,
    clip_grad_norm=2.0,
    grad_accum_steps=2,
)
LOOK = Augment(crop=2, flip=True, cutout=3)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_data(Data(), SpaceInput(channels=1, classes=10, resolutions=(16,)), 0, View(LOOK, 0.3))


def few(digits: Splits, count: int) -> TensorImages:
    pixels, labels = next(digits.train.batches(count, 16))
    return TensorImages(pixels, labels, View(LOOK, 0.3))


def trained(images: TensorImages, schedule: Schedule, device: torch.device, checkpoint: Path | None = None) -> GENet:
    module = build(TINY, seed=1)
    teacher = build(TINY, seed=5) if isinstance(schedule, Training) else None
    train(module, TrainingInputs(images, schedule, 16, 0, teacher), Execution(device, checkpoint))
    return module


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in module.state_dict().items()}


def differing(one: nn.Module, other: nn.Module) -> list[str]:
    theirs = weights(other)
    return [name for name, value in weights(one).items() if not torch.equal(value, theirs[name])]


# The pretend GPU itself


def test_it_refuses_what_cuda_refuses() -> None:
    with pretend_gpu() as seen:
        there = torch.ones(3, device="cuda")
        assert (there.device, (there + 1).device, there.cpu().device) == (CUDA, CUDA, CPU)
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        seen.waits.clear()
        assert bool((there * 2).sum() > 1)
        assert dict(seen.waits) == {"__bool__": 1}
    assert not torch.cuda.is_available() or torch.cuda.get_device_name() != "pretend GPU"


# Training


@pytest.mark.parametrize("schedule", [PLAIN, EVERYTHING])
def test_a_training_with_every_option_ends_on_a_gpu_as_on_the_processor(digits: Splits, schedule: Schedule) -> None:
    images = few(digits, 640)
    expected = trained(images, schedule, CPU)
    with pretend_gpu(half=False) as seen:
        found = trained(images, schedule, CUDA)
        assert {label(value) for value in found.state_dict().values()} == {CUDA}
        assert seen.graphs == 1
        assert accuracy(found, digits.test, 16, CUDA) == accuracy(expected, digits.test, 16, CPU)
    assert differing(found, expected) == []


@pytest.mark.parametrize("schedule", [pytest.param(PLAIN, marks=SLOW), EVERYTHING])
def test_no_step_waits_for_the_gpu(digits: Splits, schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genet.training.learner.STEPS_UNREAD", 8)

    def waits(steps: int) -> int:
        with pretend_gpu() as seen:
            trained(few(digits, 8 * steps), schedule.model_copy(update={"batch": 8}), CUDA)
        return seen.waits.total()

    assert waits(8) == waits(5)
    assert waits(9) == waits(5) + PLAIN.epochs  # each epoch is read once more


def test_training_in_16_bits_learns(digits: Splits) -> None:
    with pretend_gpu():
        module = build(TINY, seed=1)
        images = few(digits, 640).with_view(View())
        loss = train(module, TrainingInputs(images, PLAIN.model_copy(update={"epochs": 8}), 16, 0), Execution(CUDA))
    assert loss < 1.0


class Spoilt(TensorImages):
    """One image of the 56th batch of an epoch is not finite."""

    def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
        for number, (pixels, labels) in enumerate(super().batches(batch, resolution, shuffle_seed, skip), start=skip):
            if number == 55:
                pixels = pixels.clone()
                pixels[0, 0, 0, 0] = torch.inf
            yield pixels, labels


def test_a_bad_step_between_two_reads_spoils_nothing_and_is_named(digits: Splits, tmp_path: Path) -> None:
    pixels, labels = next(digits.train.batches(960, 16))
    schedule, said, kept = PLAIN.model_copy(update={"batch": 16}), [], []
    for device in (CPU, CUDA):
        checkpoint = tmp_path / device.type / "net.checkpoint"
        module = build(TINY, seed=1)
        with pretend_gpu(half=False):
            images = Spoilt(pixels, labels) if device == CPU else _on_gpu(Spoilt(pixels, labels))
            with pytest.raises(NonFiniteLossError) as fault:
                train(module, TrainingInputs(images, schedule, 16, 0), Execution(device, checkpoint=checkpoint))
        said.append(str(fault.value).replace(str(checkpoint.parent), ""))
        kept.append((checkpoint.with_suffix(".bad-batch.json").read_text(), weights(module)))
    assert said[0] == said[1]
    assert "epoch 1, step 56" in said[0]
    (facts, there), (same, here) = kept
    assert facts == same
    parameters = [name for name, _ in build(TINY).named_parameters()]
    assert all(torch.equal(there[name], here[name]) and there[name].isfinite().all() for name in parameters)


def _on_gpu(images: TensorImages) -> TensorImages:
    """A subclass's images on the device, for `on` returns plain ones."""
    images._images, images._labels, images._keys = (each.to(CUDA) for each in (images._images, images._labels, images._keys))
    return images


@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param(2, marks=SLOW), 30])
def test_a_training_told_to_end_goes_on_to_where_an_undisturbed_one_ends(digits: Splits, tmp_path: Path, step: int) -> None:
    schedule = EVERYTHING.model_copy(update={"batch": 16})
    images, checkpoint = few(digits, 640), tmp_path / "net.checkpoint"

    class Told(TensorImages):
        left = step

        def batches(self, batch: int, resolution: int, shuffle_seed: int | None = None, skip: int = 0) -> Iterator[Batch]:
            for each in super().batches(batch, resolution, shuffle_seed, skip):
                if Told.left == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                Told.left -= 1
                yield each

    with pretend_gpu(half=False):
        undisturbed = trained(images, schedule, CUDA)
        told = _on_gpu(Told(images._images, images._labels, images._view))
        with pytest.raises(BaseException, match=r"^$"):
            trained(told, schedule, CUDA, checkpoint=checkpoint)
        assert checkpoint.with_suffix(".preempted.json").exists()
        found = trained(images, schedule, CUDA, checkpoint=checkpoint)
    assert differing(found, undisturbed) == []


def test_a_graph_is_gone_with_the_training_that_recorded_it(digits: Splits) -> None:
    gc.disable()  # which would free it at any time, while another is recorded too
    try:
        with pretend_gpu() as seen:
            trained(few(digits, 640), PLAIN, CUDA)
            assert (seen.graphs, seen.alive) == (1, 0)
    finally:
        gc.enable()


# What a GPU may refuse


def crowded(fits: int) -> GENet:
    return _hooked(lambda images: len(images) > fits, torch.OutOfMemoryError("CUDA out of memory"))


def _hooked(wrong: Callable[[Tensor], bool], fault: Exception) -> GENet:
    """The tiny network; it raises when the images are wrong for it."""

    def check(_module: nn.Module, images: tuple[Tensor, ...]) -> None:
        if wrong(images[0]):
            raise fault

    module = build(TINY, seed=1)
    module.register_forward_pre_hook(check)
    return module


@pytest.mark.parametrize(
    ("fits", "named"),
    [(45, "batch 44 does"), pytest.param(16, "batch 16 does", marks=SLOW), pytest.param(1, "none does", marks=SLOW)],
)
def test_a_batch_that_does_not_fit_is_refused_with_the_largest_that_does(digits: Splits, fits: int, named: str) -> None:
    with pretend_gpu(), pytest.raises(DeviceError, match=named):
        train(crowded(fits), TrainingInputs(few(digits, 640), PLAIN, 16, 0), Execution(CUDA))


def test_a_lost_device_is_one_line_and_the_training_goes_on_later(digits: Splits, tmp_path: Path) -> None:
    images, checkpoint, steps = few(digits, 640), tmp_path / "net.checkpoint", [0]

    def gone(_images: Tensor) -> bool:
        steps[0] += 1
        return steps[0] == 14

    with pretend_gpu(half=False):
        lost = _hooked(gone, RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"))
        with pytest.raises(LostDeviceError, match=r"stopped answering.*the same command resumes from the last checkpoint"):
            train(lost, TrainingInputs(images, PLAIN, 16, 0), Execution(CUDA, checkpoint=checkpoint))
        found = trained(images, PLAIN, CUDA, checkpoint=checkpoint)
        assert differing(found, trained(images, PLAIN, CUDA)) == []


def test_a_gpu_without_deterministic_kernels_trains_without_them_and_says_so(digits: Splits) -> None:
    missing = RuntimeError("GET was unable to find an engine to execute this computation")
    said = Heard()
    with pretend_gpu(half=False):
        module = _hooked(lambda _: torch.backends.cudnn.deterministic, missing)
        train(module, TrainingInputs(few(digits, 640), PLAIN, 16, 0), Execution(CUDA, progress=said))
        assert differing(module, trained(few(digits, 640), PLAIN, CUDA)) == []
        assert [line for line in said.lines if "lacks deterministic kernels" in line]
        without = _hooked(lambda _: True, missing)
        with pytest.raises(NoKernelError, match="unable to find an engine"):
            train(without, TrainingInputs(few(digits, 640), PLAIN, 16, 0), Execution(CUDA))


def test_a_network_that_waits_for_the_gpu_is_trained_step_by_step(digits: Splits) -> None:
    said = Heard()
    with pretend_gpu(half=False):
        waiting = _hooked(lambda images: images.abs().max().item() > 1e9, RuntimeError("never"))
        train(waiting, TrainingInputs(few(digits, 640), PLAIN, 16, 0), Execution(CUDA, progress=said))
        assert differing(waiting, trained(few(digits, 640), PLAIN, CUDA)) == []
    assert [line for line in said.lines if "could not be recorded as a CUDA graph" in line]


def test_a_step_that_hangs_on_the_host_is_caught_by_the_pretend_gpu(digits: Splits) -> None:
    calls = [0]

    def other_every_time(images: Tensor) -> bool:
        calls[0] += 1
        images.mul(calls[0])
        return False

    with pretend_gpu(), pytest.raises(AssertionError, match="the work would now launch other kernels"):
        train(_hooked(other_every_time, RuntimeError("never")), TrainingInputs(few(digits, 640), PLAIN, 16, 0), Execution(CUDA))


# Trials


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> TrialContext:
    recipe = tiny_recipe(tmp_path_factory.mktemp("recipe"))
    whole = load_data(recipe.data, recipe.space.input, 0)
    train_set, held_out = (next(images.batches(count, 8)) for images, count in ((whole.train, 512), (whole.nas_validation, 250)))
    splits = Splits(TensorImages(*train_set), TensorImages(*held_out), whole.test)
    module = build(recipe.space.masternet(16), seed=1)
    train(module, TrainingInputs(splits.train, Schedule(epochs=2, batch=64, learning_rate=0.4), 16, 0))
    return TrialContext(module, splits, Distill(epochs=2, batch=64, learning_rate=0.1, patience=1), 16, seed=7)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, ...]:
    recipe = tiny_recipe(tmp_path_factory.mktemp("trials"))
    distill = recipe.distill.model_copy(update={"paired_fraction": 0.5})
    planned = plan_trials(recipe.space, recipe.space.widths_on_offer(), 16, 0, distill)
    single = [[trial for trial in planned if trial.index == index and not trial.also][:3] for index in (0, 1)]
    return (*single[0], *single[1], *[trial for trial in planned if trial.also][:2])


def reached(context: TrialContext, trials: Sequence[Trial], device: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for index in sorted({trial.index for trial in trials}):
        events = FineTune(context, device)([trial for trial in trials if trial.index == index])
        found |= {event.id: event for event in events if isinstance(event, TrialResult)}
    assert not [result.failure for result in found.values() if result.failure]
    return {id: result.curve for id, result in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["features", *(pytest.param(mode, marks=SLOW) for mode in get_args(DistillMode) if mode != "features")]
)
def test_trials_of_every_mode_paired_ones_too_end_on_a_gpu_as_on_the_processor(
    context: TrialContext, trials: tuple[Trial, ...], mode: DistillMode
) -> None:
    context = dataclasses.replace(context, distill=context.distill.model_copy(update={"mode": mode}))
    assert any(trial.also for trial in trials)
    expected = reached(context, trials, "cpu")
    with pretend_gpu(half=False) as seen:
        assert reached(context, trials, "cuda") == expected
    assert 0 < seen.most_alive <= 3


@pytest.mark.slow
def test_a_trial_waits_for_the_gpu_no_more_often_the_more_are_in_its_group(
    context: TrialContext, trials: tuple[Trial, ...]
) -> None:
    def waits(count: int) -> int:
        with pretend_gpu() as seen:
            reached(context, [trial for trial in trials if not trial.also and trial.index == 1][:count], "cuda")
        return seen.waits["tolist"]

    assert waits(3) == waits(1)


# The rest


def test_a_block_and_a_network_are_timed_by_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_gpu() as seen:
        device = open_device("cuda")
        wanted = Measure(device="cuda", dtype="fp32", memory_format="channels_last", batch=2)
        meter = DeviceMeter(Setting.of(read_card(device), wanted), device)
        for name in ("BL k3 c16 r0.5 @8", str(TINY)):
            assert meter.prepare([read_workload(name)])(repeats=3)[0].ms > 0
        assert seen.graphs >= 2


@pytest.mark.slow
def test_a_whole_run_mixes_nothing_and_keeps_at_most_three_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genet.latency.estimate.roofline.LARGE", (64,))
    monkeypatch.setattr("genet.latency.estimate.roofline.PASS_BYTES", 2**16)
    recipe = read_recipe(write_recipe(tmp_path, RECIPE.replace("device: cpu", "device: cuda")))
    with pretend_gpu() as seen, open_run(tmp_path / "run", Progress(), recipe) as job:
        check_job(job)
        profile_device(job)
        train_master(job)
        run_planned_trials(job)
        fit_trials(job)
        select_networks(job)
        outcomes = run_race(job)  # exports are made on the processor
        assert job.card.name == "pretend GPU"
    assert outcomes.outcomes
    assert seen.most_alive <= 3


def test_a_device_that_vanishes_in_a_command_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")

    monkeypatch.setattr("genet.training.learner.Learner.descend", gone)
    recipe = tmp_path / "brief.yaml"
    recipe.write_text("name: brief\ndata: {name: digits}\ntrain: {epochs: 1, batch: 64, learning_rate: 0.1}\n")
    with pretend_gpu():
        command = ["train", str(TINY), "--recipe", str(recipe), "--device", "cuda", "--into", str(tmp_path / "net")]
        assert cli.main(command) == 2
    said = capsys.readouterr().err.strip()
    assert "the device stopped answering" in said
    assert len(said.splitlines()) == 1
