"""`dora cluster exec` and `logs`: a command, or the daemon's log, of every machine at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dora_cli import output
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import OnMachine, Opened, in_parallel
from dora_cli.ssh import Finished
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine

FOREVER = 10 * 365 * 24 * 3600.0
_writing = threading.Lock()


class Prefixed:
    """Cuts what comes from a machine into lines, each written behind the machine's name."""

    def __init__(self, name: str, width: int) -> None:
        self._prefix = f"{name.ljust(width)} | "
        self._rests = {"stdout": b"", "stderr": b""}

    def take_output(self, data: bytes) -> None:
        self._take("stdout", data)

    def take_errors(self, data: bytes) -> None:
        self._take("stderr", data)

    def end(self) -> None:
        for stream, rest in self._rests.items():
            if rest:
                self._take(stream, b"\n")

    def say(self, text: str) -> None:
        with _writing:
            for line in text.splitlines():
                output.remark(f"{self._prefix}{line}")

    def _take(self, stream: str, data: bytes) -> None:
        """Called from two threads, one for each stream."""
        with _writing:
            *lines, self._rests[stream] = (self._rests[stream] + data).split(b"\n")
            for line in lines:
                self._write(line)

    def _write(self, line: bytes) -> None:
        output.write(f"{self._prefix}{line.decode(errors='replace')}")


Work = Callable[[OnMachine, Prefixed], bool]


def chosen(cluster: Cluster, names: Sequence[str]) -> tuple[Machine, ...]:
    """The machines of these ids, all of them for none; DoraError for an id that is none."""
    unknown = [name for name in names if name not in {one.id for one in cluster.machines}]
    if unknown:
        there = ", ".join(one.id for one in cluster.machines)
        raise DoraError(f'no machine "{unknown[0]}" in the cluster file; there are: {there}')
    return tuple(one for one in cluster.machines if not names or one.id in names)


def execute(
    cluster: Cluster, machines: Sequence[Machine], argv: Sequence[str], timeout: float | None
) -> bool:
    """Run a command on each; whether all ended with exit code 0."""

    def work(on: OnMachine, lines: Prefixed) -> bool:
        limit = FOREVER if timeout is None else timeout
        done = _run(on, argv, lines, timeout=limit)
        lines.end()
        if done.code != 0:
            lines.say(f"exit code {done.code}")
        return done.code == 0

    return _each(cluster, machines, work)


def show_logs(cluster: Cluster, machines: Sequence[Machine], count: int, *, follow: bool) -> bool:
    """What the daemons printed: the journal of a service, the log of a background daemon."""

    def work(on: OnMachine, lines: Prefixed) -> bool:
        facts = on.facts()
        systemd = Systemd.found(on, facts)
        if systemd is not None:
            argv = systemd.journal_words(count, follow=follow)
            done = _run(on, argv, lines, sudo=not systemd.user)
        else:
            path = on.ask("tail", name=on.daemon, lines=0)
            if path["lines"] is None:
                lines.say(f"no log: no daemon was started there ({path['path']})")
                return False
            more = ["-F"] if follow else []
            argv = ["tail", "-n", str(count), *more, path["path"]]
            done = _run(on, argv, lines)
        lines.end()
        return done.code == 0

    return _each(cluster, machines, work)


def _run(
    on: OnMachine,
    argv: Sequence[str],
    lines: Prefixed,
    *,
    sudo: bool = False,
    timeout: float = FOREVER,
) -> Finished:
    return on.link.run(
        argv,
        sudo=sudo,
        timeout=timeout,
        on_output=lines.take_output,
        on_errors=lines.take_errors,
    )


def _each(cluster: Cluster, machines: Sequence[Machine], work: Work) -> bool:
    width = max(len(machine.id) for machine in machines)

    def one(opened: Opened, _number: int, machine: Machine) -> bool:
        lines = Prefixed(machine.id, width)
        try:
            with opened.to(machine) as link:
                return work(OnMachine(cluster, machine, link), lines)
        except (DoraError, OSError) as error:
            lines.end()
            lines.say(str(error))
            return False

    return all(in_parallel(machines, one))
