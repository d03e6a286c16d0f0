"""The one family of errors a user can cause or meet; the command line prints each as one line and exits with 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

WEIGHTS_UNDER = (  # usual keys of the weights in a checkpoint with other entries
    "state_dict",
    "model_state_dict",
    "model_state",
    "state_dict_ema",
    "model_ema",
    "model",
    "net",
    "network",
    "weights",
)
PARALLEL = "module."  # prefix of all names by torch's DataParallel
SHOWN = 3  # misfitting names shown of each kind


class GenetError(Exception):
    """A fault of input, machine or evidence. The message gives the failure, the value, the rule and the remedy.

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
        """Rebuild it from its faults, as another process may have raised it."""
        return type(self), (self.faults,)


class DeviceError(GenetError):
    """The requested device does not exist, or cannot do the work."""


class MeasurementError(GenetError):
    """One thing could not be timed: no memory for it, a runtime that refuses it, or a time of zero or infinity."""


class OutOfMemoryError(MeasurementError):
    """It could not be timed because it does not fit into the device's memory; a smaller batch may."""


class LostDeviceError(DeviceError):
    """The device stopped answering; only a new process can use it again."""


class NoKernelError(DeviceError):
    """No library of the device has a kernel for this work in its number format and layout; trying again would not help."""


class DataError(GenetError):
    """Images or labels are missing or unreadable, or differ between training and validation."""


class StorageError(GenetError):
    """A file could not be written or read back whole: a full disk, missing permissions, a wrong checksum."""


class ExportError(GenetError):
    """A format could not be written, or does not give the network's answers when it is loaded again."""


class RunError(GenetError):
    """A run folder cannot be used this way: taken by another process, of another recipe, or a step is missing."""


class EvidenceError(GenetError):
    """There are too few measurements or trials for the request."""


class NonFiniteLossError(GenetError):
    """Training met a loss that is not a finite number and stopped before the step."""


def first_line(fault: Exception) -> str:
    """Return the error of another library in one line: its first, with its type if that is no sentence.

    For weights that do not fit a module it names them, with the likely reason.
    """
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    if not lines:
        return type(fault).__name__
    if "in loading state_dict for" in lines[0]:
        return _misfit(str(fault))
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return (text if " " in text else f"{type(fault).__name__}: {text}")[:200]


def _misfit(text: str) -> str:
    """Return the weights that are missing, unexpected, or of other sizes for torch."""
    missing, extra = (_names(kind, text) for kind in ("Missing", "Unexpected"))
    sizes = re.findall(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)", text)
    others = [f"{name} of size {theirs} instead of {ours}" for name, theirs, ours in sizes]
    parts = [f"it lacks {first_of(missing, SHOWN)}"] if missing else []
    parts += [f"has {first_of(extra, SHOWN)} in addition"] if extra else []
    parts += [f"has {first_of(others, SHOWN)}"] if others else []
    remedy = ""
    if key := next((name for name in extra if name in WEIGHTS_UNDER), None):
        remedy = f"; the weights are under [{key!r}]"
    elif any(name.startswith(PARALLEL) for name in extra) and not any(name.startswith(PARALLEL) for name in missing):
        remedy = f"; remove {PARALLEL} from the names, which DataParallel added"
    return f"the state_dict does not fit: {' and '.join(parts) or text.splitlines()[0]}{remedy}"


def _names(kind: str, text: str) -> list[str]:
    found = re.search(rf"{kind} key\(s\) in state_dict: (.*)", text)
    return re.findall(r'"([^"]+)"', found[1]) if found else []


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first names, and count the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
