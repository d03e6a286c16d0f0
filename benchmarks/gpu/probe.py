"""What must be known before anything is made faster: missing engines, what a training step waits for, what a table row costs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import torch
from torch import nn

from genet.config.recipe import MemoryFormat
from genet.device import device_fault
from genet.errors import first_line
from genet.latency.workload import block_chain, read_blocks
from genet.storage import Record
from genet.training.learner import computing_on, mixed_precision, number_format
from gpu.bench import Bench
from gpu.steps import Augmented, GroupStep, Step, augmentation, freer_steps, group_steps, training_steps, wait

KERNELS, STRIDES = (1, 3, 5), (1, 2)
WIDTHS = ((3, 16, 1), (16, 24, 1), (40, 136, 1), (64, 64, 1), (512, 512, 1))  # read, written, groups
DEPTHWISE = tuple((width, width, width) for width in (64, 120, 480, 960))
ROWS = ("XX k5 c88 @28", "BL k5 c384 r0.25 @14", "DW k5 c296 r6 @7")
FORMATS: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")


class Missing(Record):
    """A convolution that has no engine, and what the library says."""

    convolution: str
    deterministic: bool
    reason: str


class Row(Record):
    """Milliseconds that a row of a latency table costs, and what it tells."""

    block: str
    memory_format: str
    prepare_ms: float
    prepare_again_ms: float
    race_ms: float
    one_ms: float
    three_ms: float
    spread: float


class Probe(Record):
    """All that was asked so far, and the functions here that are done with asking."""

    number_format: str
    answered: tuple[str, ...] = ()
    convolutions: int = 0
    missing: tuple[Missing, ...] = ()
    steps: tuple[Step, ...] = ()
    group_steps: tuple[GroupStep, ...] = ()
    augmented: tuple[Augmented, ...] = ()
    rows: tuple[Row, ...] = ()


def probe(bench: Bench) -> None:
    """Ask the device; what one function found is kept when it is done, and not asked again."""
    file = bench.folder / "probe.json"
    unasked = Probe(number_format=str(number_format(bench.device)).removeprefix("torch."))
    found = Probe.load(file) if file.exists() else unasked
    for answers in (training_steps, augmentation, group_steps, _rows, _engines, freer_steps):
        if answers.__name__ in found.answered:
            continue
        for facts in answers(bench):
            known = {name: (*getattr(found, name), *new) if isinstance(new, tuple) else new for name, new in facts.items()}
            found = found.model_copy(update=known)
            print(facts, flush=True)
        found = found.model_copy(update={"answered": (*found.answered, answers.__name__)})
        found.save(file)


def _engines(bench: Bench) -> Iterator[dict[str, object]]:
    """Forward and backward of every kind of convolution in the number format of training, channels_last, deterministic."""
    asked = list(itertools.product(KERNELS, STRIDES, WIDTHS + DEPTHWISE))
    asked = asked[::18] if bench.small else asked
    for kernel, stride, (read, written, groups) in asked:
        for deterministic in (True, False):
            try:
                _run_convolution(bench, kernel, stride, read, written, groups, deterministic)
                break
            except RuntimeError as fault:
                if device_fault(fault) != "no engine":
                    raise  # which says nothing of the convolution
                name = f"k{kernel} s{stride} {read}>{written} in {groups} groups"
                yield {"missing": (Missing(convolution=name, deterministic=deterministic, reason=first_line(fault)),)}
    yield {"convolutions": len(asked)}


def _run_convolution(bench: Bench, kernel: int, stride: int, read: int, written: int, groups: int, deterministic: bool) -> None:
    last = torch.channels_last
    layer = nn.Conv2d(read, written, kernel, stride, kernel // 2, groups=groups, bias=False)
    layer = layer.to(bench.device).to(memory_format=last)
    batch = 4 if bench.small else 256
    images = torch.randn(batch, read, 8, 8, device=bench.device).to(memory_format=last).requires_grad_()
    with computing_on(bench.device, deterministic):
        with mixed_precision(bench.device):
            answer = layer(images)
        torch.autograd.backward(answer.float().sum())
        wait(bench)


def _rows(bench: Bench) -> Iterator[dict[str, object]]:
    """One block and three in a row, as a table has them, in both memory formats."""
    for memory_format, text in itertools.product(FORMATS, ("XX k3 c8 @8",) if bench.small else ROWS):
        meter, blocks = bench.meter(memory_format=memory_format), read_blocks(text)
        parts = [block_chain(blocks), block_chain(blocks * 3)]
        times = [time.perf_counter()]
        race = meter.prepare(parts)
        times.append(time.perf_counter())
        one, three = race()
        times.append(time.perf_counter())
        meter.prepare(parts)
        times.append(time.perf_counter())
        prepare, raced, again = ((after - before) * 1e3 for before, after in itertools.pairwise(times))
        row = Row(
            block=text,
            memory_format=memory_format,
            prepare_ms=prepare,
            prepare_again_ms=again,
            race_ms=raced,
            one_ms=one.ms,
            three_ms=three.ms,
            spread=max(one.spread, three.spread),
        )
        yield {"rows": (row,)}
