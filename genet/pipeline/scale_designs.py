"""Designs scaled to a latency: few of their widths are timed, in turn with the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from genet.arch.external import ModelSpec
from genet.arch.network import Network
from genet.errors import MeasurementError
from genet.latency.profile import SCAN, measure_network
from genet.latency.trace import structure_cost
from genet.pipeline.context import RunContext
from genet.progress import UNSEEN, Tracker
from genet.search.known_designs import Design, to_next_edge
from genet.search.scaling import Scales

SCALING = "4"  # raised when designs are scaled in another way, so that a run scales them anew
C = TypeVar("C")  # the type of a certificate


class ScaledDesigns:
    """The scales of designs, timed as they are asked for; `faults` tells why some could not be, and `tracker` which it is."""

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

    def widened(
        self, network: ModelSpec, certificate: C, limit_ms: float, certify: Callable[[Network], C | None]
    ) -> tuple[ModelSpec, C]:
        """Widen one super-block after the other to the end of its step, if the network is still within the limit.

        The widest is certified; if that fails, the one before it, and so on.
        """
        if not isinstance(network, Network):
            return network, certificate
        widened = [network]
        for index in range(len(network.superblocks)):
            wider = to_next_edge(widened[-1], index)
            if wider is not None and self._ms(wider) <= limit_ms:
                widened.append(wider)
        for candidate in reversed(widened[1:]):
            found = certify(candidate)
            if found is not None:
                return candidate, found
        return network, certificate

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
