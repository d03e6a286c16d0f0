"""The latency table: measured blocks and networks of one setting, and a network's latency as the sum of its blocks.

On disk it is a journal that can be passed on: every row carries the digest of its setting, and the setting is in
the journal too. Rows of different settings never mix.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import ValidationError, model_validator

from genet.arch.external import ModelSpec
from genet.arch.layers import is_repeated
from genet.arch.network import Block, Network, blocks
from genet.config.recipe import Dtype, Measure, MemoryFormat, Runtime
from genet.device import DeviceCard
from genet.errors import EvidenceError
from genet.latency.workload import read_blocks
from genet.names import counted
from genet.storage import Journal, Record, digest

MIXED = "TF32 convolutions, IEEE linear layers"  # as torch serves it by default, and `fp32_as_served` pins it
FP32 = {"onnxruntime": "TF32", "tensorrt": "TF32"}  # these runtimes allow TF32 everywhere by default


class Setting(Record):
    """All facts that a latency depends on besides the block itself. Rows of different settings never mix."""

    device: DeviceCard
    runtime: Runtime
    package: str | None  # version of the runtime's own package, if it is not torch
    dtype: Dtype
    memory_format: MemoryFormat
    batch: int
    fp32: str | None = None  # meaning of fp32 on a measured GPU

    @classmethod
    def of(cls, card: DeviceCard, measure: Measure) -> Setting:
        """Return the setting in which a recipe measures on a device; on a GPU, `auto` is CUDA graphs."""
        automatic: Runtime = "eager" if card.kind == "cpu" else "cudagraph"
        runtime = automatic if measure.runtime == "auto" else measure.runtime
        return cls(
            device=card,
            runtime=runtime,
            package=_version(runtime) if runtime in ("onnxruntime", "tensorrt") and card.kind != "estimate" else None,
            dtype=measure.dtype,
            memory_format=measure.memory_format,
            batch=measure.batch,
            fp32=FP32.get(runtime, MIXED) if card.kind == "cuda" and measure.dtype == "fp32" else None,
        )

    @property
    def digest(self) -> str:
        """Twelve digits that stand for the setting in every row of a journal; facts that cannot change a latency are left out.

        So are facts outside the card that are None: a fact added by a later version changes no digest while it is None.
        """
        driver = self.device.driver and ".".join(self.device.driver.split(".")[:2])  # later parts are bug-fix releases
        plain = self.model_copy(update={"device": self.device.model_copy(update={"driver": driver})})
        left_out: dict[str, bool | set[str]] = {"device": {"memory_bytes", "python", "platform"}, "fp32": self.fp32 is None}
        return digest(plain.model_dump_json(exclude=left_out))[:12]

    @property
    def estimate(self) -> bool:
        """Return whether the latencies come from a model of an absent device."""
        return self.device.kind == "estimate"

    def __str__(self) -> str:
        device = self.device
        versions = (("driver", device.driver), ("torch", device.torch), (self.runtime, self.package))
        software = [f"{package} {version}" for package, version in versions if version]
        name = device.name
        if device.kind == "cpu" and device.processors is not None:
            name += f", {counted(device.processors, 'thread')}"
        return ", ".join([name, f"batch {self.batch}", self.dtype, self.memory_format.replace("_", " "), self.runtime, *software])


def _version(package: str) -> str | None:
    try:
        return str(importlib.import_module(package).__version__)
    except ImportError:
        return None


class BlockRow(Record):
    """Latency of one block in context, in milliseconds per batch; or the reason why it has none."""

    block: Block
    ops: int  # kernels
    ms: float | None = None
    median_ms: float | None = None
    spread: float | None = None  # interquartile range of the repeats over the median
    drift: float = 1.0  # how much slower the machine was than at the start of the table, by the sentinel
    failure: str | None = None


class Rounds(Record):
    """Milliseconds per batch of a workload and of a reference timed in turn with it, round by round."""

    ms: tuple[float, ...]
    reference_ms: tuple[float, ...]  # tells how fast the machine was
    spread: float  # the larger one of the last round

    @model_validator(mode="after")
    def _rounds_are_pairs(self) -> Self:
        if not self.ms or len(self.ms) != len(self.reference_ms):
            raise ValueError("a network's row must have rounds, each with the reference's latency")
        return self

    def first(self, count: int) -> Self:
        """Return the first rounds alone."""
        return self.model_copy(update={"ms": self.ms[:count], "reference_ms": self.reference_ms[:count]})

    @property
    def mean_ms(self) -> float:
        """Milliseconds per batch on the plain clock."""
        return statistics.fmean(self.ms)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The latency over the reference's, round by round, which the machine's drift cannot affect."""
        return tuple(own / other for own, other in zip(self.ms, self.reference_ms, strict=True))

    @property
    def ratio(self) -> float:
        """The mean of the ratios."""
        return statistics.fmean(self.ratios)


class NetworkRow(Rounds):
    """Latency of a whole network: rounds in which it was timed in turn with a reference, which for the MasterNet is itself."""

    network: str  # its notation
    reference: str
    ops: int


class LatencyTable:
    """A journal of measurements, replayed. The rows of the given setting are the table; others stay untouched.

    Rows that another process adds to the journal meanwhile are replayed whenever this one adds something.
    """

    def __init__(self, journal: Journal, setting: Setting) -> None:
        self._journal, self.setting = journal, setting
        self._blocks: dict[Block, BlockRow] = {}
        self._networks: dict[str, NetworkRow] = {}
        self.sentinels: dict[str, list[float]] = {}  # the readings of each, in milliseconds
        self._curve_of: dict[Block, tuple[np.ndarray, np.ndarray]] | None = None
        self._slower: float | None = None
        content = journal.read()
        self.damaged = content.damaged
        self._setting_written = False  # written again by every session: one damaged line must not cost a whole file
        earlier = (name for name, known in _settings(content.records).items() if known.digest == setting.digest)
        self._names = {setting.digest, *earlier}
        self._replay(content.records)

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self._journal.path

    def _replay(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            if record.get("setting") in self._names:
                self._take(record)
                self._curve_of = self._slower = None

    def _take(self, record: dict[str, Any]) -> None:
        try:
            match record["row"]:
                case "block":
                    block_row = BlockRow.model_validate(record["value"])
                    self._blocks[block_row.block] = block_row
                case "network":
                    network_row = NetworkRow.model_validate(record["value"])
                    self._networks[network_row.network] = network_row
                case "sentinel":
                    reading = record["value"]
                    self.sentinels.setdefault(str(reading["block"]), []).append(float(reading["ms"]))
                case other:
                    raise KeyError(other)
        except (ValidationError, KeyError, TypeError, ValueError) as fault:
            raise EvidenceError(
                f"{self._journal.path}: every row must be a block, a network or a sentinel, got {record!r:.80} "
                f"({type(fault).__name__}); move the file away to measure anew"
            ) from None

    def __contains__(self, block: Block) -> bool:
        return block in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def sentinel(self) -> Block | None:
        """The block that was timed first between the others, whose first reading every row's drift is relative to."""
        return next((read_blocks(name)[0] for name in self.sentinels), None)

    @property
    def initial_slowdown(self) -> float:
        """Return how much slower the machine was at the start of the table than it usually is, by the median of all readings.

        Drifts are relative to the first reading, which may have met a machine that was busy for some seconds.
        """
        if self._slower is None:
            readings = self.sentinels.get(next(iter(self.sentinels), ""), ())
            self._slower = readings[0] / statistics.median(readings) if readings else 1.0
        return self._slower

    @property
    def noise(self) -> float:
        """Relative standard deviation from one reading of the sentinel to the next; 0 before there are three."""
        pairs = [pair for readings in self.sentinels.values() for pair in itertools.pairwise(readings)]
        if len(pairs) < 2:
            return 0.0
        changes = [abs(math.log(after / before)) for before, after in pairs]
        return 1.48 * statistics.median(changes) / math.sqrt(2)  # the median is not moved by the steps of a drifting clock

    @property
    def block_rows(self) -> tuple[BlockRow, ...]:
        """All rows of blocks."""
        return tuple(self._blocks.values())

    @property
    def network_rows(self) -> tuple[NetworkRow, ...]:
        """All rows of whole networks."""
        return tuple(self._networks.values())

    def add_block(self, row: BlockRow) -> None:
        """Keep a measured block; it is on disk when this returns."""
        self._append("block", row.model_dump(mode="json"))

    def add_network(self, row: NetworkRow) -> None:
        """Keep a measured network; it is on disk when this returns."""
        self._append("network", row.model_dump(mode="json"))

    def add_sentinel(self, block: Block | str, ms: float) -> None:
        """Keep a reading of a sentinel."""
        self._append("sentinel", {"block": str(block), "ms": ms})

    def _append(self, kind: str, value: object) -> None:
        row = {"row": kind, "setting": self.setting.digest, "value": value}
        setting = {"row": "setting", "digest": self.setting.digest, "value": self.setting.model_dump(mode="json")}
        for record in (row,) if self._setting_written else (setting, row):
            self._replay((*self._journal.append(record), record))
        self._setting_written = True

    def adopt(self, other: LatencyTable) -> None:
        """Take over the rows missing here from other evidence for this setting, with drifts relative to this table.

        A common sentinel relates the two; otherwise both are taken to have met the machine at its usual speed.
        """
        if self.sentinel is None:  # the other's becomes this table's
            slower = 1.0
        elif self.sentinel == other.sentinel:
            slower = other.sentinels[str(other.sentinel)][0] / self.sentinels[str(self.sentinel)][0]
        else:
            slower = other.initial_slowdown / self.initial_slowdown
        for row in other.block_rows:
            if row.block not in self._blocks:
                self.add_block(row.model_copy(update={"drift": row.drift * slower}))
        for network_row in other.network_rows:
            if network_row.network not in self._networks:
                self.add_network(network_row)
        for block, readings in other.sentinels.items():
            for ms in readings[len(self.sentinels.get(block, ())) :]:
                self.add_sentinel(block, ms)

    def block_row(self, block: Block) -> BlockRow | None:
        """Return the row of a block, None if there is none."""
        return self._blocks.get(block)

    def ms(self, block: Block) -> float:
        """Return milliseconds per batch of a block at the machine's usual speed: the drift is divided out.

        Infinite for one that could not be measured; EvidenceError if it is missing.
        """
        row = self._blocks.get(block)
        return self._steady_ms(row) if row else float(self.ms_by_in_width(block, [block.in_width])[0])

    def _steady_ms(self, row: BlockRow) -> float:
        return math.inf if row.ms is None else row.ms / (row.drift * self.initial_slowdown)

    def ms_by_in_width(self, block: Block, in_widths: Sequence[int]) -> np.ndarray:
        """Return a block's ms, corrected for drift, for each width that it may read.

        One that reads a width between two measured ones is interpolated: the channels read enter a convolution's work
        linearly, while those written make the stairs. A block with an identity shortcut stands for itself alone.
        """
        wanted = np.array(in_widths)
        widths, ms = self._curves().get(_any_reader(block), (wanted[:0], np.empty(0)))
        own = (wanted == block.width) if is_repeated(dataclasses.replace(block, in_width=block.width)) else wanted < 0
        alone = own | (len(widths) == 0) | (wanted < widths[:1].sum()) | (wanted > widths[-1:].sum())
        found = np.full(len(wanted), np.inf)
        if not alone.all():
            with np.errstate(invalid="ignore"):  # next to one that could not be measured, none is on offer either
                found = np.nan_to_num(np.interp(wanted, widths, ms), nan=np.inf, posinf=np.inf)
        for place in np.flatnonzero(alone):
            found[place] = self._measured_ms(dataclasses.replace(block, in_width=int(wanted[place])))
        return found

    def _measured_ms(self, block: Block) -> float:
        row = self._blocks.get(block)
        if row is None:
            raise EvidenceError(
                f"the latency table lacks {block}, expected every block of the network; `genet profile RUN` measures it"
            )
        return self._steady_ms(row)

    def _curves(self) -> dict[Block, tuple[np.ndarray, np.ndarray]]:
        """Return the input widths measured, ascending, and their latencies, for blocks that read another's output."""
        if self._curve_of is None:
            found: dict[Block, dict[int, float]] = {}
            for block, row in self._blocks.items():
                if not is_repeated(block):
                    found.setdefault(_any_reader(block), {})[block.in_width] = self._steady_ms(row)
            self._curve_of = {
                block: (np.array(sorted(by_width)), np.array([by_width[width] for width in sorted(by_width)]))
                for block, by_width in found.items()
            }
        return self._curve_of

    def predict_ms(self, network: Network) -> float:
        """Return the milliseconds per batch: the sum over the network's blocks."""
        return sum(self.ms(block) for block in blocks(network))

    def forget(self, networks: Iterable[str]) -> None:
        """Leave out the rows of networks until they are measured again; the file keeps them."""
        for network in networks:
            self._networks.pop(network, None)

    def network_row(self, network: ModelSpec) -> NetworkRow | None:
        """Return the measurement of a whole network, None if there is none."""
        return self._networks.get(str(network))

    def widest_spread(self, networks: Collection[str]) -> float:
        """Return the widest spread of the timings of whole networks, by their notations; 0 if none was measured."""
        return max((row.spread for row in self._networks.values() if row.network in networks), default=0.0)

    def masternet_ms(self, masternet: Network) -> float:
        """Return milliseconds per batch of the MasterNet measured whole; EvidenceError if it was not."""
        row = self.network_row(masternet)
        if row is None:
            raise EvidenceError(
                f"the latency table lacks {masternet}, expected the MasterNet measured whole in {self.setting}; "
                "`genet profile RUN` measures it"
            )
        return row.mean_ms

    def missing(self, wanted: Iterable[Block]) -> list[Block]:
        """Return the blocks not yet measured, each once, in their order. A recorded failure is an answer."""
        return [block for block in dict.fromkeys(wanted) if block not in self._blocks]


def _any_reader(block: Block) -> Block:
    return dataclasses.replace(block, in_width=0)


def settings(journal: Journal) -> dict[str, Setting]:
    """Return the settings that a journal has rows of, by their digests, in the order of the journal."""
    return {setting.digest: setting for setting in _settings(journal.read().records).values()}


def _settings(records: Iterable[dict[str, Any]]) -> dict[str, Setting]:
    """Return the settings by the digests in their rows, which an earlier version may have computed from more facts."""
    found: dict[str, Setting] = {}
    for record in records:
        if record.get("row") == "setting" and str(record.get("digest")) not in found:
            try:
                found[str(record["digest"])] = Setting.model_validate(record["value"])
            except (ValidationError, KeyError):
                continue  # from a version with other facts of a device; its rows belong to no present setting
    return found


def find_setting(journal: Journal, wanted: str) -> Setting:
    """Return the setting with a digest, to read a table without its device; EvidenceError if the journal has none of it."""
    found = _settings(journal.read().records)
    try:
        return (found | {setting.digest: setting for setting in found.values()})[wanted]
    except KeyError:
        raise EvidenceError(
            f"{journal.path} lacks the latencies that the staircases were found with; `genet profile RUN` measures them"
        ) from None
