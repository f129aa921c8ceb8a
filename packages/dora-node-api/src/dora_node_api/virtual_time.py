"""Virtual time in a node of a test: functions of the module `time`, and waits of asyncio.

It holds for the main thread. Other threads, `time.clock_gettime`, `datetime.now`, compiled code and
child processes have the time of the machine.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable
from threading import Lock, RLock, get_ident, main_thread
from typing import Any

from dora_node_api.protocol import lockstep as wire


class VirtualTime:
    """The socket to the scheduler of the test, and the time of its last answer."""

    def __init__(self, end: socket.socket, now: int, offset: int) -> None:
        self.now = now
        """Virtual CLOCK_MONOTONIC in nanoseconds."""
        self._offset = offset
        self._end = end
        self._writing = Lock()
        self._asking = RLock()
        self._threads = main_thread().ident
        self._restore: Callable[[], None] = lambda: None

    # --- the wire --------------------------------------------------------------------------------

    def send(self, values: list[Any], block: Any = b"") -> None:
        """Send a request without an answer."""
        with self._writing:
            wire.write_frame(self._end, values, block)

    def ask(self, values: list[Any], block: Any = b"") -> tuple[Any, bytearray]:
        """Send a request and block until its answer arrives; return the answer."""
        with self._asking:
            self.send(values, block)
            (self.now, answer), content = wire.read_frame(self._end)
            return answer, content

    def wall_ns(self) -> int:
        """Return the virtual CLOCK_REALTIME."""
        return self.now + self._offset

    # --- the clock -------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Sleep in virtual time."""
        self.ask([wire.SLEEP, self.now + round(seconds * 1e9)])

    def install(self) -> None:
        """Replace the functions of `time` and the waits of asyncio, for the main thread."""
        # Imported before the replacement: they copy `monotonic` from `time` at import, and measure
        # the timeouts of waits for threads with it.
        import queue  # noqa: F401
        import subprocess  # noqa: F401
        import threading

        del threading
        own: dict[str, Callable[[], Any]] = {
            "time": lambda: self.wall_ns() / 1e9,
            "time_ns": self.wall_ns,
            "monotonic": lambda: self.now / 1e9,
            "monotonic_ns": lambda: self.now,
            "perf_counter": lambda: self.now / 1e9,
            "perf_counter_ns": lambda: self.now,
        }
        former = {name: getattr(time, name) for name in (*own, "sleep")}
        for name, function in own.items():
            setattr(time, name, self._on_main_thread(function, former[name]))
        setattr(time, "sleep", self._sleeping(former["sleep"]))  # noqa: B010
        selector = selectors.DefaultSelector
        selectors.DefaultSelector = _virtual_selector(self)  # type: ignore[misc]

        def restore() -> None:
            for name, function in former.items():
                setattr(time, name, function)
            selectors.DefaultSelector = selector  # type: ignore[misc]

        self._restore = restore
        os.register_at_fork(after_in_child=self._leave)

    def is_here(self) -> bool:
        """Whether the calling thread has virtual time."""
        return get_ident() == self._threads

    def _on_main_thread(
        self, function: Callable[[], Any], former: Callable[[], Any]
    ) -> Callable[[], Any]:
        return lambda: function() if get_ident() == self._threads else former()

    def _sleeping(self, former: Callable[[float], None]) -> Callable[[float], None]:
        def sleep(seconds: float, /) -> None:
            if get_ident() != self._threads:
                former(seconds)
            elif seconds < 0:
                raise ValueError("sleep length must be non-negative")
            else:
                self.sleep(seconds)

        return sleep

    def _leave(self) -> None:
        """Give a forked child the time of the machine, and no socket."""
        global current
        self._restore()
        self._end.close()
        current = None


def _virtual_selector(clock: VirtualTime) -> Any:
    """Return the selector of event loops that wait in virtual time."""

    class VirtualSelector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            if not clock.is_here():
                return super().select(timeout)
            found = super().select(0)
            if found or (timeout is not None and timeout <= 0):
                return found
            until = None if timeout is None else clock.now + max(1, round(timeout * 1e9))
            if idle is None or not idle(until):
                return super().select(timeout)
            return super().select(0)

    return VirtualSelector


idle: Callable[[int | None], bool] | None = None
"""Waits for an event or a time, and returns whether there is one to wait for; set by the node."""
current: VirtualTime | None = None
"""The virtual time of this process, if it is a node of a test."""


def begin() -> None:
    """Give this process virtual time if it was started as a node of a test."""
    global current
    text = os.environ.pop(wire.VARIABLE, None)  # child processes are not nodes of the test
    if text is None:
        return
    descriptor, now, offset = map(int, text.split(":"))
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    end.setblocking(True)
    current = VirtualTime(end, now, offset)
    current.install()
