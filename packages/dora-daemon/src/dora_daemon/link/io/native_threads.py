"""Python's state for threads of Zenoh that call into Python."""

from __future__ import annotations

import ctypes
import threading

_ensure = ctypes.pythonapi.PyGILState_Ensure
_ensure.restype = ctypes.c_int
_ensure.argtypes = ()
_kept = threading.local()


def keep_thread_state() -> None:
    """Keep the interpreter's state of this thread until the thread ends.

    The interpreter creates the state of a thread that it did not start for every call and frees it
    after the call, which takes longer than the call itself. One call of PyGILState_Ensure without
    its counterpart keeps it. The attribute below is part of that state, so it is missing whenever
    the state is new.
    """
    if not hasattr(_kept, "state"):
        _kept.state = _ensure()
