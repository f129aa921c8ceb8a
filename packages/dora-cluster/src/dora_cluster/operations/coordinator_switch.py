"""Switches the coordinator to another version: its service, or its process on this machine."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dora_cli import output
from dora_cli.coordinator import background
from dora_cluster.bundle.install import Installer
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.local import (
    MODULE,
    PRINT_STORE,
    PRINT_VERSION,
    CoordinatorProcess,
    DoesNotEnd,
    end_process,
    find_process,
    wait_for_end,
)
from dora_cluster.coordinator.place import CoordinatorMachine, this_machine
from dora_cluster.coordinator.service import (
    LAST_LINES,
    CoordinatorService,
    installed_service,
    program_words,
)
from dora_cluster.coordinator.tokens import trust_authority
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.decisions.units import unit_program, unit_version
from dora_cluster.decisions.versions import Versions
from dora_cluster.operations.steps import FAULTS, VersionSwitch
from dora_config.access import private_dir, write_private
from dora_config.cluster.models import Cluster
from dora_config.spawn_argv import run_module

START_TIMEOUT = 20.0
"""Seconds for the new version to answer."""


@dataclass(frozen=True, slots=True)
class Program:
    """A version of the coordinator's program."""

    version: str
    words: tuple[str, ...]
    """Command line up to the coordinator's arguments."""
    variables: Mapping[str, str]
    """Variables of Python, such as PYTHONPATH."""
    unit: str = ""
    """Text of the unit, for a service: it contains all other fields."""


class ManagedCoordinator(VersionSwitch):
    """The coordinator as a service or in the background, with its previous version."""

    WHAT = "coordinator"
    ANSWER = "answer"
    REMEDY = "Start it with `dora cluster up`"

    def __init__(self, host: CoordinatorMachine, store: str | None) -> None:
        """``store``: file of the store; empty: the store of the account; None: in memory."""
        super().__init__(host.connection.name, queries.release_of(host.cluster))
        self.host = host
        self._store = store
        self._copy: str | None = None

    # ------------------------------------------------------------------------ versions

    @abstractmethod
    def present(self) -> Program:
        """Return the program that runs."""

    @abstractmethod
    def replaced(self) -> Program | None:
        """Return the program that an upgrade replaced; after a rollback, the one that runs."""

    @abstractmethod
    def keep(self, program: Program) -> None:
        """Store what `replaced` returns."""

    @abstractmethod
    def put(self, installer: Installer) -> Program:
        """Put the installer's version there; raises NotReady if it cannot be the coordinator."""

    def versions(self) -> Versions:
        """Return the running version and the one that an upgrade replaced."""
        before = self.replaced()
        if before is None or before.version == self.old:
            return Versions(self.old, returned=before is not None, there=(self.old,))
        return Versions(self.old, before.version, there=(self.old, before.version))

    def present_version(self, program: Program) -> str:
        """Return the present version of a program; empty if the program cannot be executed."""
        words = [program.words[0], "--version"]
        if not _is_dora(program):
            words = [*self._python(program), "-P", "-c", PRINT_VERSION]
        return self._printed(words).removeprefix("dora ")

    def stores(self) -> tuple[str, str]:
        """Return the versions of the store of the present and the replaced program.

        Empty: unknown, as for a program that the cluster file names.
        """
        now, before = (
            ""
            if one is None or _is_dora(one)
            else self._printed([*self._python(one), "-P", "-c", PRINT_STORE])
            for one in (self.present(), self.replaced())
        )
        return now, before

    def _printed(self, words: Sequence[str]) -> str:
        """Return what a command prints; empty if it fails."""
        done = self.host.connection.run(words)
        return done.stdout.strip() if done.code == 0 else ""

    def _python(self, program: Program) -> list[str]:
        return [program.words[0]]

    # ------------------------------------------------------------------------ switching

    def switch_to(self, program: Program, *, keep: Program) -> None:
        """Start this program; ``keep``: program to which a later rollback returns.

        If it fails, it raises NotReady, and the present program runs again.
        """
        self._program, self._kept, self.new = program, keep, program.version
        self.run()
        remark = f" (store copied to {self._copy})" if self._copy else ""
        output.write(f"  dora {self.old} -> {self.new}... OK{remark}")

    def prepare(self) -> bool:
        return True

    def undo(self) -> None:
        return

    def release(self) -> str:
        return queries.release_of(self.host.cluster)

    def check(self) -> None:
        self.keep(self._kept)

    def _copy_store(self) -> None:
        if self._store is not None:
            found = self.host.call("coordinator.copy_store", version=self.old, store=self._store)
            self._copy = found["copy"]

    def _restore_store(self) -> None:
        """Restore the store; the old version may still run with the store of the new one."""
        if self._copy is None:
            return
        try:
            self.host.call("coordinator.restore_store", copy=self._copy, store=self._store)
        except FAULTS as problem:
            output.warn(
                f"the coordinator starts with the store of dora {self.new} ({problem}); its own "
                f"store: {self._copy}"
            )


class ServiceCoordinator(ManagedCoordinator):
    """The service of systemd; a unit identifies each program."""

    def __init__(self, service: CoordinatorService) -> None:
        super().__init__(service.host, "")
        self._service = service
        self._unit = (service.text() or "").encode()

    def present(self) -> Program:
        return _of_unit(self._unit.decode(errors="replace"))

    def replaced(self) -> Program | None:
        unit = self._service.text_before()
        return None if unit is None else _of_unit(unit)

    def keep(self, program: Program) -> None:
        self._service.keep_before(program.unit)

    def put(self, installer: Installer) -> Program:
        host, service = self.host, self._service
        if host.machine.dora is not None:
            raise NotReady(
                f"the cluster file names the coordinator's program, {host.machine.dora}; upgrade "
                "that program by the way it was installed, or remove `coordinator.dora` from the "
                "file"
            )
        host.connection.check(["true"], sudo=not service.user)  # fails before anything is changed
        words = program_words(host, installer, user=service.user)
        return _of_unit(service.render(words, installer.version))

    def prepare(self) -> bool:
        self._copy_store()
        return True

    def replace(self) -> None:
        service = self._service
        service.replace_files_and_restart({service.unit: self._program.unit.encode()})
        if self.host.is_remote:
            trust_authority(service)

    def last_lines(self) -> Sequence[str]:
        return self._service.journal(LAST_LINES)

    def restore(self) -> None:
        service = self._service
        report = queries.fetch_report(self.host.cluster)
        if report is not None and report.coordinator.release == self.old:  # still runs
            service.replace_files({service.unit: self._unit})
            return
        service.stop()
        self._restore_store()
        service.replace_files_and_restart({service.unit: self._unit})


class BackgroundCoordinator(ManagedCoordinator):
    """A process of this account on this machine, started by `up` or by hand."""

    def __init__(self, cluster: Cluster, process: CoordinatorProcess) -> None:
        store = None if process.store is None else str(process.store)
        super().__init__(this_machine(cluster), store)
        self._process = process
        self._started: background.BackgroundProcess | None = None
        self._record = process.state / "coordinator" / f"before-{cluster.coordinator.port}.json"

    def present(self) -> Program:
        return Program(self.old, self._process.program, self._process.python_variables)

    def replaced(self) -> Program | None:
        try:
            record = json.loads(self._record.read_bytes())
            words, variables = tuple(record["words"]), dict(record["variables"])
            return Program(record["version"], words, variables)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, program: Program) -> None:
        kept = {"version": program.version, "words": program.words, "variables": program.variables}
        private_dir(self._record.parent)
        write_private(self._record, json.dumps(kept).encode())

    def put(self, installer: Installer) -> Program:
        process = self._process
        if not Path(process.directory).is_dir():
            raise NotReady(
                f"the coordinator (process {process.pid}) runs in {process.directory}, which does "
                "not exist any more, so it cannot be replaced; end it and start one with `dora "
                "cluster up`"
            )
        variables = {name: text for name, text in os.environ.items() if name.startswith("PYTHON")}
        return Program(installer.version, run_module(MODULE), variables)

    def _python(self, program: Program) -> list[str]:
        ours = [f"--unset={name}" for name in os.environ if name.startswith("PYTHON")]
        its = [f"{name}={text}" for name, text in program.variables.items()]
        return ["env", *ours, *its, program.words[0]]

    def replace(self) -> None:
        try:
            end_process(self._process)
        except DoesNotEnd:
            self.replacing = False
            raise
        self._copy_store()
        self._start(self._program)

    def _start(self, program: Program) -> None:
        environ = self._process.environ
        kept = {name: text for name, text in environ.items() if not name.startswith("PYTHON")}
        self._started = background.start(
            "coordinator",
            [*program.words, *self._process.arguments],
            directory=self._process.directory,
            environ={**kept, **program.variables},
        )

    def wait(self) -> None:
        if self._started is not None:
            self._started.wait_until(lambda: self.release() == self.new, within=START_TIMEOUT)

    def last_lines(self) -> Sequence[str]:
        return ()  # the started process reports them, in `wait`

    def restore(self) -> None:
        if self._started is not None:
            self._started.end()
        wait_for_end(self._process)  # the first wait may have been interrupted
        self._restore_store()
        self._start(self.present())


def _of_unit(unit: str) -> Program:
    return Program(unit_version(unit), (unit_program(unit),), {}, unit)


def _is_dora(program: Program) -> bool:
    """Return whether the program is `dora` without a known Python, or is unknown."""
    return program.words[0] == "" or program.words[0].endswith("/dora")


# ---------------------------------------------------------------------------- operations


@contextmanager
def managed_coordinator(cluster: Cluster) -> Iterator[ManagedCoordinator | None]:
    """Open the running coordinator; None: not a service, nor a process of this account here."""
    with installed_service(cluster) as service:
        if service is not None:
            yield ServiceCoordinator(service)
            return
    process = find_process(cluster)
    yield None if process is None else BackgroundCoordinator(cluster, process)


def upgrade_coordinator(cluster: Cluster, installer: Installer) -> bool:
    """Switch it to the installer's version; return whether it was replaced.

    Raises NotReady if that fails, with the old version running.
    """
    old, version = queries.release_of(cluster), installer.version
    if old == version:
        return False
    address = queries.endpoint_of(cluster)
    with managed_coordinator(cluster) as coordinator:
        if coordinator is None:
            output.warn(
                f"the coordinator at {address} is dora {old} and does not run under this account "
                f"on this machine; upgrade it to {version} where it runs"
            )
            return False
        output.write(f"Upgrading the coordinator on {address}...")
        coordinator.switch_to(coordinator.put(installer), keep=coordinator.present())
    return True


def coordinator_versions(cluster: Cluster) -> Versions | None:
    """Return the running version and the one that an upgrade replaced; None: no answer."""
    now = queries.release_of(cluster)
    if not now:
        return None
    with managed_coordinator(cluster) as coordinator:
        return Versions(now, there=(now,)) if coordinator is None else coordinator.versions()


def roll_back_coordinator(cluster: Cluster) -> bool:
    """Switch it to the version that an upgrade replaced; return whether that was done.

    Prints why not. Raises NotReady if it fails, with the present version running.
    """
    address = queries.endpoint_of(cluster)
    with managed_coordinator(cluster) as coordinator:
        now = queries.release_of(cluster)
        before = None if coordinator is None else coordinator.replaced()
        if coordinator is None or before is None or before.version == now:
            output.remark(
                f"The coordinator on {address} stays at dora {now}: it has no upgrade to undo"
            )
            return False
        if (found := coordinator.present_version(before)) != before.version:
            state = f"is dora {found} now" if found else "does not run any more"
            output.warn(
                f"the coordinator on {address} stays at dora {now}: {before.words[0]}, which was "
                f"{before.version}, {state}; to return it too, install dora {before.version} and "
                "run `dora cluster upgrade` from there"
            )
            return False
        output.write(f"Rolling back the coordinator on {address}...")
        coordinator.switch_to(before, keep=before)
    return True


def store_problem(cluster: Cluster, version: str) -> str | None:
    """Return why the coordinator cannot return to ``version``, and the remedy.

    None: that version reads the present store, or one of the two cannot be started here.
    """
    with managed_coordinator(cluster) as coordinator:
        now, before = ("", "") if coordinator is None else coordinator.stores()
    if not now or not before or int(now.split(".")[0]) <= int(before.split(".")[0]):
        return None
    return (
        f"the coordinator: dora {version} cannot read its store (version {now}, it reads "
        f"{before.split('.')[0]}.x); end it, and start dora {version} with --recreate-store"
    )
