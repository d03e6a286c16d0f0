"""Residual blocks that a network can do without: once their branch is gone, an identity shortcut passes on what they read."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CLOSE = 1e-5  # of the largest value


@torch.inference_mode()
def removable_blocks(module: nn.Module, image: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the innermost blocks with an identity shortcut, in running order, without which the network runs, by name.

    A block is a module with convolutions inside that runs once in a pass. Its shortcut is an identity if, once all of its weights
    are zero, it passes on exactly what it reads, an activation behind the sum included.
    """
    images = torch.randn(2, *image, generator=torch.Generator().manual_seed(0))
    probe = copy.deepcopy(module).eval()
    passing = [name for name, read in _reads(probe, images).items() if _passes(probe.get_submodule(name), read)]
    inner = [name for name in passing if not any(other.startswith(f"{name}.") for other in passing)]
    trains = _runs(module, (), images, training=True)

    def needless(names: Iterable[str]) -> bool:
        return _runs(module, names, images) and (not trains or _runs(module, names, images, training=True))

    return tuple(inner if needless(inner) else (name for name in inner if needless([name])))


def remove_blocks(module: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """Remove blocks in place; return the module."""
    for name in blocks:
        module.set_submodule(name, nn.Identity())
    return module


def _reads(probe: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what each module reads that maps one tensor, once in a pass, to one of the same shape; in running order."""
    found: dict[str, list[Tensor | None]] = {}
    handles = []

    def begin(name: str, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        plain = len(inputs) == 1 and isinstance(inputs[0], Tensor) and not options
        found.setdefault(name, []).append(inputs[0].clone() if plain else None)

    def end(name: str, _: nn.Module, __: Any, written: Any) -> None:
        read = found[name][-1]
        if read is None or not isinstance(written, Tensor) or written.shape != read.shape:
            found[name][-1] = None

    for name, part in probe.named_modules():
        if name and any(isinstance(inside, nn.Conv2d) for inside in part.modules() if inside is not part):
            handles.append(part.register_forward_pre_hook(partial(begin, name), with_kwargs=True))
            handles.append(part.register_forward_hook(partial(end, name)))
    probe(images)
    for handle in handles:
        handle.remove()
    return {name: read for name, (read, *more) in found.items() if read is not None and not more}


def _passes(block: nn.Module, read: Tensor) -> bool:
    """Return whether a block passes on what it reads once all of its weights are zero."""
    silent = copy.deepcopy(block)
    for parameter in silent.parameters():
        parameter.zero_()
    try:
        written = silent(read.clone())
    except Exception:  # any error of another author's code
        return False
    return bool((written - read).abs().max() <= CLOSE * read.abs().max())


def _runs(module: nn.Module, removed: Iterable[str], images: Tensor, training: bool = False) -> bool:
    try:
        remove_blocks(copy.deepcopy(module), removed).train(training)(images)
    except Exception:  # any error of a network that needs the block
        return False
    return True
