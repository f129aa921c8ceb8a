"""A runner that waits for a dataflow with all its modules imported: ``--spare DESCRIPTOR``.

On the descriptor, a SOCK_SEQPACKET socket to the daemon, it sends ``ready``. The daemon sends the
order, JSON with the runtime directory, the lock and the log as descriptors; the runner takes them
and sends ``taken``, and after the daemon's answer it is the runner of that directory. Until then it
ends with the daemon, and when a file that it has imported has changed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from dora_config.spawn_argv import run_module
from dora_config.zygote_process import start_early

LATE_MODULES = (
    "psutil",
    "dora_config.dataflow.graph",
    "dora_daemon.build.python_env",
    "dora_daemon.runner.link.supervisor",
    "dora_daemon.runner.process.download",
)
"""Modules that a runner imports later."""
MODULES = ("dora_daemon.runner.background", *LATE_MODULES, "anyio._backends._asyncio")
"""Modules that a spare runner imports while it waits."""
MODELS = (
    "dora_config.protocol.run_plan.RunPlan",
    "dora_config.protocol.runner.Envelope",
    "dora_config.history.entries.HistoryEntry",
    "dora_daemon.link.protocol.messages.Configure",
)
"""Large models, which are otherwise built at their first use."""
LOWEST_PRIORITY = 19
"""Value of nice(2)."""
_PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent ends."""


def wait(descriptor: int) -> tuple[Path, int]:
    """Import all modules and wait; return the runtime directory and its lock."""
    from dora_node_api.zygote import ROOM, imported_files, show, snapshot

    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    with socket.socket(fileno=descriptor) as daemon:
        daemon.set_inheritable(False)
        variables = {name: text for name, text in os.environ.items() if name != ROOM}
        show(sys.orig_argv[:-1], variables)
        _import_quietly()
        start_early()
        files = imported_files()
        known = snapshot(files)
        gc.collect()
        gc.freeze()
        daemon.send(b"ready")
        data, numbers, _, _ = socket.recv_fds(daemon, 1 << 16, 2)
        if not data or snapshot(files) != known:
            sys.exit(0)
        lock, log = numbers
        order = json.loads(data)
        argv = [*run_module("dora_daemon.runner"), order["directory"], str(lock)]
        show(argv, {**variables, **order["env"]})
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
        daemon.send(b"taken")
        if not daemon.recv(8):
            sys.exit(0)
    return Path(order["directory"]), lock


def _import_quietly() -> None:
    """Import in a thread of low priority; threads have priorities of their own on Linux."""

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        for name in MODULES:
            importlib.import_module(name)
        for name in MODELS:
            module, _, model = name.rpartition(".")
            getattr(importlib.import_module(module), model).model_rebuild()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
