"""What must be known before anything is made faster: missing engines, what a training step waits for, what a table row costs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genet.device import device_fault, record_graph, side_stream
from genet.errors import first_line
from genet.files import Record
from genet.latency.part import chain, read_blocks
from genet.nets.build import build
from genet.nets.learner import mixed_precision, number_format
from genet.spec.reader import read_recipe
from genet.spec.recipe import MemoryFormat
from gpu.bench import Bench

KERNELS, STRIDES = (1, 3, 5), (1, 2)
WIDTHS = ((3, 16, 1), (16, 24, 1), (40, 136, 1), (64, 64, 1), (512, 512, 1))  # read, written, groups
DEPTHWISE = tuple((width, width, width) for width in (64, 120, 480, 960))
ROWS = ("XX k5 c88 @28", "BL k5 c392 r0.25 @14", "DW k5 c296 r6 @7")
FORMATS: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")


class Missing(Record):
    """A convolution that has no engine, and what the library says."""

    convolution: str
    deterministic: bool
    reason: str


class Step(Record):
    """Milliseconds of a training step of the CIFAR-10 MasterNet; None where there are no graphs."""

    batch: int
    deterministic: bool
    autotuned: bool
    eager_ms: float
    synchronised_ms: float
    graphed_ms: float | None
    capture_ms: float | None


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
    """All that was asked; each list grows as it is found."""

    number_format: str
    convolutions: int = 0
    missing: tuple[Missing, ...] = ()
    steps: tuple[Step, ...] = ()
    rows: tuple[Row, ...] = ()


def probe(bench: Bench) -> None:
    """Ask the device, and keep every answer at once."""
    found = Probe(number_format=str(number_format(bench.device)).removeprefix("torch."))
    file = bench.folder / "probe.json"
    for answers in (_engines, _steps, _rows):
        for facts in answers(bench):
            known = {name: (*getattr(found, name), *new) if isinstance(new, tuple) else new for name, new in facts.items()}
            found = found.model_copy(update=known)
            found.save(file)
            print(facts, flush=True)


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
                if device_fault(fault) in ("device lost", "out of memory"):
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
    with _cudnn(deterministic, autotuned=False):
        with mixed_precision(bench.device):
            answer = layer(images)
        torch.autograd.backward(answer.float().sum())
        _wait(bench)


@contextmanager
def _cudnn(deterministic: bool, autotuned: bool) -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, benchmark=autotuned, deterministic=deterministic, allow_tf32=True):
        yield


def _wait(bench: Bench) -> None:
    if bench.cuda:
        torch.cuda.synchronize(bench.device)


def _steps(bench: Bench) -> Iterator[dict[str, object]]:
    """Steps of the CIFAR-10 MasterNet: with the engines that training has, and with what determinism costs."""
    batches = (4,) if bench.small else (256, 1024)
    ways = ((True, False), (False, False), (False, True))
    for batch, (deterministic, autotuned) in itertools.product(batches, ways[:1] if bench.small else ways):
        with _cudnn(deterministic, autotuned):
            yield {"steps": (_step(bench, batch, deterministic, autotuned),)}
        bench.give_back()


def _step(bench: Bench, batch: int, deterministic: bool, autotuned: bool) -> Step:
    space, last = read_recipe("cifar10").space, torch.channels_last
    size = max(space.input.resolutions)
    module = build(space.masternet(size)).to(bench.device).to(memory_format=last).train()
    images = torch.randn(batch, space.input.channels, size, size, device=bench.device).to(memory_format=last)
    labels = torch.randint(0, space.input.classes, (batch,), device=bench.device)
    rate = torch.tensor(0.01, device=bench.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9, nesterov=True, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with mixed_precision(bench.device):
            loss = nn.functional.cross_entropy(module(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss

    graphed = capture = None
    if bench.cuda:
        with side_stream(bench.device):
            for _ in range(5):
                step()
    else:
        step()
    eager = _ms(bench, step)
    synchronised = _ms(bench, lambda: step().item())
    if bench.cuda:
        start = time.perf_counter()
        replay = record_graph(step, bench.device)
        capture = (time.perf_counter() - start) * 1e3
        graphed = _ms(bench, replay)
    return Step(
        batch=batch,
        deterministic=deterministic,
        autotuned=autotuned,
        eager_ms=eager,
        synchronised_ms=synchronised,
        graphed_ms=graphed,
        capture_ms=capture,
    )


def _ms(bench: Bench, work: Callable[[], object]) -> float:
    """Return the mean of many calls after one that is not counted."""
    calls = 2 if bench.small else 50
    work()
    _wait(bench)
    start = time.perf_counter()
    for _ in range(calls):
        work()
    _wait(bench)
    return (time.perf_counter() - start) / calls * 1e3


def _rows(bench: Bench) -> Iterator[dict[str, object]]:
    """One block and three in a row, as a table has them, in both memory formats."""
    for memory_format, text in itertools.product(FORMATS, ("XX k3 c8 @8",) if bench.small else ROWS):
        meter, blocks = bench.meter(memory_format=memory_format), read_blocks(text)
        parts = [chain(blocks), chain(blocks * 3)]
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
