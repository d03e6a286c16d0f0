"""Standard output and error that survive a closed or full stream, a reader that went away, or an encoding without a letter.

Output only accompanies the work, which goes on without it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Sink(io.FileIO):
    """Writes to an open file until that fails, keeps the fault, and drops the rest."""

    fault: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write it all, or drop it."""
        left = memoryview(data).cast("B")
        try:
            while left and self.fault is None:
                written = super().write(left)
                if written is None:  # the other side made it non-blocking, and has no room yet
                    select.select([], [self], [])
                left = left[written or 0 :]
        except OSError as fault:
            self.fault = fault
        return memoryview(data).nbytes


def outlast_streams() -> None:
    """Replace the process's own standard streams by ones that never fail. Streams that a calling program installed stay."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:  # a closed one's number would be the next opened file's
        os.set_inheritable(null, True)
    os.close(null)
    if sys.stdout in (None, sys.__stdout__):
        sys.stdout = _lasting(sys.stdout)
    if sys.stderr in (None, sys.__stderr__):
        sys.stderr = _lasting(sys.stderr)


def output_fault() -> str | None:
    """Return why standard output did not take all that was printed; None if it did, or if its reader closed it."""
    sink = getattr(sys.stdout, "buffer", None)
    if not isinstance(sink, _Sink):
        return None
    sys.stdout.flush()
    return None if sink.fault is None or isinstance(sink.fault, BrokenPipeError) else str(sink.fault.strerror)


def _lasting(stream: TextIO | None) -> TextIO:
    """Return the same stream, escaping letters that its encoding lacks; for a closed one, a stream that discards its input."""
    if not isinstance(stream, io.TextIOWrapper) or stream.closed:
        return io.TextIOWrapper(_Sink(os.open(os.devnull, os.O_WRONLY), "wb"), "utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        stream.flush()
    sink = _Sink(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        sink, stream.encoding, "backslashreplace", line_buffering=stream.line_buffering, write_through=stream.write_through
    )
