"""A fingerprint of the function that an external network computes: it distinguishes two of one name, on any machine."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

CLOSE = 1e-3  # of the norm of the logits: machines round differently, and another network differs more
REPEATED = 2**16 + 1  # so many numbers are drawn for a tensor, and repeated


@torch.no_grad()
def fingerprint(module: nn.Module, resolution: int, channels: int) -> str:
    """Return a word for the answer to one image with fixed weights: the norm of the logits, and two sums of them.

    The network's own weights do not count, for they are saved, and may be drawn anew at every call. The network is not changed.
    """
    rng = np.random.RandomState(0)  # its numbers are the same in every version
    image = torch.tensor(rng.standard_normal((1, channels, resolution, resolution)), dtype=torch.float32)
    tensors = {name: each for name, each in module.state_dict().items() if isinstance(each, Tensor) and each.is_floating_point()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    modes = [(part, part.training) for part in module.modules()]
    try:
        for name, tensor in tensors.items():
            tensor.copy_(_fixed(name, tensor, rng))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            logits = module.eval()(image).double().flatten()
    finally:
        for name, tensor in tensors.items():
            tensor.copy_(before[name])
        for part, training in modes:
            part.training = training
    places = torch.arange(len(logits), dtype=torch.float64)
    found = (logits.norm(), *(logits @ (step * places).cos() for step in (1, 2)))
    return ":".join([f"{resolution}x{channels}", *(f"{float(each):.4g}" for each in found)])


def same_fingerprint(one: str, other: str) -> bool:
    """Return whether two words name the same network, up to rounding."""
    (size, *ours), (other_size, *theirs) = (each.split(":") for each in (one, other))
    found, wanted = (np.array(each, dtype=float) for each in (ours, theirs))
    return size == other_size and np.allclose(found, wanted, rtol=0, atol=CLOSE * wanted[0], equal_nan=True)


def _fixed(name: str, tensor: Tensor, rng: np.random.RandomState) -> Tensor:
    """Return weights of both signs that neither amplify nor damp activations much; variances and scales are about one."""
    values = torch.tensor(np.resize(rng.random_sample(min(tensor.numel(), REPEATED)), tensor.shape))
    if tensor.dim() > 1:
        return (values - 0.5) * math.sqrt(24 * len(tensor) / max(1, tensor.numel()))
    return values - 0.5 if name.endswith(("bias", "mean")) else values + 0.5
