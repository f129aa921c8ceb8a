"""Fake machines whose leases are real: records in a folder of this machine each."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence

import pytest

from dora_cluster.connection import FinishedCommand, Listeners, MachineConnection
from dora_cluster.errors import ConnectionLost
from dora_cluster.remote_call import program
from dora_cluster.remote_program.__main__ import run
from dora_cluster.remote_program.paths import state_dir
from dora_cluster.remote_program.protocol import decode_request, encode_result

_one_at_a_time = threading.Lock()
"""The lock of a record is that of a process."""


class LocalConnection(MachineConnection):
    """Runs commands here; ``cut`` lets them fail, as after a lost connection."""

    is_root = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.is_closed = threading.Event()
        self.is_cut = threading.Event()
        self.machine, self.account = name, os.geteuid()
        self.state = state_dir() / "machines" / name

    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> FinishedCommand:
        if self.is_cut.is_set() or self.is_closed.is_set():
            raise ConnectionLost(self.name, "the connection broke")
        stdin = b"".join(pieces)
        if stdin.startswith(program()):
            command, arguments = decode_request(stdin.removeprefix(program()))
            with _one_at_a_time, pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_STATE_HOME", str(self.state))
                answer = run(command, arguments) or {}
            if command == "lease.take":
                answer |= {"machine": self.machine, "account": self.account}
            return FinishedCommand(0, encode_result(answer).decode(), "")
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False)
        return FinishedCommand(done.returncode, done.stdout.decode(), done.stderr.decode())

    def close(self) -> None:
        self.is_closed.set()
