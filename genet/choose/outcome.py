"""What a job ends with: per budget the network that won, with everything that was predicted and found."""

from __future__ import annotations

import math

from genet.files import Derived, Record
from genet.latency.table import Setting
from genet.spec.recipe import Budget

TELLING = 30  # images: with fewer, a standard error says little
MOVED = 0.02  # of the loss of guessing: what a network that learns is below at the least


def percent(share: float) -> str:
    """A share as people read it. The regression is linear and knows no ceiling, so a prediction may lie above 100 %."""
    return "over 100%" if share > 1 else f"{share:.1%}"


class Trained(Derived):
    """A trained network. Accuracies are 0 to 1; `nas_accuracy` is on the `nas_images` held out for the search."""

    network: str
    resolution: int
    nas_accuracy: float
    nas_images: int
    test_accuracy: float
    loss: float | None = None  # mean training loss of the last epoch; None if it was trained elsewhere

    def why_unlearnt(self, classes: int) -> str | None:
        """Say why the network seems to have learnt nothing; None if it has, or if too few images are held out to tell.

        Chance is one class of `classes`, whose cross-entropy is their logarithm, with softened labels too.
        """
        if self.nas_images < TELLING:
            return None
        chance, guessing = 1 / classes, math.log(classes)
        error = math.sqrt(chance * (1 - chance) / self.nas_images)
        if self.nas_accuracy <= chance + 2 * error:
            told = f", and its training loss {self.loss:.4g}, where guessing has {guessing:.3f}" if self.loss is not None else ""
            return f"its accuracy is {percent(self.nas_accuracy)}, within two standard errors of chance ({percent(chance)}){told}"
        if self.loss is not None and self.loss > (1 - MOVED) * guessing:
            return f"its training loss is {self.loss:.3f}, and guessing has {guessing:.3f}"
        return None


class Outcome(Record):
    """One line of the last table. Latencies are milliseconds per image."""

    budget: Budget
    budget_ms_per_image: float
    name: str
    network: str
    resolution: int
    predicted_accuracy: float
    nas_accuracy: float
    test_accuracy: float
    predicted_ms_per_image: float
    measured_ms_per_image: float | None  # None where latencies are another machine's evidence
    interval_ms_per_image: float | None
    parameters: int
    macs: int
    export: str  # folder, relative to the run folder


class Outcomes(Derived):
    """The last table, with the MasterNet to compare with, and the setting in which all latencies were measured."""

    setting: Setting
    masternet: Trained
    masternet_ms_per_image: float
    outcomes: tuple[Outcome, ...]
