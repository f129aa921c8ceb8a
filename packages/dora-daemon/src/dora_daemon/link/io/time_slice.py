"""Time slice of a thread, which decides how soon the scheduler of Linux runs it after it wakes.

A thread that wakes takes its processor from a thread with a longer slice at once; otherwise it may
wait until that one's slice ends, some 3 ms. Links waited up to 0.1 ms for nodes that poll, although
these yield their processor.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

SHORT_NS: Final = 100_000
"""The shortest slice that Linux grants."""
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""Number of the system call by machine; the C library has a function for it only since 2024."""


def request_short_slice() -> None:
    """Request short time slices for the calling thread; others keep theirs.

    It changes nothing where the system does not allow it, before Linux 6.12, or where the process
    has another scheduling policy than the default one.
    """
    call = _SCHED_SETATTR.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
    if call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, SHORT_NS, 0, 0)
    ctypes.CDLL(None).syscall(call, 0, attributes, 0)
