"""Reserves the machines of one command: connected, locked against other commands, and checked.

No machine is changed before all of them are locked and belong to this cluster.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from dora_cli import output
from dora_cluster.connection import Connection, Finished
from dora_cluster.decisions.existing_daemons import (
    Conflict,
    ExistingDaemon,
    UnexpectedDaemons,
    UserAccount,
    classify,
    describe_conflicts,
    format_time,
    settings_digest,
)
from dora_cluster.machines.remote_machine import (
    Connections,
    MachineKey,
    RemoteMachine,
    in_parallel,
    key_of,
)
from dora_cluster.remote_call import NO_PYTHON, call, command_words, program_input, too_old
from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_cluster.remote_program.protocol import Problem, decode_reply
from dora_config.access import find_token
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError

LEASE = 30.0
"""Seconds without a sign of life after which the machine frees the lock."""
SIGN_INTERVAL = 5.0
ANSWER_TIMEOUT = 60.0
FOREVER = 10 * 365 * 24 * 3600.0

Answer = Mapping[str, Any]


def account_name() -> str:
    """Return the name of this account; raises DoraError if it has none, as in some containers."""
    try:
        return getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        raise DoraError(f"user id {os.getuid()} has no name here; set the variable USER") from None


def this_account(file: Path) -> UserAccount:
    """Return the account; ``file``: the cluster file of the command."""
    token = find_token()
    name = f"{account_name()}@{socket.gethostname()}"
    shown = fingerprint(token) if token else None
    return UserAccount(name, str(Path.home()), str(file.absolute()), shown)


class LockFailed(DoraError):
    """The machine cannot be locked."""


class MachineLock:
    """The lock between ``acquire`` and ``release``; calls ``lost`` if the lock is lost."""

    def __init__(
        self,
        connection: Connection,
        info: Mapping[str, Any],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """``info``: shown to other commands; all locks of one command have the same ``key``."""
        self._connection = connection
        self._info = dict(info)
        self._lost = lost
        self._answers: SimpleQueue[Answer | LockFailed] = SimpleQueue()
        """Answers of the program, and at its end why it ended."""
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self._rest = b""
        self._held = False

    def acquire(self, *, wait: bool, on_wait: Callable[[Answer | None], None]) -> Answer:
        """Return the answer with ``held``; ``on_wait`` gets each holder that is waited for.

        Raises LockFailed and the errors of the connection.
        """
        given = {"info": self._info, "wait": wait, "lease": LEASE}
        self._thread = threading.Thread(target=self._run, args=(given,), daemon=True)
        self._thread.start()
        timeout: float | None = ANSWER_TIMEOUT
        while True:
            try:
                answer = self._answers.get(timeout=timeout)
            except Empty:
                self.release()
                raise LockFailed(
                    f"{self._connection.name}: no answer to the request for the machine's lock "
                    f"within {ANSWER_TIMEOUT:g} s; run this command again"
                ) from None
            if isinstance(answer, LockFailed):
                self.release()
                raise answer
            if "held" in answer:
                if not answer["held"] or answer.get("shared"):
                    self.release()
                return answer
            on_wait(answer["waiting"])
            timeout = None

    def begin_release(self) -> None:
        """Let the program end, without waiting."""
        self._released.set()

    def release(self) -> None:
        """Free the lock and wait until the program has ended."""
        self._released.set()
        if self._thread is not None:
            self._thread.join(SIGN_INTERVAL)

    def _run(self, given: dict[str, Any]) -> None:
        try:
            done = self._connection.run(
                command_words("lock.acquire"),
                stdin=self._input(given),
                timeout=FOREVER,
                on_output=self._take_output,
            )
            failure = self._failure_of(done)
        except (DoraError, OSError) as error:
            failure = str(error)
        self._answers.put(LockFailed(failure))
        if self._held and not self._released.is_set():
            self._lost()

    def _failure_of(self, done: Finished) -> str:
        name = self._connection.name
        if done.code == NO_PYTHON:
            return f"{name}: {too_old(done)}"
        errors = done.stderr.strip().splitlines()
        if errors:
            return f"{name}: the machine cannot be locked: {errors[-1]}"
        return f"{name}: the machine's lock was lost; run this command again"

    def _input(self, given: dict[str, Any]) -> Iterator[bytes]:
        yield program_input("lock.acquire", given)
        while not self._released.wait(SIGN_INTERVAL):
            yield b"."

    def _take_output(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                answer = decode_reply(line)
            except Problem as problem:
                self._answers.put(LockFailed(f"{self._connection.name}: {problem}"))
            except ValueError:
                continue  # output of a login shell
            else:
                self._held |= bool(answer.get("held")) and not answer.get("shared")
                self._answers.put(answer)


@dataclass(frozen=True, slots=True)
class ClusterCommand:
    """A command that changes machines."""

    name: str
    """``up``"""
    file: Path
    """The cluster file."""
    take_over: bool = False
    refuses: bool = True
    """Whether machines of others are an error; otherwise they are left unchanged."""
    surveys_all: bool = False
    """Whether it concerns all daemons of a machine, not only those of the file."""


class Reservation:
    """Connections and locks of one command; created by ``reserve``."""

    def __init__(
        self, cluster: Cluster, command: ClusterCommand, machines: Sequence[Machine]
    ) -> None:
        self.cluster = cluster
        self.command = command
        self.connections = Connections()
        self._operator = this_account(command.file)
        self._machines = machines
        self._locks: dict[MachineKey, MachineLock] = {}
        self._hosts: dict[MachineKey, str] = {}
        """The host that an entry leads to; two entries may lead to the same host."""
        self._unexpected: dict[MachineKey, UnexpectedDaemons] = {}
        self._info = {
            "key": uuid.uuid4().hex,
            "operator": self._operator.name,
            "command": f"dora cluster {command.name} {command.file}",
            "pid": os.getpid(),
        }
        self._changing = threading.Lock()

    # ------------------------------------------------------------------------ for the command

    def conflicts(self, machine: Machine) -> tuple[Conflict, ...]:
        """Return the daemons of others on a machine."""
        return self._unexpected_on(machine).conflicts

    def leftovers(self) -> list[tuple[Machine, ExistingDaemon]]:
        """Return daemons of this cluster that its file does not contain, with their machine."""
        found: dict[tuple[str, str], tuple[Machine, ExistingDaemon]] = {}
        for machine in self._machines:
            for one in self._unexpected_on(machine).leftovers:
                host = self._hosts.get(key_of(machine), machine.target)
                found.setdefault((host, one.name), (machine, one))
        return list(found.values())

    def record_owner(self, remote: RemoteMachine) -> None:
        """Store on the machine who sets up its daemon, and for which cluster."""
        operator = this_account(self.command.file)  # this command may have made the token
        owner = operator.record(settings_digest(remote.cluster, remote.machine))
        remote.call("existing_daemons.record", name=remote.machine.daemon, owner=owner)

    def _unexpected_on(self, machine: Machine) -> UnexpectedDaemons:
        return self._unexpected.get(key_of(machine), UnexpectedDaemons())

    # ------------------------------------------------------------------------ begin and end

    def begin(self) -> None:
        """Connect, lock and check; raises DoraError."""
        self.connections.connect(self._machines)
        self._lock_all()
        # a command that was waited for may have made the account's token
        self._operator = this_account(self.command.file)
        self._on_each(self._survey)
        if self.command.refuses and not self.command.take_over:
            self._require_no_conflict()

    def end(self) -> None:
        """Free the machines and close the connections."""
        for lock in self._locks.values():
            lock.begin_release()
        for lock in self._locks.values():
            lock.release()
        self.connections.close()

    def _on_each(self, work: Callable[[Machine], None]) -> None:
        """Do work on the machines that were not excluded."""
        there = [one for one in self._machines if self.connections.problem(one) is None]
        in_parallel(self.connections, there, work)

    # ------------------------------------------------------------------------ locks

    def _lock_all(self) -> None:
        """Lock all machines at once; if some are held, one after the other.

        The order then depends on the hosts and the accounts there only, so that two commands
        never wait for each other.
        """
        answers: dict[MachineKey, Answer] = {}

        def try_one(machine: Machine) -> None:
            if (answer := self._acquire(machine, wait=False)) is not None:
                answers[key_of(machine)] = answer

        self._on_each(try_one)
        for key, answer in answers.items():
            self._hosts[key] = str(answer["machine"])
        if all(answer["held"] for answer in answers.values()):
            return
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
        there = [one for one in self._machines if key_of(one) in answers]

        def order(machine: Machine) -> tuple[str, int]:
            answer = answers[key_of(machine)]
            return str(answer["machine"]), int(answer["account"])

        for machine in sorted(there, key=order):
            self._acquire(machine, wait=True)

    def _acquire(self, machine: Machine, *, wait: bool) -> Answer | None:
        """Request the lock; on failure exclude the machine and return None."""

        def on_loss() -> None:
            text = "its lock was lost, and its connection is closed; run this command again"
            output.warn(f"{machine.label}: {text}")
            self.connections.exclude(machine, LockFailed(f"{machine.label}: {text}"))

        def on_wait(holder: Answer | None) -> None:
            output.remark(f"{machine.label} {_describe_holder(holder)}; waiting until it ends")

        try:
            with self.connections.open(machine) as connection:
                lock = MachineLock(connection, self._info, on_loss)
        except DoraError as error:  # excluded meanwhile, as its lock was lost
            self.connections.exclude(machine, error)
            return None
        try:
            answer = lock.acquire(wait=wait, on_wait=on_wait)
        except DoraError as error:
            self.connections.exclude(machine, error)
            return None
        except BaseException:
            lock.release()
            raise
        if answer["held"] and not answer.get("shared"):
            with self._changing:
                self._locks[key_of(machine)] = lock
        return answer

    # ------------------------------------------------------------------------ daemons found

    def _survey(self, machine: Machine) -> None:
        try:
            with self.connections.open(machine) as connection:
                daemons = survey(connection)
        except DoraError as error:
            self.connections.exclude(machine, error)
            return
        wanted = [one for one in self.cluster.machines if self._is_same_host(one, machine)]
        if not self.command.surveys_all:
            ids = {one.id for one in wanted}
            daemons = [one for one in daemons if one.id in ids]
        self._unexpected[key_of(machine)] = classify(daemons, self.cluster, wanted, self._operator)

    def _is_same_host(self, one: Machine, other: Machine) -> bool:
        hosts = self._hosts.get(key_of(one)), self._hosts.get(key_of(other))
        if None not in hosts:
            return hosts[0] == hosts[1]
        return (one.host, one.port) == (other.host, other.port)

    def _require_no_conflict(self) -> None:
        now = time.time()
        found = [
            describe_conflicts(machine.label, conflicts, self.cluster, self._operator, now=now)
            for machine in self._machines
            if (conflicts := self.conflicts(machine))
        ]
        if found:
            raise DoraError(
                "\n".join(found) + "\nnothing was changed on any machine; --take-over ends the "
                "daemons of other clusters with their dataflows and uses the machines"
            )


def survey(connection: Connection) -> list[ExistingDaemon]:
    """Return the daemons of a machine; raises DoraError."""
    found = call(connection, "existing_daemons.survey")["daemons"]
    return [ExistingDaemon.model_validate(one) for one in found]


def _describe_holder(holder: Mapping[str, Any] | None) -> str:
    if holder is None:
        return "is held by another command"
    since = format_time(float(holder["since"]), now=time.time())
    return (
        f"is held by `{holder['command']}` of {holder['operator']} (process {holder['pid']}) "
        f"since {since}"
    )


@contextmanager
def reserve(
    cluster: Cluster, command: ClusterCommand, machines: Sequence[Machine] | None = None
) -> Iterator[Reservation]:
    """Reserve machines (None: all of the cluster) for the block; raises DoraError."""
    reservation = Reservation(cluster, command, cluster.machines if machines is None else machines)
    try:
        reservation.begin()
        yield reservation
    finally:
        reservation.end()
