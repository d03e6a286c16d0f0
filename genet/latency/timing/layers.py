"""Time of every layer inside a forward pass in eager mode: hooks around the modules that contain no others."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genet.latency.timing.stopwatch import delay_gpu

Mark = Callable[[], float]  # resolves, after the pass, to milliseconds on one time line


def time_layers(module: nn.Module, images: Tensor, passes: int) -> tuple[tuple[str, str, float], ...]:
    """Return name, kind and median milliseconds of every leaf module, in the order in which they run.

    A GPU waits before each pass for about twice as long as the host takes to launch one: it then runs them without a gap.
    """
    marks: list[tuple[str, str, Mark, Mark]] = []
    started: dict[str, Mark] = {}
    mark = _cuda_marks() if images.device.type == "cuda" else _cpu_mark
    handles = []
    for name, leaf in module.named_modules():
        if not list(leaf.children()):
            kind = type(leaf).__name__

            def before(*_: object, name: str = name) -> None:
                started[name] = mark()

            def after(*_: object, name: str = name, kind: str = kind) -> None:
                marks.append((name, kind, started[name], mark()))

            handles += [leaf.register_forward_pre_hook(before), leaf.register_forward_hook(after)]
    times: dict[tuple[str, str], list[float]] = {}
    launch_ms = 0.0
    for number in range(-2, passes):  # the first pass warms up, the second tells how long the host takes
        marks.clear()
        begin = time.perf_counter()
        if images.device.type == "cuda":
            delay_gpu(2 * launch_ms)
        module(images)
        if number == -1:
            launch_ms = (time.perf_counter() - begin) * 1e3
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        for name, kind, start, end in marks if number >= 0 else ():
            times.setdefault((name, kind), []).append(end() - start())
    for handle in handles:
        handle.remove()
    return tuple((name, kind, statistics.median(ms)) for (name, kind), ms in times.items())


def _cpu_mark() -> Mark:
    now = time.perf_counter() * 1e3
    return lambda: now


def _cuda_marks() -> Callable[[], Mark]:
    origin = torch.cuda.Event(enable_timing=True)
    origin.record()

    def mark() -> Mark:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return lambda: float(origin.elapsed_time(event))

    return mark
