"""Run a call and act before its n-th step inside chosen modules: die, raise, or send."""

from __future__ import annotations

import dis
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_OPNAME = dis.opname
_SIGNALS = ("CALL", "JUMP_BACKWARD", "RESUME")


class Raised(BaseException):
    """The exception that a signal handler of the tests raises."""


class Steps:
    """Counts steps in frames whose file contains one of ``parts``; acts before the ``stop``-th.

    A step is a store to memory or to an attribute, or a call: nothing else changes what other
    processes see. With ``signals`` it is a point where the interpreter runs signal handlers: after
    a call, at the start of a function, and at the end of a loop's body.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        stop: int = 0,
        act: Callable[[], None] | None = None,
        *,
        signals: bool = False,
    ) -> None:
        self.parts = parts
        self.signals = signals
        self._last: dict[int, str] = {}
        self.stop = stop
        self.act = act
        self.count = 0
        self.at = ""

    def run(self, work: Callable[[], Any]) -> Any:
        sys.settrace(self._enter)
        try:
            return work()
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in self.parts):
            return None
        if frame.f_back is not None:  # no signal handler runs when a Python function returns
            self._last[id(frame.f_back)] = ""
        self._last[id(frame)] = "RESUME"
        frame.f_trace = self._step  # needed before f_trace_opcodes from Python 3.12 on
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            name = _name(frame.f_code, frame.f_lasti)
            if self.signals:
                last, self._last[id(frame)] = self._last.get(id(frame), ""), name
                # A call that raised is followed by its handler; __del__ only prints exceptions.
                raised = name == "PUSH_EXC_INFO" or frame.f_lineno is None
                finalizer = frame.f_code.co_name == "__del__"
                if last.startswith(_SIGNALS) and not raised and not finalizer:
                    self._tick(frame)
            elif name.startswith(("STORE_SUBSCR", "STORE_ATTR", "CALL", "DELETE_SUBSCR")):
                self._tick(frame)
        return self._step

    def _tick(self, frame: FrameType) -> None:
        self.count += 1
        if self.count == self.stop and self.act is not None:
            self.at = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self.act()


_names: dict[CodeType, bytes] = {}


def _name(code: CodeType, at: int) -> str:
    found = _names.get(code)
    if found is None:
        found = _names[code] = code.co_code
    return _OPNAME[found[at]]


def die() -> None:
    """End this process as SIGKILL would."""
    os.kill(os.getpid(), signal.SIGKILL)


def raise_here() -> None:
    """Raise as a signal handler would."""
    raise Raised


# Python 3.12 gives these events from the second time on that they are requested.
Steps((__file__,)).run(lambda: None)
