"""Run a call and stop it at its n-th step inside chosen modules: die there, or raise there."""

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
# After these the interpreter looks whether a signal handler is to run (CPython 3.11 to 3.14).
_CHECKS = ("CALL", "JUMP_BACKWARD", "RESUME")


class Raised(BaseException):
    """What a signal handler of the tests raises."""


class Steps:
    """Counts steps in frames whose file contains one of ``parts``; acts at the ``stop``-th.

    A step is every store to memory or to an attribute and every call (nothing else changes what
    others see) with ``checks_only`` False, else every point at which the interpreter would run a
    signal handler.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        stop: int = 0,
        act: Callable[[], None] | None = None,
        *,
        checks_only: bool = False,
        inlining: bool = False,
        constructors: bool = True,
    ) -> None:
        """``inlining``: the interpreter does not look either when a function written in Python
        returns to one that called it directly. ``constructors``: count what they do, too."""
        self.parts = parts
        self.stop = stop
        self.act = act
        self.checks_only = checks_only
        self.inlining = inlining
        self.constructors = constructors
        self.count = 0
        self.at = ""
        self._last: dict[int, str] = {}

    def run(self, work: Callable[[], Any]) -> Any:
        sys.settrace(self._enter)
        try:
            return work()
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in self.parts):
            return None
        if self.checks_only and frame.f_code.co_name == "__del__":
            return None  # what is raised there is only printed
        if not self.constructors and _constructs(frame):
            return None
        if self.inlining and frame.f_back is not None and frame.f_code.co_name != "__init__":
            self._last[id(frame.f_back)] = ""
        frame.f_trace = self._step  # from Python 3.12 on, before it can ask for opcodes
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._last[id(frame)] = "RESUME"
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            name = _name(frame.f_code, frame.f_lasti)
            if self.checks_only:
                last = self._last.get(id(frame), "")
                self._last[id(frame)] = name
                # A call that raised goes to its handler without a look at signals; what has no
                # line ends a generator on Python 3.12, and what is raised there is only printed.
                handled = name == "PUSH_EXC_INFO" or frame.f_lineno is None
                if last.startswith(_CHECKS) and not handled:
                    self._tick(frame)
            elif name.startswith(("STORE_SUBSCR", "STORE_ATTR", "CALL", "DELETE_SUBSCR")):
                self._tick(frame)
        return self._step

    def _tick(self, frame: FrameType) -> None:
        self.count += 1
        if self.count == self.stop and self.act is not None:
            self.at = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self.act()


def _constructs(frame: FrameType) -> bool:
    """Whether it is a constructor, or a comprehension in one."""
    caller = frame.f_back
    name = frame.f_code.co_name
    return name == "__init__" or (
        name.startswith("<") and caller is not None and caller.f_code.co_name == "__init__"
    )


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
    raise Raised


# Python 3.12 gives these events from the second time on that they are asked for.
Steps((__file__,)).run(lambda: None)
