"""The one family of errors a user can cause or meet; the command line prints each as one line and exits with 2."""

from __future__ import annotations

from collections.abc import Iterable


class GenetError(Exception):
    """A fault of input, machine or evidence. The message says the law, then the value, then the way out.

    Each argument is a line of its own.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class SpecError(GenetError):
    """Every fault of a YAML file or of a notation, one line each, in the order of the file."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(*self.faults)

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[str, ...]]]:
        """Rebuild it from its faults: another process may have raised it."""
        return type(self), (self.faults,)


class DeviceError(GenetError):
    """The device asked for is not there, or cannot do what was asked."""


class MeasurementError(GenetError):
    """One thing could not be timed: no memory for it, a runtime that refuses it, or a time that cannot be."""


class OutOfMemoryError(MeasurementError):
    """It could not be timed because it does not fit into the device's memory; a smaller batch may."""


class LostDeviceError(DeviceError):
    """The device stopped answering; only a new process can use it again."""


class DataError(GenetError):
    """Images or labels are missing, unreadable, or do not agree between training and validation."""


class StorageError(GenetError):
    """A file could not be written or read back whole: a full disk, missing rights, a wrong checksum."""


class ExportError(GenetError):
    """A format could not be written, or does not give the network's answers when it is loaded again."""


class RunError(GenetError):
    """A run folder cannot be used this way: taken by another process, of another recipe, or a step is missing."""


class EvidenceError(GenetError):
    """Measurements or trials do not suffice for what was asked."""


class NonFiniteLossError(GenetError):
    """Training met a loss that is not a finite number and stopped before the step."""


def first_line(fault: Exception) -> str:
    """The first line of what another library raised, for a message of ours."""
    text = str(fault).strip()
    return text.splitlines()[0][:200] if text else type(fault).__name__
