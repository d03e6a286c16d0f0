"""The end of a process on request (SIGTERM): at once, or at a point from which its work can be resumed."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any, Never, Self

CLEANING_UP_S = 15.0


class Terminated(BaseException):
    """SIGTERM arrived: the running step is dropped, files on disk stay."""


def terminate(*_: object) -> Never:
    """Handle SIGTERM: end at once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # no signal disturbs the cleanup
    last_resort = threading.Timer(CLEANING_UP_S, os._exit, [128 + signal.SIGTERM])  # an exception may be swallowed
    last_resort.daemon = True
    last_resort.start()
    raise Terminated


class GracefulShutdown:
    """A context in which the first SIGTERM or Ctrl-C is a request: the work checks `asked`, saves and stops.

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
        if self.asked and kind is None:  # asked when no work was left to check it
            self.end()

    def end(self) -> Never:
        """End by the signal that asked for it."""
        raise self._fault

    def _ask(self, number: int, *_: object) -> None:
        """Note the request; a repeated SIGTERM, as for a whole group of processes, does not disturb the saving."""
        if number == signal.SIGINT:
            if self.asked:
                raise KeyboardInterrupt
            self._fault = KeyboardInterrupt
        self.asked = True
