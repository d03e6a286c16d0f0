"""The whole procedure by importance: offers, matrices, certificate, and nothing measured twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from genet.arch.external import ExternalModel
from genet.arch.network import Input
from genet.config.options import checked_measure
from genet.errors import EvidenceError
from genet.latency.staircase.staircase import analyse
from genet.latency.staircase.sweep import Sweep
from genet.latency.table import LatencyTable
from genet.latency.timing.meter import Meter, meter_of
from genet.latency.workload import Workload, block_chain
from genet.storage import Journal
from genet.studies.align.importance import importance_of
from genet.studies.align.module_subject import ModuleSubject
from genet.studies.align.program import Program, PruningChoice
from genet.studies.align.prune import MeteredSubject, Pruning, find_offers, find_program, prune, widths_on_offer
from genet.studies.align.subject import Scope
from genet.training.image_sets import TensorImages
from tests.fixtures import align_networks as nets
from tests.fixtures.simulated import Simulated

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed: pip install 'genet-nas[align]'")

CPU = torch.device("cpu")


def subject(module: nn.Module, channels: int = 1, size: int = 8) -> ModuleSubject:
    classes = module(torch.zeros(2, channels, size, size)).shape[1]
    input_ = Input(channels=channels, classes=classes, resolution=size)
    return ModuleSubject(ExternalModel(name="own", source="own:net", input=input_), module.eval())


def program_of(found: ModuleSubject, meter: Meter, table: LatencyTable) -> Program:
    input_, draw = found.network.input, torch.Generator().manual_seed(0)
    pixels = torch.randn(20, *input_.image, generator=draw)
    images = TensorImages(pixels, torch.randint(input_.classes, (20,), generator=draw))
    importance = importance_of(found, images, CPU)
    metered = MeteredSubject(found, table, meter)
    offers = find_offers(metered, importance)
    blocks = {name: importance.lost_with(name) for name in found.removable}
    return find_program(metered, offers, blocks)


def pruned(found: ModuleSubject, meter: Meter, folder: Path, target: float) -> Pruning:
    table = LatencyTable(Journal(folder / "latency.jsonl"), meter.setting)
    return prune(MeteredSubject(found, table, meter), program_of(found, meter, table), target)


def v100() -> Meter:
    return meter_of(checked_measure({"device": "estimate:v100", "dtype": "fp16", "batch": 4096, "runtime": "cudagraph"}))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One journal for all that is estimated: the shapes are the same."""
    return tmp_path_factory.mktemp("known")


def by_macs(part: Workload) -> float:
    """A device without stairs that takes some time for every kernel."""
    return sum(1e-6 * op.macs + 1e-3 for op in part.ops())


def test_the_whole_network_is_within_the_target_and_loses_more_the_lower_it_is(known: Path) -> None:
    network = subject(nets.residual())
    high, low = (pruned(network, v100(), known, target) for target in (0.8, 0.4))
    assert low.measured.above <= 0.4 < high.measured.above <= 0.8
    assert 0 < high.rise < low.rise
    for found in (high, low):
        assert all(slot.new in (None, *slot.offered) for slot in found.slots)
        inside = tuple(f"{block}." for block in found.removed)
        assert [slot.new is None for slot in found.slots] == [slot.name.startswith(inside) for slot in found.slots]
        module = network.build(found.widths, removed=found.removed)
        assert found.parameters[1] == sum(parameter.numel() for parameter in module.parameters())


def test_a_block_whose_branch_is_zero_is_removed_before_anything_is_cut(known: Path) -> None:
    module = nets.residual()
    for tensor in (module.blocks[2].bn2.weight, module.blocks[2].bn2.bias):
        tensor.data.zero_()
    found = pruned(subject(module), v100(), known, 0.85)
    assert (found.removed, found.widths, found.rise) == (("blocks.2",), {}, 0.0)


def test_dead_channels_go_before_any_that_the_loss_depends_on(known: Path) -> None:
    module = nets.residual()
    for tensor in (module.blocks[1].bn1.weight, module.blocks[1].bn1.bias):
        tensor.data[1::2] = 0
    found = pruned(subject(module), v100(), known, 0.985)
    assert found.rise == 0.0
    assert 16 <= found.widths["blocks.1.conv1"] < 32


def test_a_latency_out_of_reach_is_refused_with_the_best_there_is(known: Path) -> None:
    with pytest.raises(EvidenceError, match=r"own: --target-ratio: got 0.01, .*; its ratio is 0\.\d+"):
        pruned(subject(nets.residual()), v100(), known, 0.01)


@pytest.mark.parametrize("form", ["tangled", "bundled"])
def test_concatenations_and_groups_of_channels_are_predicted_as_the_layers_are_measured(form: str, tmp_path: Path) -> None:
    found, meter = subject(getattr(nets, form)(), 3, 16), Simulated(by_macs)
    table = LatencyTable(Journal(tmp_path / "latency.jsonl"), meter.setting)
    program = program_of(found, meter, table)
    choice = PruningChoice({offer.name: offer.widths[number % len(offer.widths)] for number, offer in enumerate(program.offers)})
    layers = [layer for layer in found.tied.layers.values() if layer.kind != "norm"]
    taken = sum(meter._ms(part) for part in parts(found, layers, choice))
    assert program.ms(choice) == pytest.approx(taken, rel=1e-6)


def parts(found: ModuleSubject, layers, choice: PruningChoice) -> list[Workload]:  # type: ignore[no-untyped-def]
    return [block_chain([block]) for layer in layers for block in found.layer_blocks(layer, choice.widths)]


class KilledError(Exception):
    """Ends a run in the middle."""


@pytest.mark.parametrize("share", [0.01, 0.4, 0.9, 0.99])
def test_what_was_measured_before_a_kill_is_not_measured_again(share: float, tmp_path: Path) -> None:
    network = ModuleSubject(subject(nets.residual()).network, nets.residual().eval(), scope=Scope(include=("blocks.1",)))
    whole = Simulated(by_macs)
    undisturbed = pruned(network, whole, tmp_path / "whole", 0.9)
    last = int(share * next(whole._clock))

    def kill(timing: int) -> float:
        if timing == last:
            raise KilledError
        return 1.0

    first, second = Simulated(by_macs, kill), Simulated(by_macs)
    with pytest.raises(KilledError):
        pruned(network, first, tmp_path, 0.9)
    assert pruned(network, second, tmp_path, 0.9) == undisturbed
    sentinel = str(LatencyTable(Journal(tmp_path / "latency.jsonl"), whole.setting).sentinel)
    assert without(sentinel, first.timed + second.timed) == without(sentinel, whole.timed)


def without(sentinel: str, timed: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in timed.items() if name != sentinel}


def test_edges_are_offered_over_all_narrower_widths_and_on_a_slope_some_of_all() -> None:
    def of(widths: range, ms: Callable[[int], float]) -> tuple[int, ...]:
        sweep = Sweep(widths=tuple(widths), ms=tuple(map(ms, widths)), sigma=(0.001,) * len(widths))
        return widths_on_offer(analyse(sweep))

    assert of(range(8, 257, 8), lambda width: 1 + 0.5 * ((width - 1) // 64)) == (64, 128, 192, 256)
    assert of(range(2, 17), lambda width: 0.1 * width) == (2, 4, 6, 8, 10, 12, 14, 16)
    assert of(range(8, 257, 8), lambda width: 1.0) == (256,)
