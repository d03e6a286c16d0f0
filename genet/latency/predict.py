"""Prediction of a whole network's latency: the sum over its blocks, corrected by measurements of random whole networks.

A sum misses effects between blocks (caches, fusion, costs paid once per pass), and in eager mode a network of
many small kernels waits for the host: its latency is then kernels x host cost, whatever their widths.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from genet.arch.network import Block, Network
from genet.errors import EvidenceError
from genet.latency.ops import kernel_count, network_ops
from genet.latency.table import LatencyTable, NetworkRow
from genet.storage import Record

ROUNDING = 1e-6  # relative errors this close count as equal


class Correction(Record):
    """latency = max(scale * sum + kernels * cost between kernels, kernels * host cost), in milliseconds per batch."""

    scale: float
    kernel_ms: float  # cost of a kernel in a network beyond its share of its block's own time
    host_ms: float  # host cost per kernel
    networks: int  # networks it was fitted on
    left_out_error: float | None  # mean relative error on networks left out of the fit one at a time

    def ms(self, sum_ms: float, ops: int) -> float:
        """Return the milliseconds per batch of a network whose blocks take `sum_ms` together and launch `ops` kernels."""
        return max(self.device_ms(sum_ms, ops), self.host_ms * ops)

    def device_ms(self, ms: float, ops: int) -> float:
        """Return its device time, or that of a single block, which adds up over the blocks of a network."""
        return self.scale * ms + self.kernel_ms * ops


class CalibrationNetwork(Record):
    """A calibration network: its latency measured whole, beside the sum of its blocks."""

    sum_ms: float
    ops: int
    ms: float


def fit_correction(wholes: Sequence[CalibrationNetwork], waits_for_host: bool = True) -> Correction:
    """Return the correction that errs least, relatively, on networks left out one at a time.

    Forms from the plainest: a scale, a scale and a cost per kernel, either with a host cost if the device may wait for its host.
    EvidenceError without a network.
    """
    if not wholes:
        raise EvidenceError("a correction needs a network measured whole, got none; `genet profile RUN` measures some")
    hosts = [0.0, *sorted({whole.ms / whole.ops for whole in wholes})] if waits_for_host and len(wholes) >= 5 else [0.0]
    forms = list(itertools.product((False, True) if len(wholes) >= 5 else (False,), hosts))
    errors = [_left_out_error(wholes, *form) for form in forms]
    best = 0
    for form in range(1, len(forms)):
        if errors[form] < 0.95 * errors[best] - ROUNDING:  # a richer form must pay
            best = form
    scale, kernel_ms = _fit(wholes, *forms[best])
    error = errors[best] if len(wholes) > 1 else None
    return Correction(scale=scale, kernel_ms=kernel_ms, host_ms=forms[best][1], networks=len(wholes), left_out_error=error)


def _left_out_error(wholes: Sequence[CalibrationNetwork], per_kernel: bool, host_ms: float) -> float:
    if len(wholes) < 2:
        return math.inf
    errors = []
    for left_out in range(len(wholes)):
        rest = [whole for number, whole in enumerate(wholes) if number != left_out]
        scale, kernel_ms = _fit(rest, per_kernel, host_ms)
        one = wholes[left_out]
        errors.append(abs(max(scale * one.sum_ms + kernel_ms * one.ops, host_ms * one.ops) / one.ms - 1))
    return statistics.fmean(errors)


def _fit(wholes: Sequence[CalibrationNetwork], per_kernel: bool, host_ms: float) -> tuple[float, float]:
    """Solve least squares of the relative errors, over the networks that the device and not the host decides."""
    device = [whole for whole in wholes if whole.ms > 1.02 * host_ms * whole.ops]
    if not device:  # the sums are then only known to be no longer than the measured times
        return min(1.0, *(whole.ms / whole.sum_ms for whole in wholes)), 0.0
    sums, ms = np.array([whole.sum_ms for whole in device]), np.array([whole.ms for whole in device])
    if per_kernel and len(device) >= 3:
        columns = np.column_stack([sums / ms, [whole.ops / whole.ms for whole in device]])
        (scale, kernel_ms), *_ = np.linalg.lstsq(columns, np.ones(len(ms)), rcond=None)
        if scale > 0 and kernel_ms > 0:
            return float(scale), float(kernel_ms)
    ratios = sums / ms
    return float(ratios.sum() / (ratios**2).sum()), 0.0


class Predictor:
    """A predictor of every network whose blocks a table holds, corrected by networks measured whole.

    `rows` are those networks; EvidenceError if the table cannot predict a single one of them.
    """

    def __init__(self, table: LatencyTable, masternet: Network, rows: Iterable[NetworkRow]) -> None:
        self.table, self._masternet_ms = table, table.masternet_ms(masternet)
        self._waits = table.setting.device.kind != "cpu" and table.setting.runtime == "eager"
        self._wholes = [whole for row in rows if (whole := self._whole(row))]
        self.correction = fit_correction(self._wholes, self._waits)

    def learn(self, row: NetworkRow) -> None:
        """Correct later predictions by one more network measured whole."""
        whole = self._whole(row)
        if whole:
            self._wholes.append(whole)
            self.correction = fit_correction(self._wholes, self._waits)

    def ms_by_in_width(self, block: Block, in_widths: Sequence[int]) -> np.ndarray:
        """Return the predicted device milliseconds per batch that a block adds to a network, for each width that it may read."""
        own = np.array(in_widths) == block.width
        same, other = (kernel_count(dataclasses.replace(block, in_width=width)) for width in (block.width, block.width + 1))
        ms = self.table.ms_by_in_width(block, in_widths)
        return self.correction.scale * ms + self.correction.kernel_ms * np.where(own, same, other)

    def ms(self, network: Network) -> float:
        """Return the predicted milliseconds per batch; EvidenceError if a block of it is not in the table."""
        return self.correction.ms(self.table.predict_ms(network), len(network_ops(network)))

    def _whole(self, row: NetworkRow) -> CalibrationNetwork | None:
        """Return a row beside the sum of its blocks; None if the table lacks one, as for a network outside the kept widths."""
        try:
            sum_ms = self.table.predict_ms(Network.parse(row.network))
        except EvidenceError:
            return None
        return CalibrationNetwork(sum_ms=sum_ms, ops=row.ops, ms=row.ratio * self._masternet_ms) if sum_ms < math.inf else None
