"""Work on several machines at once: a connection each, a line each, a result or a reason each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from dora_cli.bundle.layout import USER, Layout, system
from dora_cli.bundle.machine import ask
from dora_cli.cluster.decisions.daemon_argv import daemon_name, ssh_name
from dora_cli.cluster.decisions.daemon_unit import service_name
from dora_cli.cluster.decisions.health import Health
from dora_cli.cluster.decisions.preflight import Facts
from dora_cli.cluster.machines.progress_lines import Lines
from dora_cli.ssh import Connection, Finished, Target, connect
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine

MOST_AT_ONCE = 16

T = TypeVar("T")
Say = Callable[[str], None]
"""Short words of what is being done now."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A machine's result, or why there is none."""

    machine: Machine
    result: T | None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def target_of(machine: Machine) -> Target:
    """How SSH finds the machine."""
    return Target(machine.host, machine.user, machine.port, machine.identity_file, machine.id)


def layout_of(machine: Machine, *, user: bool) -> Layout:
    """Where dora lies there: below ``prefix``, or (``user``) in the user's home."""
    return USER if user else system(machine.prefix)


@cache
def _program() -> bytes:
    return (files("dora_cli.cluster") / "on_machine.py").read_bytes()


@cache
def _health_program() -> bytes:
    return (files("dora_cli.cluster") / "health_program.py").read_bytes()


@dataclass(frozen=True, slots=True)
class _Live:
    """A connection whose commands are heard while they run."""

    link: Connection
    on_output: Callable[[bytes], None]

    @property
    def name(self) -> str:
        return self.link.name

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = False,
        timeout: float = 60.0,
    ) -> Finished:
        return self.link.run(
            argv, stdin=stdin, sudo=sudo, timeout=timeout, on_output=self.on_output
        )

    def send(
        self,
        source: Path,
        target: str,
        *,
        offset: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.link.send(source, target, offset=offset, progress=progress)


class OnMachine:
    """A connection to a machine of a cluster, and our program there."""

    def __init__(self, cluster: Cluster, machine: Machine, link: Connection) -> None:
        self.cluster = cluster
        self.machine = machine
        self.link = link

    @property
    def daemon(self) -> str:
        return daemon_name(self.machine)

    @property
    def service(self) -> str:
        return service_name(self.machine)

    def ask(self, command: str, *, timeout: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """One command of ``on_machine``; raises DoraError."""
        return ask(self.link, command, program=_program(), timeout=timeout, **arguments)

    def ask_live(
        self,
        command: str,
        on_output: Callable[[bytes], None],
        *,
        timeout: float = 60.0,
        **arguments: Any,
    ) -> dict[str, Any]:
        """``ask`` that hands on what is printed as it comes."""
        return ask(
            _Live(self.link, on_output), command, program=_program(), timeout=timeout, **arguments
        )

    def health(self, facts: Facts) -> Health:
        """What may ail it and its daemon."""
        found = ask(
            self.link,
            "health",
            program=_health_program(),
            name=self.daemon,
            unit=self.service,
            pid=None if facts.daemon is None else facts.daemon.pid,
        )
        return Health.read(found)

    def facts(self) -> Facts:
        """What is there now."""
        begin = time.time()
        found = self.ask(
            "facts",
            name=self.daemon,
            unit=self.service,
            dora=self.machine.dora,
            coordinator=self.cluster.coordinator.addr,
        )
        return Facts.read(found, asked=begin, answered=time.time())


class Links(Protocol):
    """Connections that a command has already."""

    def find(self, machine: Machine) -> Connection | None:
        """The one to that machine; raises what made it impossible."""
        ...


class Opened:
    """The connections of one command; when it is interrupted, all are closed."""

    def __init__(self, links: Links | None = None) -> None:
        self._given = links
        self._links: set[Connection] = set()
        self._lock = threading.Lock()
        self._over = False

    @contextmanager
    def to(self, machine: Machine) -> Iterator[Connection]:
        """Connect, or use the connection that is there; raises SshError."""
        given = self._given.find(machine) if self._given is not None else None
        with nullcontext(given) if given is not None else connect(target_of(machine)) as link:
            with self._lock:
                self._links.add(link)
                over = self._over
            if over:
                link.close()  # whatever is begun now fails at once
            try:
                yield link
            finally:
                with self._lock:
                    self._links.discard(link)

    def close(self) -> None:
        """What waits for an answer over one of them fails."""
        with self._lock:
            self._over = True
            links = list(self._links)
        for link in links:
            link.close()


def in_parallel(
    machines: Sequence[Machine],
    work: Callable[[Opened, int, Machine], T],
    links: Links | None = None,
) -> list[T]:
    """``work`` for each machine and its number, in threads; results in their order."""
    opened = Opened(links)
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(machines) or 1)) as pool:
        waiting = [
            pool.submit(work, opened, number, machine) for number, machine in enumerate(machines)
        ]
        try:
            return [future.result() for future in waiting]
        except KeyboardInterrupt:
            for future in waiting:
                future.cancel()
            opened.close()
            raise


def on_machines(
    cluster: Cluster,
    label: str,
    work: Callable[[OnMachine, Say], T],
    *,
    machines: Sequence[Machine] | None = None,
    said: Callable[[T], str] = lambda _result: "OK",
    links: Links | None = None,
) -> list[Done[T]]:
    """Connect to all machines and do ``work`` there, in parallel; in the order of the file.

    ``label`` begins each line, with ``{name}`` (or ``{id}`` and ``{target}``) for the machine.
    What fails on one machine is its result, and stops no other.
    """
    chosen = cluster.machines if machines is None else machines
    labels = [
        label.format(name=ssh_name(machine), id=machine.id, target=machine.target)
        for machine in chosen
    ]
    with Lines(labels) as lines:

        def one(opened: Opened, number: int, machine: Machine) -> Done[T]:
            def say(text: str) -> None:
                lines.say(number, text)

            done: Done[T]
            try:
                say("connecting")
                with opened.to(machine) as link:
                    say("working")
                    result = work(OnMachine(cluster, machine, link), say)
                    done = Done(machine, result)
                    lines.end(number, said(result))
            except (DoraError, OSError) as error:
                reason = without_name(str(error), ssh_name(machine))
                done = Done(machine, None, reason)
                lines.end(number, f"FAILED: {reason}")
            return done

        return in_parallel(chosen, one, links)


def without_name(sentence: str, name: str) -> str:
    """A sentence whose line begins with the machine's name already."""
    return sentence.removeprefix(f"{name}: ")
