"""Designs scaled to a latency: few of their widths are timed, in turn with the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from genet.arch.external import ModelSpec
from genet.arch.network import Network
from genet.errors import MeasurementError
from genet.latency.profile import SCAN, measure_network
from genet.latency.trace import structure_cost
from genet.pipeline.context import RunContext
from genet.progress import UNSEEN, Tracker
from genet.search.known_designs import Design, to_next_edge
from genet.search.scaling import Scales, forms_within

SCALING = "7"  # raised when designs are scaled in another way, so that a run scales them anew
C = TypeVar("C")  # the type of a certificate


class ScaledDesigns:
    """The scales of designs, timed when they are needed; `faults` says why some could not be, `tracker` shows which is."""

    def __init__(self, job: RunContext, tracker: Tracker = UNSEEN) -> None:
        self._job, self._tracker, self._timed = job, tracker, 0
        self._reference_ms = job.table.masternet_ms(job.reference)
        self.faults: list[MeasurementError] = []

    def forms(self, design: Design, resolution: int) -> list[Scales[ModelSpec]]:
        """Return a design at every depth and width, ready to be timed."""
        expected = self._reference_ms / structure_cost(self._job.reference).macs
        return [
            Scales(networks, [structure_cost(network).macs for network in networks], self._ms, expected)
            for networks in design.forms(resolution)
        ]

    def within(
        self, forms: Sequence[Scales[ModelSpec]], limit_ms: float, certify: Callable[[ModelSpec], C | None], whole_macs: int
    ) -> list[tuple[ModelSpec, C]]:
        """Return the scales of a design's forms that are certified within a limit, widened to the ends of their steps.

        Of a scale the widest network is certified; if that fails, the one before it, and so on, down to the scale itself. For
        `whole_macs` see `forms_within`.
        """

        def certified(scale: ModelSpec) -> tuple[ModelSpec, C] | None:
            for network in reversed(self._widened(scale, limit_ms)):
                found = certify(network)
                if found is not None:
                    return network, found
            return None

        return forms_within(forms, limit_ms, certified, lambda network: structure_cost(network).macs, whole_macs)

    def _widened(self, scale: ModelSpec, limit_ms: float) -> Sequence[ModelSpec]:
        """Return a scale, and after it what it becomes as one super-block after the other goes to the end of its step."""
        if not isinstance(scale, Network):
            return [scale]
        networks = [scale]
        for index in range(len(scale.superblocks)):
            wider = to_next_edge(networks[-1], index)
            if wider is not None and self._ms(wider) <= limit_ms:
                networks.append(wider)
        return networks

    def _ms(self, network: ModelSpec) -> float:
        """Return milliseconds per batch, infinite if it cannot be timed."""
        self._timed += 1
        self._tracker.now(f"{network.name} at {network.input.resolution} pixels, scale {self._timed}")
        try:
            row = measure_network(self._job.table, self._job.meter, network, self._job.reference, SCAN)
        except MeasurementError as fault:
            self.faults.append(fault)
            return math.inf
        return row.ratio * self._reference_ms
