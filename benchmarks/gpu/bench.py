"""What every part works with: the one device, how things are measured on it, and the part's folder."""

from __future__ import annotations

import dataclasses
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from genet.cli import main as cli
from genet.config.recipe import Measure
from genet.device import DeviceCard, give_back_memory, open_device, read_card
from genet.errors import GenetError
from genet.latency.timing.meter import Meter, open_meter

DRY_RUN = "dry-run"  # where small settings leave their results, on whatever device
STOPPED = (130, 143)  # what a command ends with when it was interrupted


@dataclass(frozen=True)
class Bench:
    """The device and the folders. `small` asks for the smallest settings of everything."""

    device: torch.device
    card: DeviceCard
    small: bool
    scratch: Path  # is lost when the command ends
    supplies: Path | None
    folder: Path = Path()  # of the part at work

    @classmethod
    def opened(cls, device: str, small: bool, scratch: Path, supplies: Path | None) -> Bench:
        """Open the device by its name; DeviceError if it is not there."""
        found = open_device(device)
        return cls(found, read_card(found), small, scratch, supplies)

    @property
    def name(self) -> str:
        """What the results are filed under."""
        return DRY_RUN if self.small else self.card.name

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def at(self, folder: Path) -> Bench:
        """Return the same for a part with this folder."""
        return dataclasses.replace(self, folder=folder)

    def beside(self, part: str) -> Path:
        """Return the folder of another part."""
        return self.folder.parent / part

    def measure(self, **wanted: Any) -> Measure:
        """Return how latency is measured here: in fp16 and channels_last on a GPU, batch 64; small ones differ in the batch."""
        usual: dict[str, Any] = {"device": str(self.device), "memory_format": "channels_last"}
        usual |= {"dtype": "fp16" if self.cuda else "fp32", "batch": 2 if self.small else 64}
        return Measure.model_validate(usual | wanted)

    def options(self, **wanted: Any) -> list[str]:
        """Return the same as options of a command."""
        measure = self.measure(**wanted)
        named = {"device": measure.device, "dtype": measure.dtype, "memory-format": measure.memory_format, "batch": measure.batch}
        return [text for name, value in named.items() for text in (f"--{name}", str(value))]

    def meter(self, **wanted: Any) -> Meter:
        """Return the meter that measures so."""
        return open_meter(self.measure(**wanted), self.card, self.device)

    def give_back(self) -> None:
        """Leave no memory of this part to the next."""
        give_back_memory(self.device)


class _Both(io.TextIOBase):
    """Writes into the log and keeps what it wrote."""

    def __init__(self, log: TextIO) -> None:
        self._log, self.kept = log, io.StringIO()

    def write(self, text: str) -> int:
        self.kept.write(text)
        return self._log.write(text)

    def flush(self) -> None:
        self._log.flush()


def command(*arguments: str) -> str:
    """Run a command of genet as a user types it, in this process; return what it prints.

    GenetError with its message if it fails, KeyboardInterrupt if it was interrupted; the same command goes on then.
    """
    print("genet", *arguments, flush=True)
    said, complained = _Both(sys.stdout), _Both(sys.stderr)
    with redirect_stdout(said), redirect_stderr(complained):
        code = cli.main(arguments)
    if code in STOPPED:
        raise KeyboardInterrupt
    if code:
        lines = complained.kept.getvalue().strip().splitlines()
        raise GenetError(lines[-1] if lines else f"genet {arguments[0]} ended with {code}")
    return said.kept.getvalue()
