"""The kernels of one forward pass of any module, recorded while it runs on the meta device: no arithmetic, no memory.

Eager PyTorch would launch one kernel per call of its dispatcher, except for views. The module itself stays untouched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genet.arch.cost import Cost, network_cost
from genet.arch.external import ExternalModel, ModelSpec
from genet.errors import GenetError, SpecError, first_line
from genet.latency.ops import Op, OpKind
from genet.models.external import build_structure, structure_of

NORMS = {"native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training", "native_layer_norm"}
NORMS |= {"native_group_norm"}
ACTIVATIONS = {"relu", "hardswish", "hardsigmoid", "sigmoid", "gelu", "leaky_relu", "elu", "hardtanh", "tanh", "mish"}
ACTIVATIONS |= {"_prelu_kernel", "softplus", "clamp", "clamp_min", "relu6"}
POOLS = {"mean", "avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d"}
PRODUCTS = ("bmm", "baddbmm", "_scaled_dot_product")  # prefixes of operations on two activations
FREE = {"_unsafe_view", "_reshape_alias", "detach"}  # views the schema does not mark as such


def module_ops(module: nn.Module, images: tuple[int, int, int]) -> tuple[Op, ...]:
    """Return the kernels for one image of (channels, height, width), in evaluation mode, in the order in which they run.

    An op has its module's qualified name, and the operation's name after it if the module contains others.
    """
    model = _on_meta(module).eval()
    first = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    recorder = _Recorder(model)
    with torch.no_grad(), recorder:
        model(torch.empty(1, *images, device="meta", dtype=first))
    return tuple(recorder.ops)


def external_ops(name: str, module: nn.Module, images: tuple[int, int, int], remedy: str) -> tuple[Op, ...]:
    """Return the kernels of another author's module; SpecError with a remedy if it does not run like this."""
    try:
        return module_ops(module, images)
    except GenetError:
        raise
    except Exception as fault:  # any error of other authors' code
        failure = f"{name} failed to run on images of {' x '.join(map(str, images))} that have a shape but no values"
        raise SpecError([f"{failure} ({first_line(fault)}); {remedy}"]) from None


def cost_of(module: nn.Module) -> Cost:
    """Return the cost of a network that `genet.models` built, counted on its kernels; SpecError if these cannot be recorded."""
    structure = structure_of(module)
    remedy = "let its forward compute with tensors only"
    found = external_ops(structure.name, module, structure.input.image, remedy)
    ops = [op for op in found if op.macs]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Cost(parameters, sum(op.macs for op in ops), sum(op.read + op.written for op in ops))


def structure_cost(structure: ModelSpec) -> Cost:
    """Return the cost of a network of either kind: of super-blocks in closed form, of another counted on its kernels."""
    return cost_of(build_structure(structure)) if isinstance(structure, ExternalModel) else network_cost(structure)


def _on_meta(module: nn.Module) -> nn.Module:
    """Return a copy with the shapes and without the values: weights are replaced while copying, so they are never doubled."""
    memo: dict[int, Any] = {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=False) for tensor in module.parameters()
    }
    return copy.deepcopy(module, memo).to("meta")


class _Recorder(TorchDispatchMode):
    """A recorder of every kernel; forward hooks tell which module it belongs to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self._stack = [("", True)]
        self._weights: dict[int, Tensor] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        for name, part in model.named_modules():
            part.register_forward_pre_hook(partial(self._enter, name, any(True for _ in part.children())))
            part.register_forward_hook(self._leave, always_call=True)

    def _enter(self, name: str, has_parts: bool, *_: Any) -> None:
        self._stack.append((name, has_parts))

    def _leave(self, *_: Any) -> None:
        self._stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = list(_tensors((args, kwargs or {}))), list(_tensors(result))
        if inputs and outputs:
            self._record(func, args, inputs, outputs)
        return result

    def _record(self, func: Any, args: tuple[Any, ...], inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Add the op. A tensor computed from weights alone is a weight too: it costs once per batch, not per image."""
        operation = str(func.overloadpacket.__name__).rstrip("_")
        weights = sum(tensor.numel() for tensor in inputs if self._is_weight(tensor))
        read = sum(tensor.numel() for tensor in inputs if not self._is_weight(tensor))
        written = outputs[0].numel()  # statistics and indices in the output are not used in evaluation
        only_weights = all(self._is_weight(tensor) for tensor in inputs)
        if only_weights:
            self._weights |= {id(tensor): tensor for tensor in outputs}
        if func.is_view or operation in FREE:
            return
        kind = "other" if only_weights else _kind(operation, inputs)
        place, has_parts = self._stack[-1]
        name = f"{place}.{operation}".lstrip(".") if has_parts or not place else place
        if kind == "conv":
            self.ops.append(_convolution(name, read, written, weights, args, outputs[0]))
        elif kind == "linear":
            left, right = inputs[-2:]
            shape = (left.shape[0], right.shape[1], left.shape[1])
            self.ops.append(Op(name, kind, read, written, weights, *shape))
        elif only_weights:
            self.ops.append(Op(name, kind, 0, 0, weights + written))
        else:
            self.ops.append(Op(name, kind, read, written, weights))

    def _is_weight(self, tensor: Tensor) -> bool:
        return id(tensor) in self._weights


def _kind(operation: str, inputs: list[Tensor]) -> OpKind:
    if operation in ("convolution", "cudnn_convolution"):
        return "conv"
    if operation in ("addmm", "mm"):
        return "linear"
    if operation in ("add", "sub") and len(inputs) == 2:
        return "add"
    if operation.startswith(PRODUCTS):
        return "product"
    kinds: dict[OpKind, set[str]] = {"norm": NORMS, "activation": ACTIVATIONS, "swish": {"silu"}, "pool": POOLS}
    return next((kind for kind, names in kinds.items() if operation in names), "other")


def _convolution(name: str, read: int, written: int, weights: int, args: tuple[Any, ...], output: Tensor) -> Op:
    """Return a convolution as its implicit GEMM; a transposed one computes at its input's positions."""
    images, weight, transposed, groups = args[0], args[1], bool(args[6]), int(args[8])
    rows = (images if transposed else output).shape[2:].numel()
    kernel = (1, *weight.shape[2:])[-2:]
    shape = (rows, int(output.shape[1]), int(images.shape[1]))
    return Op(name, "conv", read, written, weights, *shape, (int(kernel[0]), int(kernel[1])), groups)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
