"""How a process ends when it is told to (SIGTERM): at once, or where the work at hand can be gone on with."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any, Never, Self

CLEANING_UP_S = 15.0


class Terminated(BaseException):
    """SIGTERM arrived: the running step is dropped, what is on the disk stays."""


def terminate(*_: object) -> Never:
    """Return the handler of SIGTERM: ends at once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nobody disturbs the cleaning up
    last_resort = threading.Timer(CLEANING_UP_S, os._exit, [128 + signal.SIGTERM])  # an exception may be swallowed
    last_resort.daemon = True
    last_resort.start()
    raise Terminated


class GracefulShutdown:
    """Within it the first SIGTERM or Ctrl-C only asks: work that is not safe at any moment looks at `asked`, saves and stops.

    A second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._fault: type[BaseException] = Terminated
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.asked and kind is None:  # asked when there was nothing left to look
            self.end()

    def end(self) -> Never:
        """Return what it was asked by."""
        raise self._fault

    def _ask(self, number: int, *_: object) -> None:
        """Save without being disturbed by a repeated SIGTERM, as when a whole group of processes is told."""
        if number == signal.SIGINT:
            if self.asked:
                raise KeyboardInterrupt
            self._fault = KeyboardInterrupt
        self.asked = True
