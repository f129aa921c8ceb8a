"""`dora cluster exec` and `logs`: a command, or the daemon's log, of every machine at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dora_cli import output
from dora_cluster.connection import FinishedCommand
from dora_cluster.machines.daemon_service import DaemonService
from dora_cluster.machines.remote_machine import Connections, RemoteMachine, in_parallel
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError, error_text

FOREVER = 10 * 365 * 24 * 3600.0
"""Seconds of a command without a timeout: ten years."""
_writing = threading.Lock()


class PrefixedLines:
    """Cuts the output of a machine into lines and prints each after the machine's name."""

    def __init__(self, name: str, width: int) -> None:
        self._prefix = f"{name.ljust(width)} | "
        self._rests = {"stdout": b"", "stderr": b""}

    def take_output(self, data: bytes) -> None:
        self._take("stdout", data)

    def take_errors(self, data: bytes) -> None:
        self._take("stderr", data)

    def end(self) -> None:
        """Print the unfinished lines."""
        for stream, rest in self._rests.items():
            if rest:
                self._take(stream, b"\n")

    def remark(self, text: str) -> None:
        """Print a text of this program on standard error."""
        with _writing:
            for line in text.splitlines():
                output.remark(f"{self._prefix}{line}")

    def _take(self, stream: str, data: bytes) -> None:
        """Called from two threads, one for each stream."""
        with _writing:
            *lines, self._rests[stream] = (self._rests[stream] + data).split(b"\n")
            for line in lines:
                output.write(f"{self._prefix}{line.decode(errors='replace')}")


Work = Callable[[RemoteMachine, PrefixedLines], bool]


def execute(
    cluster: Cluster, machines: Sequence[Machine], argv: Sequence[str], timeout: float | None
) -> bool:
    """Run a command on each machine; return whether all exit codes are 0."""

    def work(remote: RemoteMachine, lines: PrefixedLines) -> bool:
        limit = FOREVER if timeout is None else timeout
        done = _run(remote, argv, lines, timeout=limit)
        lines.end()
        if done.code != 0:
            lines.remark(f"exit code {done.code}")
        return done.code == 0

    return _on_each(cluster, machines, work)


def show_logs(cluster: Cluster, machines: Sequence[Machine], count: int, *, follow: bool) -> bool:
    """Print the journal of a service, or the log of a background daemon."""

    def work(remote: RemoteMachine, lines: PrefixedLines) -> bool:
        facts = remote.facts()
        service = DaemonService.find(remote, facts)
        if service is not None:
            argv = service.journal_words(count, follow=follow)
            done = _run(remote, argv, lines, sudo=not service.user)
        else:
            log = remote.call("daemon.tail", name=remote.machine.daemon, lines=1)
            if log["lines"] is None:
                lines.remark(
                    f"no log: no daemon was started there ({log['path']} does not exist); start "
                    "it: dora cluster up"
                )
                return False
            if not log["lines"]:  # a background daemon may not have logged anything
                lines.remark(f"no warnings were logged: {log['path']} is empty")
            more = ["-F"] if follow else []
            argv = ["tail", "-n", str(count), *more, log["path"]]
            done = _run(remote, argv, lines)
        lines.end()
        return done.code == 0

    return _on_each(cluster, machines, work)


def _run(
    remote: RemoteMachine,
    argv: Sequence[str],
    lines: PrefixedLines,
    *,
    sudo: bool = False,
    timeout: float = FOREVER,
) -> FinishedCommand:
    return remote.connection.run(
        argv, sudo=sudo, timeout=timeout, on_output=lines.take_output, on_errors=lines.take_errors
    )


def _on_each(cluster: Cluster, machines: Sequence[Machine], work: Work) -> bool:
    width = max(len(machine.id) for machine in machines)
    connections = Connections()

    def work_on(machine: Machine) -> bool:
        lines = PrefixedLines(machine.id, width)
        try:
            with connections.open(machine) as connection:
                return work(RemoteMachine(cluster, machine, connection), lines)
        except (DoraError, OSError) as error:
            if output.is_output_error(error):
                connections.close()  # output is closed for all machines
                raise
            lines.end()
            lines.remark(error_text(error))
            return False

    return all(in_parallel(connections, machines, work_on))
