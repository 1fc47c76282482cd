"""Handles SIGINT and SIGTERM as a request to stop after the current step, with the state saved.

A step that takes more than a few seconds is interrupted; the run can then be resumed from what is on disk.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


PATIENCE = 4.0
"""Seconds that a step may take after a signal before the process ends without it."""

INTERRUPTED = 130


class Interruption:
    """Inside its `with` block, the first signal sets `requested`, and a second one interrupts immediately.

    A torch operation that takes minutes cannot be interrupted. So a thread ends the process if the step does not end
    within `patience` seconds, after it has called `ending`. The exit code is then 130, and the message ends in `more`.
    With `at_once`, the first signal interrupts immediately, for planning, which has no state to save. `patience` then
    limits one operation.
    """

    def __init__(
        self,
        more: str = "",
        patience: float = PATIENCE,
        *,
        at_once: bool = False,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        self.requested = False
        self._at_once = at_once
        self._more = more
        self._patience = patience
        self._ending = ending
        self._over = threading.Event()
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        return self.requested

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        self._over.set()
        os.close(self._writing)  # this ends the thread
        self._thread.join()
        os.close(self._reading)

    def _wait(self) -> None:
        """Wait for the first signal, and end the process if the block is not over `patience` seconds later.

        The signal arrives on this thread even while the main thread is inside an operation.
        """
        while number := os.read(self._reading, 1):
            if number[0] in SIGNALS:
                break
        if not number or self._over.wait(self._patience):
            return
        what = "planning" if self._at_once else "this step"
        print(f"{what} takes too long: interrupted inside it{self._more}", file=sys.stderr, flush=True)
        try:
            self._ending()
        finally:
            os._exit(INTERRUPTED)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._at_once:
            raise KeyboardInterrupt
        self.requested = True
        print("stopping after this step; once more stops at once", file=sys.stderr)
