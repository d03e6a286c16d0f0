"""A check that a network built by other code can be trained, and the choice of the answer to train.

GoogLeNet and Inception answer with auxiliary logits too while they are trained; others with features, or with a loss.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genet.arch.external import ExternalModel
from genet.errors import GenetError, first_line
from genet.models.external import count_logits

IMAGES = 2  # the fewest that batch normalisation takes


def ready_to_train(module: nn.Module, structure: ExternalModel) -> str | None:
    """Make the module answer with its logits alone while it is trained; return a remark on that.

    Of several tensors the logits are the first that depends on all weights that the answer in eval mode uses. Weights that they
    do not depend on are frozen: auxiliary heads. GenetError for a network that cannot be trained like this.
    """
    input_, name = structure.input, structure.name
    classes = count_logits(module, input_.image, name)
    if classes != input_.classes:
        raise GenetError(f"{name}: got {classes} logits, expected {input_.classes}; set its input.classes")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise GenetError(
            f"{name}: got weights that are all frozen, expected some to train; set requires_grad of some in {structure.source}"
        )
    images = torch.randn(IMAGES, *input_.image, generator=torch.Generator().manual_seed(0))
    probe = copy.deepcopy(module)  # with statistics that may change
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        try:
            answer = probe.train()(images)
        except Exception as fault:  # any error of a user's network
            raise GenetError(
                f"{name} failed in training mode when given only images ({first_line(fault)}); let its forward return logits "
                "in training mode too"
            ) from None
        used = probe.eval()(images)  # restored afterwards, as training changes statistics in place
        logits = {key: each for key, each in _entries(answer) if _fits(each, used)}
        if logits and isinstance(answer, Tensor):
            return None
        wanted = _reached(probe, used)
        used_weights = {key: _reached(probe, each) for key, each in logits.items()}
    main = next((key for key in used_weights if wanted <= used_weights[key]), None)
    if main is None:
        raise GenetError(
            f"{name}: got {_described(answer)} in training mode, expected the same logits "
            f"({' x '.join(map(str, used.shape))}) as in eval mode; let its forward return them in training mode too"
        )
    for place, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and place in used_weights[main])
    module.register_forward_hook(partial(_main, main))
    return f"trained by its logits, [{main!r}] of its output in training mode; its auxiliary heads stay untrained"


def _main(key: Any, _: nn.Module, __: Any, answer: Any) -> Tensor:
    found: Tensor = answer if isinstance(answer, Tensor) else answer[key]
    return found


def _entries(answer: Any) -> Iterator[tuple[Any, Any]]:
    """Return everything in an answer by its key; a tensor alone has none."""
    if isinstance(answer, Tensor):
        yield None, answer
    elif isinstance(answer, Mapping):
        yield from answer.items()
    elif isinstance(answer, Sequence):
        yield from enumerate(answer)


def _fits(entry: Any, used: Tensor) -> bool:
    return isinstance(entry, Tensor) and entry.shape == used.shape and entry.requires_grad


def _reached(module: nn.Module, answer: Tensor) -> set[str]:
    """Return the names of the weights that an answer depends on."""
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    if not answer.requires_grad:
        return set()
    gradients = torch.autograd.grad(answer.sum(), list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}


def _described(answer: Any) -> str:
    shapes = [
        " x ".join(map(str, each.shape)) if isinstance(each, Tensor) else type(each).__name__ for _, each in _entries(answer)
    ]
    return ", ".join(shapes) or f"its {type(answer).__name__}"
