"""The machines of one command: connected, locked against other commands, and checked.

Nothing is changed on any machine before all of them are locked and belong to this cluster.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dora_cli import output
from dora_cli.bundle.machine import ask
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.occupants import (
    Conflict,
    Occupant,
    Verdict,
    judge,
    moment,
    refusal,
    settings,
)
from dora_cli.cluster.machines.parallel import OnMachine, Opened, in_parallel, target_of
from dora_cli.cluster.ownership.machine_lock import Answer, MachineLock
from dora_cli.cluster.ownership.operator import this_operator
from dora_cli.ssh import Connection, connect
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine


class InUse(DoraError):
    """Machines belong to another cluster or operator; ``str()`` holds the facts."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A command that changes machines."""

    command: str
    """``up``"""
    file: Path
    """The cluster file that it was given."""
    take_over: bool = False
    refuses: bool = True
    """False: machines of others are left as they are, which is not an error."""

    @property
    def adds(self) -> bool:
        """Whether it looks at all daemons of a machine; others touch those of the file only."""
        return self.command in ("up", "install", "down", "remove")


Key = tuple[str, str, int | None]


def key_of(machine: Machine) -> Key:
    """What tells entries of cluster files apart."""
    return machine.id, machine.target, machine.port


class Guard:
    """Made by ``guarded``; holds connections and locks until the end of its block."""

    def __init__(self, cluster: Cluster, errand: Errand, machines: Sequence[Machine]) -> None:
        self.cluster = cluster
        self.errand = errand
        self.operator = this_operator(errand.file)
        self._machines = machines
        self._links: dict[Key, Connection] = {}
        self._locks: dict[Key, MachineLock] = {}
        self._failures: dict[Key, DoraError] = {}
        self._places: dict[Key, str] = {}
        """Which machine an entry leads to."""
        self._verdicts: dict[Key, Verdict] = {}
        self._info = {
            "key": uuid.uuid4().hex,
            "operator": self.operator.name,
            "command": f"dora cluster {errand.command} {errand.file}",
            "pid": os.getpid(),
        }
        self._changing = threading.Lock()

    # ------------------------------------------------------------------------ for the command

    def find(self, machine: Machine) -> Connection | None:
        """The connection to a machine; raises why there is none."""
        if (failure := self._failures.get(key_of(machine))) is not None:
            raise failure
        return self._links.get(key_of(machine))

    def conflicts(self, machine: Machine) -> tuple[Conflict, ...]:
        """Daemons of others there."""
        return self._verdict(machine).conflicts

    def left(self) -> list[tuple[Machine, Occupant]]:
        """Daemons of this cluster that are not in its file, each with an entry that leads there."""
        found: dict[tuple[str, str], tuple[Machine, Occupant]] = {}
        for machine in self._machines:
            for one in self._verdict(machine).left:
                place = self._places.get(key_of(machine), machine.target)
                found.setdefault((place, one.name), (machine, one))
        return list(found.values())

    def keep_owner(self, on: OnMachine) -> None:
        """Record on the machine who sets its daemon up, and for which cluster."""
        operator = this_operator(self.errand.file)  # this command may have made the token
        owner = operator.record(settings(self.cluster, on.machine))
        ask_occupancy(on.link, "record", name=on.daemon, owner=owner)

    def _verdict(self, machine: Machine) -> Verdict:
        return self._verdicts.get(key_of(machine), Verdict())

    # ------------------------------------------------------------------------ beginning and end

    def begin(self) -> None:
        """Connect, lock and check; raises InUse."""
        in_parallel(self._machines, self._connect)
        self._lock_all()
        # a command that was waited for may have made the account's token
        self.operator = this_operator(self.errand.file)
        self._each(self._look)
        if self.errand.refuses and not self.errand.take_over:
            self._require_ours()

    def end(self) -> None:
        """Free the machines."""
        for lock in self._locks.values():
            lock.signal_end()
        for lock in self._locks.values():
            lock.release()
        for link in self._links.values():
            link.close()

    def _each(self, work: Any) -> None:
        in_parallel([one for one in self._machines if key_of(one) in self._links], work, self)

    def _connect(self, _opened: Opened, _number: int, machine: Machine) -> None:
        try:
            link = connect(target_of(machine))
        except DoraError as error:
            self._failures[key_of(machine)] = error
            return
        with self._changing:
            self._links[key_of(machine)] = link

    def _give_up(self, machine: Machine, error: DoraError) -> None:
        """Leave a machine as it is; the command reports why."""
        self._failures[key_of(machine)] = error
        with suppress(KeyError):
            self._links.pop(key_of(machine)).close()

    # ------------------------------------------------------------------------ locking

    def _lock_all(self) -> None:
        """All at once; when some are held, one after the other in an order of the machines' own,
        so that two commands never wait for each other.
        """
        answers: dict[Key, Answer] = {}

        def try_one(_opened: Opened, _number: int, machine: Machine) -> None:
            if (answer := self._ask(machine, wait=False)) is not None:
                answers[key_of(machine)] = answer

        self._each(try_one)
        for key, answer in answers.items():
            self._places[key] = str(answer["machine"])
        if all(answer["held"] for answer in answers.values()):
            return
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
        there = [one for one in self._machines if key_of(one) in answers]
        for machine in sorted(there, key=lambda one: self._places[key_of(one)]):
            self._ask(machine, wait=True)

    def _ask(self, machine: Machine, *, wait: bool) -> Answer | None:
        """None: not possible, and the machine was given up."""
        link = self._links[key_of(machine)]

        def lost() -> None:
            output.warn(f"{ssh_name(machine)}: its lock was lost; nothing more is done there")
            link.close()

        def waiting(holder: Answer | None) -> None:
            output.remark(f"{ssh_name(machine)} {_held_by(holder)}; waiting until it ends")

        lock = MachineLock(link, self._info, lost)
        try:
            answer = lock.ask(wait=wait, waiting=waiting)
        except DoraError as error:
            self._give_up(machine, error)
            return None
        except BaseException:
            lock.release()
            raise
        if answer["held"] and not answer.get("shared"):
            with self._changing:
                self._locks[key_of(machine)] = lock
        return answer

    # ------------------------------------------------------------------------ checking

    def _look(self, opened: Opened, _number: int, machine: Machine) -> None:
        try:
            with opened.to(machine) as link:
                occupants = survey(link)
        except DoraError as error:
            self._give_up(machine, error)
            return
        wanted = [one for one in self.cluster.machines if self._same_place(one, machine)]
        if not self.errand.adds:
            ids = {one.id for one in wanted}
            occupants = [one for one in occupants if one.id in ids]
        self._verdicts[key_of(machine)] = judge(occupants, self.cluster, wanted, self.operator)

    def _same_place(self, one: Machine, other: Machine) -> bool:
        """Whether two entries lead to the same machine."""
        places = self._places.get(key_of(one)), self._places.get(key_of(other))
        if None not in places:
            return places[0] == places[1]
        return (one.host, one.port) == (other.host, other.port)

    def _require_ours(self) -> None:
        now = time.time()
        told = [
            refusal(ssh_name(machine), found, self.cluster, self.operator, now=now)
            for machine in self._machines
            if (found := self.conflicts(machine))
        ]
        if told:
            raise InUse(
                "\n".join(told) + "\nnothing was changed on any machine; --take-over ends the "
                "daemons of other clusters with their dataflows and uses the machines"
            )


def _held_by(holder: Mapping[str, Any] | None) -> str:
    if holder is None:
        return "is held by another command that does not answer"
    since = moment(float(holder["since"]), now=time.time())
    return (
        f"is held by `{holder['command']}` of {holder['operator']} (process {holder['pid']}) "
        f"since {since}"
    )


@cache
def _program() -> bytes:
    return (files("dora_cli.cluster") / "occupancy_program.py").read_bytes()


def ask_occupancy(
    link: Connection, command: str, *, sudo: bool = False, timeout: float = 60.0, **given: Any
) -> dict[str, Any]:
    """One command of ``occupancy_program``; raises DoraError."""
    return ask(link, command, sudo=sudo, timeout=timeout, program=_program(), **given)


def survey(link: Connection) -> list[Occupant]:
    """The daemons of a machine."""
    return [Occupant.read(found) for found in ask_occupancy(link, "survey")["daemons"]]


@contextmanager
def guarded(
    cluster: Cluster, errand: Errand, machines: Sequence[Machine] | None = None
) -> Iterator[Guard]:
    """The machines (None: all of the cluster) are this command's alone. Raises InUse."""
    guard = Guard(cluster, errand, cluster.machines if machines is None else machines)
    try:
        guard.begin()
        yield guard
    finally:
        guard.end()
