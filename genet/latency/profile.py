"""Fills the latency table: times single blocks and whole networks on the device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import nn

from genet.device import current
from genet.errors import DeviceError
from genet.latency.clock import Timing, measure
from genet.latency.table import BlockRow, LatencyTable, NetworkRow, Setting
from genet.nets.blocks import build_block
from genet.nets.build import build
from genet.spec.network import Block, Network

CALM = 0.25  # a timing whose repeats spread wider was disturbed by other work, and is taken again
ATTEMPTS = 3
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def profile_blocks(
    table: LatencyTable, wanted: Iterable[Block], device: torch.device, seed: int, measured: Callable[[], None]
) -> None:
    """Measure the blocks that the table lacks, in random order so that a drifting clock leans on no width."""
    missing = table.missing(wanted)
    random.Random(seed).shuffle(missing)
    for block in missing:
        images = (table.setting.batch, block.in_width, block.size, block.size)
        (timing,) = _time([(build_block(block), images)], table.setting, device, str(block))
        table.add_block(BlockRow(block=block, ms=timing.ms, median_ms=timing.median_ms, spread=timing.spread))
        measured()


def profile_network(table: LatencyTable, network: Network, device: torch.device, reference: Network) -> NetworkRow:
    """The whole network's latency: from the table where it was measured, else measured now.

    The reference network is timed in turn with it. What the reference takes now over what it took when it was first
    measured is the drift of the machine, so that networks measured hours apart can be compared.
    """
    known = table.network_row(network)
    if known is not None:
        return known
    together = [network]
    if network != reference:
        before = profile_network(table, reference, device, reference).ms
        together.append(reference)
    batch = table.setting.batch
    parts = [(build(each), (batch, each.input.channels, *[each.input.resolution] * 2)) for each in together]
    timing, *beside = _time(parts, table.setting, device, str(network))
    drift = beside[0].ms / before if beside else 1.0
    row = NetworkRow(network=str(network), ms=timing.ms, median_ms=timing.median_ms, spread=timing.spread, drift=drift)
    table.add_network(row)
    return row


def _unrest(timings: tuple[Timing, ...]) -> float:
    return max(timing.spread for timing in timings)


def _time(
    parts: Sequence[tuple[nn.Module, tuple[int, ...]]], setting: Setting, device: torch.device, what: str
) -> tuple[Timing, ...]:
    """Time modules in turn: their forward passes on random images of the given shapes, in inference mode."""
    dtype, layout = DTYPES[setting.dtype], MEMORY_FORMATS[setting.memory_format]
    # The benchmark flag lets cuDNN pick its fastest kernel, and fp32 means what torch serves by default: TF32 where there is.
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)
    with torch.inference_mode(), flags, current(device):
        try:
            works = []
            for module, images in parts:
                ready = module.to(device=device, dtype=dtype, memory_format=layout).eval()  # type: ignore[call-overload]
                pixels = torch.randn(images, device=device, dtype=dtype).contiguous(memory_format=layout)
                works.append(partial(ready, pixels))
            attempts: list[tuple[Timing, ...]] = []
            while len(attempts) < ATTEMPTS and not (attempts and _unrest(attempts[-1]) <= CALM):
                attempts.append(measure(works, device))
            return min(attempts, key=_unrest)
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"{what}: must fit into the device's memory at batch {setting.batch}, and does not; lower measure.batch"
            ) from None
