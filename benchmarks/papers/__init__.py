"""The figures of the three papers that this project builds on: numbers alone, each with the table or figure that has it."""

from __future__ import annotations

from dataclasses import dataclass

GENET = "[GENet](https://arxiv.org/abs/2006.14090)"
TAIL_EFFECT = "[tail-effect paper](https://arxiv.org/abs/2011.03897)"
UTILIZATION = "[utilization paper](https://arxiv.org/abs/2212.07936)"


@dataclass(frozen=True)
class Published:
    """One figure of a paper: its table or figure, its subject, its value and unit; a curve without numbers has no value."""

    where: str
    what: str
    value: float | None
    unit: str = ""
