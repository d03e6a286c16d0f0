"""Figures of the utilization paper (Kosaian and Phanishayee, arXiv 2212.07936). Its survey lies beside this module as CSV."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from genet.studies.survey.survey import Surveyed
from genet.studies.tables import read_table
from papers import Published

PEAK_TFLOPS = 100  # of a V100 in fp16, measured by a large matrix product (section 3.1)
RATIO = Published("figure 2a", "compute-to-memory ratio of a V100 in fp16", 139, "FLOP/byte")
ON_ALL = Published("figure 1", "networks on all three frontiers: TResNet-M alone", 1)
SURVEYED = Published("table of appendix A", "networks", 103)
FOLDED = Published("figure 2b", "four images folded into one: speed of a network on the frontier, about", 1.5)
SPACE = 32767  # networks of NATS-Bench's size space
LEFT = {  # networks on the frontier of throughput and this figure (section 4.4)
    "utilization": Published("section 4.4", "networks left by utilization, 144 of 32,767", round(100 * 144 / SPACE, 2), "%"),
    "FLOPs": Published("section 4.4", "networks left by FLOPs, 255 of 32,767", round(100 * 255 / SPACE, 2), "%"),
}
REWARD_POWER, SEEDS = 0.07, 9  # of section 4.5 and figure 6


@cache
def survey() -> tuple[Surveyed, ...]:
    """Return the 93 networks of the survey that have both figures: V100, TensorRT, fp16, the largest batch."""
    return read_table(Path(__file__).parent / "utilization_survey.csv", Surveyed, ("model",))
