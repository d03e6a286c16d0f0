"""Other authors' modules made plain: every weight a parameter, in fp32, on the processor, as the module answers in eval mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from genet.errors import GenetError, first_line


def own_copy(network: object, doing: str) -> nn.Module:
    """Return a copy of a user's module in eval mode; GenetError if it is not a module, or cannot be copied."""
    if not isinstance(network, nn.Module):
        given = f"the class {network.__name__}" if isinstance(network, type) else f"a {type(network).__name__}"
        raise GenetError(f"{doing} failed: got {given}, expected a torch.nn.Module, or a name such as timm:resnet50; give one")
    try:
        return copy.deepcopy(network).eval()
    except Exception as fault:  # any error of a module's own copying
        raise GenetError(
            f"{doing} failed: got a {type(network).__name__} that copy.deepcopy refuses ({first_line(fault)}), expected a module "
            "that can be copied; give its network alone"
        ) from None


def with_plain_weights(found: nn.Module, source: str) -> nn.Module:
    """Return a copy with no weight that is computed from others: reparametrisations and masks become part of the weights.

    `baked` names them later. GenetError, with a remedy, for a module that cannot be copied, cut or saved.
    """
    if isinstance(found, torch.jit.ScriptModule):
        raise GenetError(
            f"{source}() returned a TorchScript program, expected a module of Python code; return the network that it was made "
            "from"
        )
    found = getattr(found, "_orig_mod", found)  # the module inside torch.compile's wrapper
    found = found.module if isinstance(found, nn.DataParallel) else found
    if any(tensor.is_meta for tensor in chain(found.parameters(), found.buffers())):
        raise GenetError(
            f"{source}() returned a network on the meta device, expected one with weights; build it on the processor"
        )
    training = found.training
    if found.eval() is not found:
        raise GenetError(f"{source}() returned a module whose train() returns something else, expected itself, as torch's does")
    try:
        changes = (*_formats(found), *_bake(found.cpu().float()))
        plain = copy.deepcopy(found.train(training))  # a function may return the same module at every call
    except Exception as fault:  # any error of a module's own copying, or of a reparametrisation
        raise GenetError(
            f"{source}() returned a network that cannot be copied with its weights as parameters ({first_line(fault)}); "
            "remove what computes its weights, as with torch.nn.utils.parametrize.remove_parametrizations or "
            "torch.nn.utils.prune.remove, and all that copy.deepcopy refuses"
        ) from None
    plain.genet_baked = changes
    return plain


def baked(module: nn.Module) -> str | None:
    """Name the computed weights that became plain when a network was built; None if there were none."""
    changes: tuple[str, ...] = getattr(module, "genet_baked", ())
    if not changes:
        return None
    zeros = "; training moves the zeros too" if any("zero" in each for each in changes) else ""
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"made plain weights: {', '.join(changes[:3])}{more}{zeros}"


def _formats(module: nn.Module) -> Iterator[str]:
    """Yield other number formats than fp32."""
    dtypes = {parameter.dtype for parameter in module.parameters()} - {torch.float32}
    yield from (f"all of {dtype} (fp32 now)" for dtype in sorted(map(str, dtypes)))


def _bake(module: nn.Module) -> Iterator[str]:
    """Make every computed weight a parameter; yield the name of each, and its computation."""
    for place, part in list(module.named_modules()):
        if parametrize.is_parametrized(part):
            assert isinstance(part.parametrizations, nn.ModuleDict)
            for name, ways in list(part.parametrizations.items()):
                kinds = " and ".join(type(computation).__name__.strip("_") for computation in ways.children())
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)
                yield _in_words(part, place, name, kinds)
        for hook in reversed(list(part._forward_pre_hooks.values())):  # the last parametrisation computes from those beneath it
            name = getattr(hook, "_tensor_name", getattr(hook, "name", ""))
            for kind, remove, computation in HOOKS:
                if isinstance(hook, kind):
                    remove(part, name)
                    yield _in_words(part, place, name, computation)


def _without_spectral_norm(part: nn.Module, name: str) -> None:
    """Remove spectral norm with its hook on loading, which torch leaves and which would expect its names for weights."""
    remove_spectral_norm(part, name)
    for key, hook in list(part._load_state_dict_pre_hooks.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del part._load_state_dict_pre_hooks[key]


def _in_words(part: nn.Module, place: str, name: str, computation: str) -> str:
    """Return in words, such as mid.0.weight (a mask, 30% of it zero)."""
    zeros = float((getattr(part, name) == 0).float().mean())
    return f"{place}.{name} ({computation}{f', {zeros:.0%} of it zero' if zeros else ''})".lstrip(".")


HOOKS: tuple[tuple[type, Callable[[nn.Module, str], object], str], ...] = (  # hooks that compute a weight before every pass
    (prune.BasePruningMethod, prune.remove, "a mask"),
    (WeightNorm, remove_weight_norm, "weight norm"),
    (SpectralNorm, _without_spectral_norm, "spectral norm"),
)
