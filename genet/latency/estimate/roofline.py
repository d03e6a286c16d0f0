"""The peak performance of a device: a large matrix product and a pass over memory, measured before any network is judged."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from genet.errors import MeasurementError
from genet.latency.estimate.analytic import peak
from genet.latency.estimate.gpus import similar_gpu
from genet.latency.estimate.intensity import BYTES
from genet.latency.ops import Op
from genet.latency.table import Setting
from genet.latency.timing.ratio import ROUND_REPEATS, ROUNDS
from genet.latency.workload import Workload
from genet.storage import Derived, Record

if TYPE_CHECKING:
    from torch import nn

    from genet.latency.timing.meter import Meter

LARGE, SMALL = (2048, 4096, 8192), (512, 1024)  # rows, columns and terms of the products to try
FEW = 4  # threads of a processor that a small product keeps busy
PASS_BYTES = 2**28  # bytes that are read, and as many written: more than every cache holds


class Roof(Record):
    """The best of a device in one number format: TFLOP/s of a matrix product, GB/s of a pass that reads and writes.

    `published_*` are the data sheet's, None if not known. In an estimate the first two are modelled.
    """

    product: str  # the matrix product that reached most
    tflops_per_sec: float
    gb_per_sec: float
    published_tflops_per_sec: float | None
    published_gb_per_sec: float | None

    @property
    def ratio(self) -> float:
        """Compute-to-memory-bandwidth ratio in FLOP per byte, the right-hand side of the paper's equation 1."""
        return 1e3 * self.tflops_per_sec / self.gb_per_sec

    @property
    def published_ratio(self) -> float | None:
        """The same of the data sheet."""
        if self.published_tflops_per_sec is None or self.published_gb_per_sec is None:
            return None
        return 1e3 * self.published_tflops_per_sec / self.published_gb_per_sec

    def at(self, intensity: float) -> float:
        """Return TFLOP/s that a layer of this intensity can reach at most."""
        return min(self.tflops_per_sec, intensity * self.gb_per_sec / 1e3)


class RunRoof(Derived):
    """The roof of the setting that a run measures in."""

    roof: Roof


ProductKind = Literal["linear layer", "convolution"]


@dataclass(frozen=True)
class MatrixProduct:
    """A product of two matrices of about `size` x `size`, split into a batch's images, as something to time."""

    kind: ProductKind
    size: int
    batch: int

    @property
    def rows(self) -> int:
        """Rows of the first matrix per image."""
        return max(1, round(self.size / self.batch))

    @property
    def flops(self) -> int:
        """Operations per batch."""
        return 2 * self.batch * self.rows * self.size**2

    def at(self, batch: int) -> MatrixProduct:
        """Return the same product in a batch of another size."""
        return dataclasses.replace(self, batch=batch)

    @property
    def workload(self) -> Workload:
        """Frameworks run the two kinds by different libraries, and only convolutions in the number format of convolutions."""
        rows, size = self.rows, self.size
        op = Op("product", "conv", rows * size, rows * size, size * size, rows, size, size)

        def build() -> nn.Module:
            from torch import nn

            return nn.Linear(size, size, bias=False) if self.kind == "linear layer" else nn.Conv2d(size, size, 1, bias=False)

        image = (1, rows, size) if self.kind == "linear layer" else (size, rows, 1)
        return Workload(f"{self.kind}, {self.batch * rows} x {size} x {size}", image, lambda: ((op,),), build, whole=False)

    def tflops_per_sec(self, ms: float) -> float:
        """Return the TFLOP/s reached if a batch takes so many milliseconds."""
        return self.flops / ms * 1e-9


def measure_roof(meter: Meter) -> tuple[Roof, MatrixProduct]:
    """Measure the roof, or estimate it; MeasurementError if no product fits into memory.

    The product is returned too: networks are timed in turn with it, so that a device which slows down slows both.
    """
    setting = meter.setting
    rates: dict[MatrixProduct, list[float]] = {}
    failure = MeasurementError("no matrix product was tried")
    kinds: tuple[ProductKind, ...] = ("linear layer", "convolution")
    few = setting.device.kind == "cpu" and (setting.device.processors or 1) <= FEW
    for _, size, kind in itertools.product(range(1 if setting.estimate else ROUNDS), SMALL if few else LARGE, kinds):
        product = MatrixProduct(kind, size, setting.batch)
        try:
            rates.setdefault(product, []).append(product.tflops_per_sec(meter.prepare([product.workload])(ROUND_REPEATS)[0].ms))
        except MeasurementError as fault:
            failure = fault
    if not rates:
        raise failure
    product = max(rates, key=lambda one: median(rates[one]))
    tflops = median(rates[product])
    passing = memory_pass(setting)
    traffic = sum(op.bytes(setting.batch, BYTES[setting.dtype]) for op in passing.ops())
    gpu = similar_gpu(setting.device.name)
    return Roof(
        product=product.workload.name,
        tflops_per_sec=tflops,
        gb_per_sec=traffic / meter.prepare([passing])(ROUND_REPEATS)[0].ms * 1e-6,
        published_tflops_per_sec=gpu and peak(gpu, setting.dtype),
        published_gb_per_sec=gpu and gpu.bandwidth_gbs,
    ), product


def memory_pass(setting: Setting) -> Workload:
    """Return a pass that reads and writes every value of a large batch once, as a copy does."""
    values = max(1, PASS_BYTES // (BYTES[setting.dtype] * setting.batch))
    op = Op("pass", "other", values, values)

    def build() -> nn.Module:
        from torch import nn

        return nn.ReLU()

    return Workload("a pass over memory", (1, 1, values), lambda: ((op,),), build, whole=False)
