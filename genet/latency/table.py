"""The latency table: measured blocks of one device and setting, and a network's latency as the sum of its blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from genet.device import DeviceCard
from genet.errors import EvidenceError
from genet.files import Journal, Record, digest
from genet.spec.network import Block, Network, blocks
from genet.spec.recipe import Measure


class Setting(Record):
    """All that a latency depends on beside the block itself. Rows of different settings never mix."""

    device: DeviceCard
    runtime: str
    dtype: str
    memory_format: str
    batch: int

    @classmethod
    def of(cls, card: DeviceCard, measure: Measure) -> Setting:
        """The setting in which a recipe measures on a device."""
        return cls(
            device=card,
            runtime="eager",
            dtype=measure.dtype,
            memory_format=measure.memory_format,
            batch=measure.batch,
        )

    @property
    def digest(self) -> str:
        """Twelve digits that stand for the setting in every row of a journal; facts that cannot move a latency are left out."""
        return digest(self.model_dump_json(exclude={"device": {"memory_bytes", "python", "platform"}}))[:12]


class BlockRow(Record):
    """Measured latency of one block, in milliseconds per batch."""

    block: Block
    ms: float
    median_ms: float
    spread: float


class NetworkRow(Record):
    """Measured latency of a whole network, in milliseconds per batch."""

    network: str  # its notation
    ms: float
    median_ms: float
    spread: float
    drift: float  # how much slower the machine was than when its reference network was first measured

    @property
    def steady_ms(self) -> float:
        """Milliseconds per batch with the drift divided out."""
        return self.ms / self.drift


class LatencyTable:
    """A journal of measurements, replayed. The rows of the given setting are the table; others stay untouched."""

    def __init__(self, journal: Journal, setting: Setting) -> None:
        self._journal, self.setting = journal, setting
        self._blocks: dict[Block, BlockRow] = {}
        self._networks: dict[str, NetworkRow] = {}
        content = journal.read()
        self.damaged = content.damaged
        settings = {record.get("digest") for record in content.records if record.get("row") == "setting"}
        self._setting_written = setting.digest in settings
        for record in content.records:
            if record.get("setting") == setting.digest:
                self._replay(record)

    def _replay(self, record: dict[str, Any]) -> None:
        try:
            if record["row"] == "block":
                block_row = BlockRow.model_validate(record["value"])
                self._blocks[block_row.block] = block_row
            else:
                network_row = NetworkRow.model_validate(record["value"])
                self._networks[network_row.network] = network_row
        except (ValidationError, KeyError) as fault:
            raise EvidenceError(
                f"{self._journal.path}: every row must be a block or a network, got {record!r:.80} ({type(fault).__name__}); "
                "move the file away to measure anew"
            ) from None

    def __contains__(self, block: Block) -> bool:
        return block in self._blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def add_block(self, row: BlockRow) -> None:
        """Keep a measured block; it is on the disk when this returns."""
        self._append("block", row)
        self._blocks[row.block] = row

    def add_network(self, row: NetworkRow) -> None:
        """Keep a measured network; it is on the disk when this returns."""
        self._append("network", row)
        self._networks[row.network] = row

    def _append(self, kind: str, row: Record) -> None:
        if not self._setting_written:
            self._journal.append({"row": "setting", "digest": self.setting.digest, "value": self.setting.model_dump(mode="json")})
            self._setting_written = True
        self._journal.append({"row": kind, "setting": self.setting.digest, "value": row.model_dump(mode="json")})

    def ms(self, block: Block) -> float:
        """Milliseconds per batch of a measured block; EvidenceError for one that was never measured."""
        try:
            return self._blocks[block].ms
        except KeyError:
            raise EvidenceError(
                f"the latency table must hold every block of the network, and lacks {block}; `genet profile RUN` measures it"
            ) from None

    def spread(self, block: Block) -> float:
        """Interquartile range over the median of a measured block's repeats."""
        return self._blocks[block].spread

    def predict_ms(self, network: Network) -> float:
        """Milliseconds per batch: the sum over the network's blocks."""
        return sum(self.ms(block) for block in blocks(network))

    def network_row(self, network: Network) -> NetworkRow | None:
        """The measurement of a whole network, None where there is none."""
        return self._networks.get(str(network))

    def masternet_ms(self, masternet: Network) -> float:
        """Milliseconds per batch of a MasterNet measured whole; EvidenceError where it was not."""
        row = self.network_row(masternet)
        if row is None:
            raise EvidenceError(
                f"the latency table must hold the MasterNet measured whole, and lacks {masternet}; "
                "`genet profile RUN` measures it"
            )
        return row.steady_ms

    def missing(self, wanted: Iterable[Block]) -> list[Block]:
        """The blocks not yet measured, each once, in their order."""
        return [block for block in dict.fromkeys(wanted) if block not in self._blocks]


def find_setting(journal: Journal, wanted: str) -> Setting:
    """The setting with a digest, to read a table without its device; EvidenceError where the journal has none of it."""
    for record in journal.read().records:
        if record.get("row") == "setting" and record.get("digest") == wanted:
            return Setting.model_validate(record["value"])
    raise EvidenceError(
        f"{journal.path}: must hold the latencies that the staircases were found in, and does not; `genet profile RUN` measures"
    )
