"""Networks of other people for images of digits, each with a way of its own; named by tests as MODULE:FUNCTION."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm


def conv(read: int, written: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(read, written, 3, stride, 1, bias=False), nn.BatchNorm2d(written), nn.ReLU())


class Net(nn.Module):
    """Three convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid, self.last, self.head = conv(1, 40), conv(40, 48, 2), conv(48, 48), nn.Linear(48, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.mid(self.stem(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x))


def plain() -> nn.Module:
    return Net()


def parametrized() -> nn.Module:
    net = Net()
    parametrizations.weight_norm(net.stem[0])
    parametrizations.spectral_norm(net.mid[0])
    parametrizations.orthogonal(net.head)
    return net


def hooked() -> nn.Module:
    """As it was done before torch had parametrizations."""
    net = Net()
    weight_norm(net.stem[0])
    spectral_norm(net.mid[0])
    return net


def masked() -> nn.Module:
    """Pruned twice, by filters and by weights, with the masks still on."""
    net = Net()
    prune.ln_structured(net.mid[0], "weight", amount=0.25, n=2, dim=0)
    prune.l1_unstructured(net.mid[0], "weight", amount=0.1)
    prune.l1_unstructured(net.head, "bias", amount=5)
    return net


def mask_under_a_norm() -> nn.Module:
    net = Net()
    weight_norm(net.mid[0])
    prune.l1_unstructured(net.mid[0], "weight_v", amount=0.25)
    return net


def half() -> nn.Module:
    return Net().half()


class Lazy(nn.Module):
    """Layers that get their shapes from the first image."""

    def __init__(self, unused: bool = False) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.LazyConv2d(40, 3, 2, 1), nn.LazyBatchNorm2d(), nn.LazyLinear(10)
        if unused:
            self.beside = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3)))


def lazy() -> nn.Module:
    return Lazy()


def lazy_for_ever() -> nn.Module:
    return Lazy(unused=True)


def compiled() -> Any:
    return torch.compile(Net())


def parallel() -> nn.Module:
    return nn.DataParallel(Net())


ONE = Net()


def the_same_every_time() -> nn.Module:
    return ONE


def on_the_meta_device() -> nn.Module:
    return Net().to("meta")


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(conv(1, 8), nn.Flatten(), nn.Linear(512, 10)))


class Trains(Net):
    """Its train() returns nothing."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


class Locked(Net):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()


class Remembers(Net):
    """Holds a result of its last pass, which the function that builds it has made."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.features(x)
        return self.head(self.seen)


def remembers() -> nn.Module:
    net = Remembers()
    net(torch.zeros(2, 1, 8, 8))
    return net


class Scales(Net):
    """Its answer depends on numbers that are neither parameters nor buffers, of torch's generator or of numpy's."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) * self.scale


def scaled_by_torch() -> nn.Module:
    return Scales(torch.rand(48))


def scaled_by_numpy() -> nn.Module:
    return Scales(torch.tensor(np.random.default_rng().random(48), dtype=torch.float32))


class Looks(Net):
    """Looks at a tensor's value while it is built, as the rates of stochastic depth are often made."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]


Named = namedtuple("Named", ("logits", "auxiliary"))


class Auxiliary(Net):
    """Answers with more than its logits while it is trained."""

    def __init__(self, answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.second, self.answer = nn.Linear(40, 10), answer

    def forward(self, x: Tensor) -> Any:
        early = self.stem(x)
        features = self.last(self.mid(early)).mean((2, 3))
        logits = self.head(features)
        return self.answer(logits, self.second(early.mean((2, 3))), features) if self.training else logits


def main_first() -> nn.Module:
    return Auxiliary(lambda logits, second, _: (logits, second))


def main_last() -> nn.Module:
    return Auxiliary(lambda logits, second, features: [features, second, logits])


def named() -> nn.Module:
    return Auxiliary(lambda logits, second, _: Named(logits, second))


def by_name() -> nn.Module:
    return Auxiliary(lambda logits, second, _: {"aux": second, "out": logits})


def nested() -> nn.Module:
    return Auxiliary(lambda logits, second, _: (logits, (second,)))


def features_alone() -> nn.Module:
    return Auxiliary(lambda *answers: answers[2])


def second_alone() -> nn.Module:
    return Auxiliary(lambda *answers: {"aux": answers[1]})


class Taught(Net):
    """Wants labels while it is trained."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.training:
            raise ValueError("labels, please")
        return super().forward(x)


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


def half_frozen() -> nn.Module:
    net = Net()
    net.stem.requires_grad_(False)
    return net


class Always(Net):
    """Answers with a dictionary, trained or not."""

    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


class Convolutional(nn.Module):
    """No linear layer: the last convolution classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(1, 16, 2), nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x)).mean((2, 3))


class Tied(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other, self.last = conv(1, 40), conv(40, 40), conv(40, 40), conv(40, 70)
        self.other[0].weight = self.one[0].weight
        self.head = nn.Linear(70, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.other(self.one(self.stem(x)))).mean((2, 3)))


def fetched() -> nn.Module:
    """Fetches the weights it begins with."""
    import timm

    return timm.create_model("test_byobnet", pretrained=True, num_classes=10, in_chans=1)
