"""The log of trainings and trials for TensorBoard, as far as a recipe asks for one."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from genet.config.recipe import LogKind
from genet.errors import GenetError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

T = TypeVar("T")
FOLDER = "tensorboard"  # in that of a run or of a training


@dataclass(frozen=True)
class Log:
    """A folder of TensorBoard's events, which it makes at the first; without a folder nothing is logged, and nothing imported."""

    folder: Path | None = None

    def under(self, name: str) -> Log:
        """Return the log of one training, which TensorBoard shows as a curve of its own."""
        return Log(self.folder and self.folder / name)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by name, to be seen at once."""
        if self.folder is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Close the file of events, if one is open."""
        if "_writer" in self.__dict__:
            self._writer.close()

    @cached_property
    def _writer(self) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder))

    def follow(self, stages: Generator[tuple[int, float, float], None, T]) -> Generator[tuple[int, float, float], None, T]:
        """Yield the epochs of a training and write each; return its result."""
        with closing(stages):
            while True:
                try:
                    epoch, loss, accuracy = next(stages)
                except StopIteration as end:
                    return cast("T", end.value)
                self.write(epoch, {"loss": loss, "training accuracy": accuracy})
                yield epoch, loss, accuracy


NO_LOG = Log()


def open_log(kind: LogKind | None, folder: Path) -> Log:
    """Return the log in a folder that a recipe asks for; GenetError if TensorBoard is missing."""
    if kind is None:
        return NO_LOG
    try:
        import torch.utils.tensorboard  # noqa: F401 (before anything is trained)
    except ImportError:
        raise GenetError(
            "log: tensorboard needs TensorBoard, which is not installed; pip install 'genet-nas[tensorboard]', or leave log out"
        ) from None
    return Log(folder.absolute() / FOLDER)
