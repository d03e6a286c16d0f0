"""The order of a network's classes: its logits in that of other labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from genet.models.build import GENet


def numbered_like(module: nn.Module, labels: Sequence[str] | None, wanted: Sequence[str] | None) -> nn.Module | None:
    """Have a network's logits come in the order of the wanted classes; None if it has others. Unnamed ones are the same.

    The classifier of a network of super-blocks is reordered in place, so that its weights can go on alone; others are wrapped.
    """
    if not labels or not wanted or [*labels] == [*wanted]:
        return module
    if {*labels} != {*wanted}:
        return None
    places = [labels.index(label) for label in wanted]
    if not isinstance(module, GENet):
        return _Reordered(module, places)
    for tensor in module.head.fc.parameters():
        tensor.data = tensor.data[places]
    return module


class _Reordered(nn.Module):
    """A network whose logits come in another order: `places` holds their former positions."""

    def __init__(self, inside: nn.Module, places: list[int]) -> None:
        super().__init__()
        self.inside, self.places = inside, places

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits in the other order."""
        logits: Tensor = self.inside(images)
        return logits[:, self.places]
