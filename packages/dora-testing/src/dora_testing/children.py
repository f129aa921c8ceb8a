"""The process of a node, and its socket to the scheduler."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dora_daemon.runner.logs.log_entries import OutputSplitter
from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.nodes.node_config import operator_configs
from dora_daemon.runner.process.prepare import PreparedNode
from dora_daemon.runner.process.spawn import end_with_parent
from dora_node_api.errors import ControlClosed
from dora_node_api.protocol import lockstep as wire
from dora_node_api.protocol.launch_config import CONFIG_VARIABLE, LaunchConfig
from dora_testing.errors import FlowError

START_FACTOR = 4
"""Factor of `patience` for the start: imports of large libraries take longer than a step."""
SHOWN_LINES = 15
"""Last lines of a node that an error shows."""


class Child:
    """One process of a node."""

    def __init__(
        self,
        program: PreparedNode,
        incarnation: int,
        output: Path,
        now: int,
        patience: float,
        wall_offset: int = wire.WALL_OFFSET_NS,
    ) -> None:
        """Start it. `patience`: seconds that it may need for one step. Raises OSError."""
        self.node = program.spec.id
        launch = LaunchConfig(
            socket=wire.SOCKET,
            node_id=self.node,
            incarnation=incarnation,
            operators=operator_configs(program.spec),
        )
        self._patience = patience
        self._end, other = socket.socketpair()
        self._end.settimeout(START_FACTOR * patience)
        self._output = output
        self._read_to = output.stat().st_size if output.exists() else 0
        self._splitter = OutputSplitter()
        environment: Mapping[str, str] = {
            **program.variables,
            CONFIG_VARIABLE: launch.to_text(),
            wire.VARIABLE: f"{other.fileno()}:{now}:{wall_offset}",
            "PYTHONHASHSEED": program.variables.get("PYTHONHASHSEED", "0"),
            "PYTHONFAULTHANDLER": "1",
        }
        with other, output.open("ab") as file:
            self.process = subprocess.Popen(
                program.argv,
                cwd=program.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(other.fileno(),),
                preexec_fn=partial(end_with_parent, os.getpid()),
            )
        self._printed = os.open(output, os.O_RDONLY)

    def answer(self, now: int, values: Any, block: bytes | bytearray = b"") -> None:
        """Send an answer, with which the process continues; `requests` notices its end."""
        with suppress(ControlClosed):
            wire.write_frame(self._end, [now, values], block)

    def requests(self) -> Iterator[tuple[list[Any], bytes]]:
        """Yield what it requests, up to the request that it waits for, or to its end.

        Raises FlowError if it neither waits nor ends in time.
        """
        while True:
            try:
                values, block = wire.read_frame(self._end)
            except ControlClosed:
                return
            except TimeoutError:
                raise FlowError(self._stuck(self._end.gettimeout())) from None
            yield values, bytes(block)
            if values[0] in wire.WAITING:
                self._end.settimeout(self._patience)
                return

    def ended_within(self, seconds: float) -> bool:
        """Whether it ends in time."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.returncode is not None

    def end(self) -> Exit:
        """Return how it ended, once its socket has. Raises FlowError if it does not end."""
        if not self.ended_within(self._patience):
            raise FlowError(self._stuck(self._patience))
        self._close()
        code = self.process.returncode
        if code >= 0:
            return Exit(code=code)
        try:
            return Exit(signal=signal.Signals(-code).name)
        except ValueError:
            return Exit(signal=str(-code))

    def signal(self, name: str) -> None:
        """Signal its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.Signals[name])

    def kill(self) -> None:
        """End it at once, with its children."""
        self.signal("SIGKILL")
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self._end.close()
        os.close(self._printed)

    def new_lines(self, *, last: bool = False) -> list[str]:
        """Return the lines that the process has printed since the last call."""
        data = b""
        while chunk := os.pread(self._printed, 65536, self._read_to):
            data += chunk
            self._read_to += len(chunk)
        lines = self._splitter.feed(data)
        return lines + self._splitter.flush() if last else lines

    def _stuck(self, seconds: float | None) -> str:
        """Return an error with the stack that the process prints at SIGABRT."""
        with suppress(ProcessLookupError):
            resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (0, 0))
        self.signal("SIGABRT")
        self.ended_within(self._patience)
        return (
            f'node "{self.node}" does not come back for events: it neither ended nor called'
            f" `next`, `recv_async` or `time.sleep` within {seconds:g} s;"
            f" `patience=` allows more{shown(self._output)}"
        )


def output_of(folder: Path, node: str) -> Path:
    """Return the file of what a node prints."""
    return folder / f"{node.replace('/', '_')}.log"


def shown(output: Path) -> str:
    """Return the last lines that were printed to a file, for an error."""
    lines = last_lines(output)
    return "".join(f"\n    {line}" for line in ("; its last lines:", *lines))[5:] if lines else ""


def last_lines(output: Path) -> list[str]:
    """Return the last lines of a file that may not exist."""
    if not output.exists():
        return []
    return output.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
