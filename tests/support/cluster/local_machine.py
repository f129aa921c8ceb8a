"""Fake machines whose locks are real: processes of this machine hold them, each in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from itertools import chain

from dora_cluster.connection import Connection, Finished, Listener, Listeners
from dora_cluster.errors import ConnectionLost
from dora_cluster.remote_call import program, program_input
from dora_cluster.remote_program.paths import state_dir
from dora_cluster.remote_program.protocol import decode_reply, decode_request, encode_result


class LocalConnection(Connection):
    """Runs the lock program here; ``break_off`` kills it, as after a lost connection."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.is_closed = threading.Event()
        self.lease = 30.0
        self.machine, self.account = name, os.geteuid()
        self.state = state_dir() / "machines" / name

    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> Finished:
        on_output = listeners[0]
        assert on_output is not None
        command, given = decode_request(next(pieces).removeprefix(program()))
        given |= {"lease": self.lease}
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "XDG_STATE_HOME": str(self.state)},
        )
        self.processes.append(process)
        lines: list[bytes] = []
        reader = threading.Thread(target=self._read, args=(process, on_output, lines))
        reader.start()
        assert process.stdin is not None
        try:
            with process.stdin:
                for piece in chain([program_input(command, given)], pieces):
                    process.stdin.write(piece)
                    process.stdin.flush()
        except BrokenPipeError:
            pass
        code = process.wait()
        reader.join()
        if self.is_closed.is_set():
            raise ConnectionLost(self.name, "the connection broke")
        return Finished(code, b"".join(lines).decode(), "")

    def _read(
        self, process: subprocess.Popen[bytes], on_output: Listener, lines: list[bytes]
    ) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if b'"result"' in line:
                    place = {"machine": self.machine, "account": self.account}
                    line = encode_result(decode_reply(line) | place)
                lines.append(line)
                on_output(line)

    def close(self) -> None:
        self.is_closed.set()
        self.break_off()

    def break_off(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
