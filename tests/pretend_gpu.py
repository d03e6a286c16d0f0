"""A pretend GPU: tensors are computed on the processor and labelled with the device they are said to be on.

Under `pretend_gpu` torch finds one NVIDIA GPU. Mixing devices is an error, as on CUDA; waiting for the device is counted, and is
an error while a graph is captured. A captured graph computes nothing until it is replayed; a replay calls the work again, and
it is an error if that launches other kernels than the first replay did, for a real one could not.

What it cannot tell: times, memory, kernels that are missing, 16-bit rounding as a GPU does it, and races between streams.
"""

from __future__ import annotations

import contextlib
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily
from torch.utils._pytree import tree_flatten, tree_map

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
READS = ("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "nonzero", "numpy", "__array__")
MOVES = ("to", "cpu", "cuda")
BETWEEN_DEVICES = ("copy_", "_to_copy", "to", "__deepcopy__")


class MixedDevicesError(RuntimeError):
    """As torch says it: expected all tensors to be on the same device."""


class Seen:
    """What the device was asked for: `waits` by name, `graphs` made, and the most alive at a time."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.graphs = self.alive = self.most_alive = 0
        self.capturing: Graph | None = None
        self.trace: list[object] | None = None
        self.generators: list[torch.Generator] = []  # said to be on the GPU

    def wait(self, name: str) -> None:
        """Count that the host waits for the device."""
        if self.capturing:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({name})")
        self.waits[name] += 1


def label(tensor: Tensor) -> torch.device:
    """The device a tensor is said to be on."""
    return object.__getattribute__(tensor, "__dict__").get("_on", CPU)


def put(tensor: Tensor, device: torch.device) -> Tensor:
    """Say that a tensor is on a device."""
    tensor.__dict__["_on"] = device
    return tensor


def real(device: Any) -> tuple[Any, torch.device | None]:
    """Where to compute for a device argument, and the device it names; None if it names none."""
    kind = device.type if isinstance(device, torch.device) else str(device).split(":")[0] if isinstance(device, str) else None
    return (CPU, CUDA if kind == "cuda" else CPU) if kind in ("cuda", "cpu") else (device, None)


class Pretending(TorchFunctionMode):
    """Computes every function of torch on the processor and labels what comes out."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", str(function))
        if isinstance(function, type) or name in ("_parse_to", "_has_compatible_shallow_copy_type"):
            return function(*args, **kwargs)
        if name in ("__get__", "__set__"):
            return self._attribute(function, name, args, kwargs)
        args, kwargs, target = _without_devices(args, kwargs)
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        if name == "pin_memory":
            return args[0]
        self._note(name, tensors, target, args, kwargs)
        before = {id(tensor): label(tensor) for tensor in tensors}
        where = target or _where(name, tensors)
        if name == "cuda":
            function, where = (lambda tensor, *_, **__: tensor), CUDA
        if name == "cpu":
            where = CPU
        if name == "to" and target is None and len(args) > 1 and isinstance(args[1], Tensor):
            where = label(args[1])
        answer = function(*args, **kwargs)
        return answer if where is None else _labelled(answer, where, before, moved=name in MOVES)

    def _attribute(self, function: Any, name: str, args: Any, kwargs: Any) -> Any:
        owner = getattr(getattr(function, "__self__", None), "__name__", "")
        if name == "__set__":
            function(*args, **kwargs)
            if owner == "data":
                put(args[0], label(args[1]))
            return None
        answers = {
            "device": label,
            "is_cuda": lambda tensor: label(tensor) == CUDA,
            "is_cpu": lambda tensor: label(tensor) == CPU,
        }
        answer = function(*args, **kwargs)
        if owner in answers and (owner != "device" or answer.type == "cpu"):
            return answers[owner](args[0])
        return put(answer, label(args[0])) if isinstance(answer, Tensor) else answer

    def _note(self, name: str, tensors: list[Tensor], target: torch.device | None, args: Any, kwargs: Any) -> None:
        """Refuse what CUDA refuses; count waits; remember what a capture must undo and a replay must repeat."""
        on_gpu = [tensor for tensor in tensors if label(tensor) == CUDA]
        if name in ("numpy", "__array__") and on_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory first.")
        leaves = name in MOVES and on_gpu and (name == "cpu" or target == CPU)
        if (name in READS and on_gpu) or leaves or (name == "copy_" and on_gpu and label(tensors[0]) == CPU):
            self.seen.wait(name)
        generator = kwargs.get("generator")
        if (
            generator is not None
            and (target or _where(name, tensors)) == CUDA
            and not any(generator is each for each in self.seen.generators)
        ):
            raise MixedDevicesError(f"{name}: expected a 'cuda' device type for generator but found 'cpu'")
        if on_gpu and self.seen.capturing:
            self.seen.capturing.remember(name, tensors)
        if on_gpu and self.seen.trace is not None:
            plain = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, int | float | bool | str)]
            self.seen.trace.append((name, plain, [tuple(tensor.shape) for tensor in tensors]))


def _without_devices(args: Any, kwargs: Any) -> tuple[Any, Any, torch.device | None]:
    """The arguments with the processor for every device, and the device they name."""
    target, plain = None, []
    for each in args:
        given, named = real(each) if isinstance(each, torch.device | str) else (each, None)
        target = named or target
        plain.append(given if named else each)
    for key in ("device", "map_location"):
        if kwargs.get(key) is not None:
            kwargs[key], named = real(kwargs[key])
            target = named or target
    return tuple(plain), kwargs, target


def _where(name: str, tensors: list[Tensor]) -> torch.device | None:
    """The one device of the tensors; numbers without dimensions may come from the processor."""
    labels = {label(tensor) for tensor in tensors if tensor.dim()}
    if len(labels) < 2:
        return next(iter(labels), label(tensors[0]) if tensors else None)
    first = label(tensors[0])
    if name in BETWEEN_DEVICES or name.startswith("_foreach_copy") or (name == "__getitem__" and first == CUDA):
        return first
    if name == "__setitem__" and all(label(tensor) == first for tensor in tensors[-1:]):
        return first
    shapes = [tuple(tensor.shape) for tensor in tensors[:4]]
    raise MixedDevicesError(f"{name}: expected all tensors to be on the same device, found {sorted(map(str, labels))}, {shapes}")


def _labelled(answer: Any, where: torch.device, before: dict[int, torch.device], moved: bool) -> Any:
    def give(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        if id(each) not in before:
            return put(each, where)
        if moved and before[id(each)] != where:  # torch gave the same tensor back, for nothing had to move
            return put(each.clone(), where)
        return each

    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return type(answer)(*map(give, answer))
    return tree_map(give, answer) if isinstance(answer, Tensor | tuple | list) else answer


class Event:
    """Times by the host's clock, which is never ahead of this device."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self.timing, self.at = enable_timing, None

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    wait = query = lambda self, *_: True

    def elapsed_time(self, other: Event) -> float:
        assert self.timing, "an event that does not time"
        assert other.timing, "an event that does not time"
        return max((other.at - self.at) * 1e3, 1e-4)


class Stream:
    """One queue of work; all are worked off at once."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None:
        pass


class Graph:
    """Keeps what a capture called; see the module's docstring."""

    def __init__(self, seen: Seen) -> None:
        self._seen, self._work, self._first = seen, None, None
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        seen.graphs += 1
        seen.alive += 1
        seen.most_alive = max(seen.most_alive, seen.alive)

    def __del__(self) -> None:
        self._seen.alive -= 1

    def capture_begin(self, *_: Any, **__: Any) -> None:
        assert self._seen.capturing is None, "one capture at a time"
        assert len(STREAMS) > 1, "a capture needs a stream of its own"
        self._work = sys._getframe(1).f_locals.get("work")
        self._seen.capturing = self

    def remember(self, name: str, tensors: list[Tensor]) -> None:
        """Keep what an operation in place is about to change."""
        in_place = (
            (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or name in ("batch_norm", "__setitem__")
        )
        for tensor in tensors if in_place else ():
            with torch.no_grad(), torch._C.DisableTorchFunction():
                self._before.setdefault(id(tensor), (tensor, tensor.detach().clone()))

    def capture_end(self) -> None:
        self._seen.capturing = None
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for tensor, before in reversed(self._before.values()):  # several may be views of one
                tensor.detach().copy_(before)
        self._before.clear()

    def reset(self) -> None:
        self._work = None

    def replay(self) -> None:
        assert self._work is not None, "replay of a graph that was not captured"
        outer, self._seen.trace = self._seen.trace, []
        try:
            self._work()
            trace = self._seen.trace
        finally:
            self._seen.trace = outer
        self._first = self._first or trace
        if trace != self._first:
            changed = next(pair for pair in zip(self._first, trace, strict=False) if pair[0] != pair[1])
            raise AssertionError(
                f"a replay would launch what was recorded, and the work would now launch other kernels: {changed}"
            )


STREAMS = [Stream()]


@contextlib.contextmanager
def _stream(stream: Stream) -> Iterator[None]:
    STREAMS.append(stream)
    try:
        yield
    finally:
        STREAMS.pop()


def _generators(seen: Seen) -> type[torch.Generator]:
    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Any:
            made = super().__new__(cls, device="cpu")
            if real(device)[1] == CUDA:
                seen.generators.append(made)
            return made

    return Generator


def _grouped(tensors: list[list[Tensor]], with_indices: bool = False) -> dict[Any, Any]:
    """torch groups in C++, where labels are not seen; one device and number format is all that there is here."""
    return {(label(tensors[0][0]), tensors[0][0].dtype): (tensors, list(range(len(tensors[0]))))}


def _autocast(plain: Any, half: bool) -> Any:
    class Autocast(plain):  # type: ignore[misc]
        def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None) -> None:
            pretended = device_type == "cuda"
            super().__init__("cpu" if pretended else device_type, dtype, enabled and (half or not pretended), cache_enabled)

    return Autocast


def _loading(plain: Callable[..., Any]) -> Callable[..., Any]:
    def load(file: Any, map_location: Any = None, **options: Any) -> Any:
        place, named = real(map_location)
        found = plain(file, map_location=place, **options)
        return tree_map(lambda each: put(each, named or CPU) if isinstance(each, Tensor) else each, found)

    return load


def _made(plain: Callable[..., Any]) -> Callable[..., Any]:
    def new(cls: type, data: Tensor | None = None, requires_grad: bool = True) -> Any:
        parameter = plain(cls, data, requires_grad)
        return parameter if data is None else put(parameter, label(data))

    return new


def _copied(parameter: Any, memo: dict[int, Any]) -> Any:
    if id(parameter) not in memo:
        data = put(parameter.detach().clone(memory_format=torch.preserve_format), label(parameter))
        memo[id(parameter)] = put(nn.Parameter(data, parameter.requires_grad), label(parameter))
    return memo[id(parameter)]


def _refused(name: str) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name} cannot be pretended")

    return call


def _unpretended(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Call an exporter as if there were no GPU: it traces a network that lies on the processor, where nothing is pretended."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch, _pop_mode_temporarily():
            for name in ("is_available", "is_initialized"):
                patch.setattr(torch.cuda, name, lambda: False)
            return plain(*args, **kwargs)

    return call


@contextlib.contextmanager
def pretend_gpu(half: bool = True) -> Iterator[Seen]:
    """Make torch find a pretend GPU; yields what it is asked for. Without `half` it computes in 32 bits, as a processor does."""
    seen = Seen()
    facts = types.SimpleNamespace(
        name="pretend GPU",
        multi_processor_count=132,
        total_memory=80 * 2**30,
        L2_cache_size=50 * 2**20,
        major=9,
        minor=0,
        uuid="0",
    )
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda *_: seen.wait("synchronize"),
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: facts.name,
        "get_device_properties": lambda *_: facts,
        "mem_get_info": lambda *_: (facts.total_memory, facts.total_memory),
        "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "device": lambda _: contextlib.nullcontext(),
        "set_device": lambda _: None,
        "_sleep": lambda _: None,
        "Event": Event,
        "Stream": Stream,
        "stream": _stream,
        "current_stream": lambda *_: STREAMS[-1],
        "CUDAGraph": lambda *_, **__: Graph(seen),
        "graph_pool_handle": lambda: (0, 1),
    }
    with pytest.MonkeyPatch.context() as patch, Pretending(seen):
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            patch.setattr(torch._C, name, lambda *_: None, raising=False)
        patch.setattr(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_grouped))
        patch.setattr(nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", _grouped)
        patch.setattr(torch, "Generator", _generators(seen))
        patch.setattr(torch, "autocast", _autocast(torch.autocast, half))
        patch.setattr(torch, "load", _loading(torch.load))
        patch.setattr(torch, "compile", _refused("torch.compile"))
        patch.setattr(torch.onnx, "export", _unpretended(torch.onnx.export))
        patch.setattr(torch.export, "export", _unpretended(torch.export.export))
        patch.setattr(nn.Parameter, "__new__", _made(nn.Parameter.__new__))
        patch.setattr(nn.Parameter, "__deepcopy__", _copied)
        yield seen
