"""Small networks that tie layers in every way there is."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(in_width: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padded = nn.Conv2d(in_width, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(padded, nn.BatchNorm2d(width), nn.ReLU())


class Tangled(nn.Module):
    """A stem; a residual addition; a depthwise convolution; a concatenation; a flattened map of 2 x 2; two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, stride=2)
        self.inner = conv(16, 24)
        self.outer = conv(24, 16)
        self.wide = conv(16, 40, kernel=1)
        self.deep = conv(40, 40, groups=40, stride=2)
        self.left = conv(40, 12)
        self.right = conv(40, 20)
        self.last = conv(32, 16)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.hidden = nn.Linear(64, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(x))
        x = self.deep(self.wide(x))
        x = self.last(torch.cat([self.left(x), self.right(x)], dim=1))
        return self.head(torch.relu(self.hidden(self.pool(x).flatten(1))))


def tangled() -> nn.Module:
    torch.manual_seed(0)
    return Tangled()


def grouped() -> nn.Module:
    """A convolution in four groups, between two plain ones."""
    return nn.Sequential(
        conv(3, 16), conv(16, 32, groups=4), conv(32, 24), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
    )


def linear() -> nn.Module:
    """No convolution at all."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))


class Branching(nn.Module):
    """Returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.stem(x)


def broken() -> nn.Module:
    """Its second convolution reads other channels than the first writes."""
    return nn.Sequential(conv(3, 16), conv(8, 16))


def nothing() -> int:
    """No network."""
    return 7


class Curious(nn.Module):
    """Looks at the values of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x if x.sum().item() >= 0 else -x).mean((2, 3)))


def curious() -> nn.Module:
    return Curious()


class Gained(nn.Module):
    """Has a parameter of its own, for the channels of two layers that are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = conv(3, 16), conv(16, 16, groups=16)
        self.gain, self.head = nn.Parameter(torch.ones(1, 16, 1, 1)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.deep(self.stem(x)) * self.gain).mean((2, 3)))


def fixed() -> nn.Module:
    """One convolution, which writes the answer."""
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Forms(nn.Module):
    """A stem, one form of forward that a graph may misread, and a head."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem, self.a, self.b = conv(3, 32, stride=2), conv(32, 20), conv(32, 12)
        self.c, self.quarter = conv(32, 32), conv(16, 16)
        self.plain = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32, affine=False))
        self.still = nn.BatchNorm2d(32, track_running_stats=False)
        self.last = conv(64 if form == "itself" else 32, 16)
        self.head = nn.Linear(16 * 64 if form == "channels last" else 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.last(getattr(self, self.form.replace(" ", "_"))(x))
        if self.form == "channels last":
            return self.head(x.permute(0, 2, 3, 1).flatten(1))
        return self.head(x.mean((2, 3)))

    def sum_and_parts(self, x: Tensor) -> Tensor:
        return self.c(x) + torch.cat([self.a(x), self.b(x)], dim=1)

    def itself(self, x: Tensor) -> Tensor:
        return torch.cat([x, x + self.c(x)], dim=1)

    def halves(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return torch.cat([left, self.quarter(right)], dim=1)

    def known_width(self, x: Tensor) -> Tensor:
        return self.c(x.view(x.shape[0], 32, 8, 8))

    def padded(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.a(x), (0, 0, 0, 0, 6, 6)) + x

    def shuffled(self, x: Tensor) -> Tensor:
        return self.c(x.view(-1, 4, 8, 8, 8).transpose(1, 2).reshape(-1, 32, 8, 8))

    def normalised(self, x: Tensor) -> Tensor:
        return self.c(nn.functional.normalize(x, dim=1))

    def channels_last(self, x: Tensor) -> Tensor:
        return self.c(x)

    def without_scale(self, x: Tensor) -> Tensor:
        return self.still(self.plain(x))


class TwoNames(nn.Module):
    """One convolution under two names, run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = conv(3, 32, stride=2), conv(32, 32)
        self.other, self.head = self.one, nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.other(self.one(self.stem(x))).mean((2, 3)))


class Activated(nn.Conv2d):
    """A convolution with its activation inside."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__(in_width, width, 3, padding=1)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(super().forward(x))


def own_convolution() -> nn.Sequential:
    return nn.Sequential(
        Activated(3, 16), nn.BatchNorm2d(16), conv(16, 24), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
    )


def two_names() -> nn.Module:
    torch.manual_seed(0)
    return TwoNames()


def without_scale() -> nn.Module:
    """Normalisations without scale, shift or running statistics."""
    torch.manual_seed(0)
    return Forms("without scale")
