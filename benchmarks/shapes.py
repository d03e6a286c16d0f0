"""timm's designs at 32x32 pixels with widths scaled: rivals of a search at the same latency.

Each keeps its own block, depths and proportions. The first stride after the stem is taken out, so that all shrink 32 pixels to
2, as the MasterNet they are held against does; `efficientnet` keeps its squeeze-and-excitation and swish.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from timm.models.byobnet import ByoBlockCfg

CLASSES = 10


def resnet(width: float) -> nn.Module:
    """ResNet-18: eight basic blocks."""
    from timm.models.byobnet import ByoBlockCfg

    return _byob(width, 64, *(ByoBlockCfg(type="basic", d=2, c=64 * 2**k, s=1 if k == 0 else 2) for k in range(4)))


def regnet(width: float) -> nn.Module:
    """RegNetX-200MF: bottlenecks of ratio 1 with groups of 8 channels."""
    from timm.models.byobnet import ByoBlockCfg

    stages = zip((1, 1, 4, 7), (24, 56, 152, 368), (1, 2, 2, 2), strict=True)
    return _byob(width, 32, *(ByoBlockCfg(type="bottle", d=d, c=c, s=s, gs=8, br=1.0) for d, c, s in stages))


def gernet(width: float) -> nn.Module:
    """GENet-normal, as timm's gernet_m."""
    from timm.models.byobnet import ByobNet, model_cfgs

    cfg = model_cfgs["gernet_m"]
    first, *rest = cfg.blocks
    blocks = (dataclasses.replace(first, s=1), *rest)
    return ByobNet(dataclasses.replace(cfg, blocks=blocks, width_factor=width), num_classes=CLASSES)


def mobilenetv2(width: float) -> nn.Module:
    """MobileNetV2; its last convolution keeps 1,280 channels, as its paper has it for narrow ones."""
    from timm.models.efficientnet import _gen_mobilenet_v2

    return _first_stride_out(_gen_mobilenet_v2("mobilenetv2_100", channel_multiplier=width, num_classes=CLASSES))


def efficientnet(width: float) -> nn.Module:
    """EfficientNet-B0."""
    from timm.models.efficientnet import _gen_efficientnet

    return _first_stride_out(_gen_efficientnet("efficientnet_b0", channel_multiplier=width, num_classes=CLASSES))


SHAPES: dict[str, Callable[[float], nn.Module]] = {
    "resnet": resnet,
    "regnet": regnet,
    "mobilenetv2": mobilenetv2,
    "gernet": gernet,
    "efficientnet": efficientnet,
}


def _byob(width: float, stem: int, *stages: ByoBlockCfg) -> nn.Module:
    from timm.models.byobnet import ByobNet, ByoModelCfg

    cfg = ByoModelCfg(blocks=stages, stem_chs=stem, stem_type="3x3", stem_pool="", width_factor=width)
    return ByobNet(cfg, num_classes=CLASSES)


def _first_stride_out(model: nn.Module) -> nn.Module:
    model.blocks[1][0].conv_dw.stride = (1, 1)  # type: ignore[index,union-attr]
    return model
