"""`genet fold`: FoldedCNNs, wider networks that see several images as one."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from genet.arch.external import ModelSpec
from genet.cli.console import Answer, progress, save_picture, setting_in_words, table
from genet.cli.measuring import calibrated, measure_of
from genet.cli.train import recipe_with
from genet.config.recipe import TrainingRecipe
from genet.device import open_device
from genet.errors import GenetError, LostDeviceError, SpecError
from genet.latency.estimate.roofline import measure_roof
from genet.latency.naming import structure_named
from genet.latency.timing.meter import meter_of
from genet.pipeline.train import train_network
from genet.search.outcome import percent
from genet.storage import FolderLock
from genet.studies.figures import draw_folds
from genet.studies.fold import Folding, compare, fold
from genet.training.loop import Execution

HEAD = ["network", "FLOPs", "traffic", "FLOP/byte", "images/s", "speed", "utilization"]


def run(arguments: argparse.Namespace) -> Answer:
    """Fold networks, time them before and after, and train them if a recipe is given."""
    f, batch = arguments.images_per_fold, arguments.batch
    faults = []
    if f < 2:
        faults.append(f"--images-per-fold: got {f}, expected at least 2, such as 4")
    if batch % f:
        faults.append(
            f"--images-per-fold: got {f} for a batch of {batch}, expected a divisor of the batch; try --batch "
            f"{math.ceil(batch / f) * f}"
        )
    if bool(arguments.recipe) != bool(arguments.into) or (arguments.recipe and len(arguments.networks) != 1):
        faults.append(
            "--recipe and --into: got one alone or several networks, expected both with one network, which is trained "
            "unfolded and folded"
        )
    if arguments.recipe and arguments.device.startswith("estimate:"):
        faults.append(
            f"--recipe: got --device {arguments.device}, expected a device of this machine; fold and train in two commands"
        )
    if faults:
        raise SpecError(faults)
    structures = [structure_named(name, arguments.size, arguments.example) for name in arguments.networks]
    device = None if arguments.device == "auto" else arguments.device  # without --device the recipe's device trains
    recipe = recipe_with(arguments.recipe, arguments.data, device) if arguments.recipe else None
    if recipe and recipe.train.batch % f:
        raise SpecError(
            [
                f"--images-per-fold: got {f} for train.batch {recipe.train.batch} of the recipe, expected a divisor of it; "
                "change one of them"
            ]
        )
    folded = fold(structures[0], f) if recipe else None
    trained = {"accuracy": _trained(structures[0], folded, recipe, arguments)} if recipe and folded else {}
    found, failed, answer = _measured(structures, arguments)
    if not found:
        raise GenetError(*(f"{name}: {why}" for name, why in failed.items()))
    answer |= trained
    answer["networks"] = [_answer(one) for one in found]
    if arguments.plot:
        save_picture(
            arguments.plot,
            draw_folds(found, answer["roof"]["ratio"], f"folded by {arguments.images_per_fold}: {answer['setting']}"),
        )
    return answer


def _measured(structures: list[ModelSpec], arguments: argparse.Namespace) -> tuple[list[Folding], dict[str, str], Answer]:
    """Measure every network before and after; one that cannot be folded is recorded and skipped."""
    meter = calibrated(meter_of(measure_of(arguments)), arguments.calibrate or [])
    print(setting_in_words(meter.setting))
    roof, product = measure_roof(meter)
    found: list[Folding] = []
    failed: dict[str, str] = {}
    with progress().track("networks, unfolded and folded", len(structures)) as tracker:
        for structure in structures:
            try:
                found.append(compare(structure, arguments.images_per_fold, meter, product, roof.ratio))
            except LostDeviceError:
                raise
            except GenetError as fault:
                failed[structure.name] = str(fault).removeprefix(f"{structure.name}: ")
            tracker.advance(structure.name)
    if found:
        table(HEAD, [_row(one) for one in found])
        ideal = math.sqrt(arguments.images_per_fold)
        grown = f"traffic would be {1 / ideal:.2f} and FLOP/byte {ideal:.2f} times as much"
        print(f"FLOPs, traffic and speed are ratios, folded over unfolded; if only activations moved, {grown}")
    for name, why in failed.items():
        print(f"  {name} is left out: {why}")
    setting = meter.setting
    answer: Answer = {
        "device": setting.device.name,
        "setting": str(setting),
        "estimate": setting.estimate,
        "f": arguments.images_per_fold,
        "failed": failed,
    }
    return found, failed, answer | {"roof": {**roof.model_dump(mode="json"), "ratio": roof.ratio}}


def _row(one: Folding) -> list[str]:
    before, after = one.before, one.after
    return [
        one.network,
        f"{one.flops:.3f}",
        f"{one.traffic:.3f}",
        f"{before.intensity:.1f} -> {after.intensity:.1f}",
        f"{before.images_per_sec:,.4g} -> {one.f * after.images_per_sec:,.4g}",
        f"{one.speed:.3f}{'' if one.speed_error is None else f' ± {one.speed_error:.3f}'}",
        f"{before.utilization or 0:.1%} -> {after.utilization or 0:.1%}",
    ]


def _answer(one: Folding) -> Answer:
    sides = {
        name: {**side.model_dump(mode="json"), "images_per_sec": f * side.images_per_sec, "utilization": side.utilization}
        for name, f, side in (("before", 1, one.before), ("after", one.f, one.after))
    }
    return {
        "network": one.network,
        "flops": one.flops,
        "traffic": one.traffic,
        "speed": one.speed,
        "speed_error": one.speed_error,
        **sides,
    }


def _trained(structure: ModelSpec, folded: ModelSpec, recipe: TrainingRecipe, arguments: argparse.Namespace) -> Answer:
    """Train both by one recipe, each in a folder of its own."""
    accuracies = {}
    for name, network, f in (("original", structure, 1), ("folded", folded, arguments.images_per_fold)):
        folder: Path = arguments.into / name
        with FolderLock(folder):
            execution = Execution(open_device(recipe.device), progress=progress())
            trained = train_network(folder, network, recipe, execution, fold=f)
        accuracies[name] = trained.test_accuracy
        print(f"{folder}: test accuracy {percent(trained.test_accuracy)}")
    inside = arguments.into / "folded"
    print("in Python, for unfolded images (from genet.models.folded import Folded):")
    print(f"  logits = Folded(genet.load({str(inside)!r}), {arguments.images_per_fold})(images)")
    return accuracies
