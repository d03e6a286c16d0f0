"""The networks that filter pruning is usually shown on: VGG16 with batch normalisation, and ResNets, at 32x32 pixels.

`genet align genet.models.cifar:vgg16 --example 1,3,32,32 --pruned hrank-vgg16` cuts them to a list of widths.
"""

from __future__ import annotations

from torch import Tensor, nn

VGG_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
POOLED = (1, 3, 6, 9, 12)  # convolutions followed by a pooling
RESNET_WIDTHS = (16, 32, 64)
RESNET56_BLOCKS = 9  # per stage


def vgg16(classes: int = 10) -> nn.Sequential:
    """Return VGG16: thirteen 3x3 convolutions (features.0, .3, .7 and so on), five poolings, two linear layers."""
    features: list[nn.Module] = []
    in_width = 3
    for index, width in enumerate(VGG_WIDTHS):
        features += [nn.Conv2d(in_width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if index in POOLED:
            features.append(nn.MaxPool2d(2))
        in_width = width
    classifier = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, classes))
    module = nn.Sequential()
    module.add_module("features", nn.Sequential(*features))
    module.add_module("flatten", nn.Flatten())
    module.add_module("classifier", classifier)
    return module


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 projection if the shapes differ."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_width != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_width, h, w) to (N, width, h / stride, w / stride)."""
        body = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        found: Tensor = self.relu(body + self.shortcut(x))
        return found


class ResNet(nn.Module):
    """Stem, three stages of so many basic blocks each, average pooling, classifier."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        stages, in_width = [], 16
        for number, width in enumerate(RESNET_WIDTHS):
            for index in range(depth):
                stages.append(BasicBlock(in_width, width, stride=2 if number and index == 0 else 1))
                in_width = width
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(in_width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, 32, 32)."""
        found: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return found


def resnet20(classes: int = 10) -> ResNet:
    """Return ResNet-20, which has 0.27 million parameters."""
    return ResNet(3, classes)


def resnet56(classes: int = 10) -> ResNet:
    """Return ResNet-56, which has 0.86 million parameters."""
    return ResNet(RESNET56_BLOCKS, classes)
