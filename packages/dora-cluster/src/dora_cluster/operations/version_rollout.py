"""Roll-out of a version of dora to the machines of a cluster, from this computer.

`dora_config.cluster.rollout` decides which machines may change, as for `dora cluster apply`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from dora_cli import output
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_cluster.bundle.install import collect
from dora_cluster.coordinator import queries
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.errors import Unreachable
from dora_cluster.machines.remote_machine import Connections, RemoteMachine, in_parallel
from dora_cluster.operations.daemon_switch import DaemonSwitch, Switch, held_text
from dora_cluster.operations.steps import FAULTS, POLL_INTERVAL, prefixed, write_line
from dora_config.cluster.fleet import Rollout
from dora_config.cluster.models import Cluster, Machine
from dora_config.cluster.rollout import Decision, RollOut, Seen
from dora_config.errors import DoraError, error_text
from dora_config.protocol.fleet import CheckMachine
from dora_config.protocol.snapshot import NodeSummary


@dataclass(frozen=True, slots=True)
class Waves:
    """Settings of the roll-out of a version."""

    rollout: Rollout
    keep_going: bool = False
    """Continue after failures."""
    force: bool = False
    """Do not wait for nodes that hold updates."""


def waves_of(cluster: Cluster, *, keep_going: bool, force: bool) -> Waves:
    """Return `rollout` of the cluster file; without it, machines change one by one."""
    return Waves(cluster.rollout or Rollout(then=1), keep_going, force)


def require_startable(cluster: Cluster, waves: Waves) -> None:
    """Raise DoraError if no coordinator answers, or a roll-out is not allowed there now."""
    queries.require_coordinator(cluster)
    if (pause := queries.operators_pause(cluster)) is not None:
        raise NotReady(f"{pause}; run `dora cluster resume` first")
    if waves.rollout.check is not None:
        queries.check_machine(cluster, CheckMachine(command=waves.rollout.check, dry_run=True))


@dataclass(eq=False)
class _Unit:
    """One machine in a roll-out."""

    machine: Machine
    prefix: str
    switch: DaemonSwitch | None = None
    state: Literal["waiting", "prepared", "switched", "ended"] = "waiting"
    """``prepared``: the version is there; ``switched``: its daemon runs and is watched."""
    healthy: bool = False
    failed: str | None = None
    off: bool = False
    connection: ExitStack = field(default_factory=ExitStack)


@dataclass(slots=True)
class _Present:
    """Report of the coordinator."""

    nodes: queries.Nodes = field(default_factory=dict)
    daemons: dict[str, str] = field(default_factory=dict)
    """Versions of the connected daemons, by machine."""
    problem: str = ""
    """Why the coordinator gave no report."""
    pause: str | None = None


class VersionRollOut:
    def __init__(
        self,
        cluster: Cluster,
        machines: Sequence[Machine],
        label: Callable[[Machine], str],
        switch: Switch,
        waves: Waves,
        *,
        collects: bool = False,
    ) -> None:
        """``collects``: remove unused versions from each machine that has changed."""
        self._cluster, self._waves, self._label, self._switch = cluster, waves, label, switch
        self._collects = collects
        self._connections = Connections()
        self._engine = RollOut(waves.keep_going)
        names = sorted(one.id for one in machines)
        alone = {batch[0] for batch in waves.rollout.batches(names) if len(batch) == 1}
        self._units = {
            one.id: _Unit(one, "" if one.id in alone else f"{one.id} | ") for one in machines
        }
        self._noted: dict[str, str] = {}
        """Last printed line of each machine that waits."""
        self._pause: str | None = None
        self._spent = 0.0
        """Seconds spent in steps; deadlines exclude them, because steps have their own limits."""
        self.before: dict[str, str] = {}
        """Former version of each machine that was switched; empty if its daemon was not connected.
        """
        self.gave_up = False

    @property
    def succeeded(self) -> list[str]:
        """Return the machines that run the version, also those that ran it already."""
        return [name for name, unit in self._units.items() if unit.healthy]

    @property
    def is_complete(self) -> bool:
        return len(self.succeeded) == len(self._units)

    def run(self) -> bool:
        """Switch the machines batch by batch, until too many have failed; return whether all are.

        Machines that do not answer do not count, unless none of the first batch answers.
        """
        try:
            self.gave_up = not self._run().is_done
            self._leave(NotReady("the roll-out has ended"), "prepared")
        except BaseException as problem:
            self._leave(problem, "prepared", "switched")
            raise
        finally:
            for unit in self._units.values():
                unit.connection.close()
        left = [name for name in sorted(self._units) if self._units[name].state == "waiting"]
        if left:
            output.write(f"Stopped there; not touched: {', '.join(left)} (--keep-going continues)")
        output.write(f"{len(self.succeeded)}/{len(self._units)} succeeded.")
        return self.is_complete

    def _run(self) -> Decision:
        while True:
            present = self._look()
            decision = self._engine.decide(
                self._waves.rollout,
                [self._seen(one, present) for one in self._units.values()],
                self._now(),
                paused=present.pause is not None,
            )
            for name in decision.healthy:
                self._promote(self._units[name])
            for name, reason in decision.failed.items():
                unit = self._units[name]
                held = self._held(unit, present) if unit.state == "prepared" else ""
                hint = " (--force changes it at once)" if held else ""
                self._step(unit, partial(self._return, reason=f"{reason}{hint}"))
            if decision.is_done or decision.is_stuck or decision.gives_up is not None:
                return decision
            acting, checked = (
                [self._units[name] for name in names] for names in (decision.act, decision.check)
            )
            due = [one for one in acting if not self._waits(one, present)]
            if due or checked:
                self._carry_out(due, checked)
            else:
                time.sleep(POLL_INTERVAL)

    def _now(self) -> float:
        return time.monotonic() - self._spent

    # ------------------------------------------------------------------- observing

    def _look(self) -> _Present:
        """Get a report of the coordinator; leave it empty until a machine is prepared."""
        present = _Present(pause=self._pause)  # keeps the last known pause if no answer arrives
        try:
            present.pause = queries.operators_pause(self._cluster)
            if any(one.state in ("prepared", "switched") for one in self._units.values()):
                present.nodes = queries.fetch_nodes(self._cluster)
                report = queries.report_if_running(self._cluster)
                daemons = queries.connected_daemons(report)
                present.daemons = {name: one.release for name, one in daemons.items()}
        except CoordinatorUnavailable as problem:
            present.problem = f"the coordinator gave no report: {problem}"
        if present.pause not in (None, self._pause):
            output.write(f"{present.pause}; `dora cluster resume` continues")
        self._pause = present.pause
        return present

    def _seen(self, unit: _Unit, present: _Present) -> Seen:
        processes, unready = None, present.problem
        if unit.state == "switched" and unit.switch is not None and not unready:
            unready = unit.switch.unready(present.nodes, present.daemons)
            if not unready:
                nodes = self._nodes_of(unit, present)
                processes = [(one.dataflow, one.node, one.pid) for one in nodes]
        return Seen(
            name=unit.machine.id,
            machine=unit.machine.id,
            differs=unit.state in ("waiting", "prepared"),
            connected=not unit.off,
            processes=processes,
            unready=unready or "its nodes were restarted",
            held=self._held(unit, present) or None if unit.state == "prepared" else None,
            healthy=unit.healthy,
            failed=None if unit.off else unit.failed,
        )

    def _nodes_of(self, unit: _Unit, present: _Present) -> list[NodeSummary]:
        nodes = present.nodes.values()
        found = [one for one in nodes if one.daemon == unit.machine.id]
        return sorted(found, key=lambda one: (one.dataflow, one.node))

    def _held(self, unit: _Unit, present: _Present) -> str:
        """Return why a machine is not switched now: which node holds updates."""
        if unit.state != "prepared" or present.problem or self._waves.force:
            return present.problem
        nodes = self._nodes_of(unit, present)
        return "; ".join(held_text(one) for one in nodes if one.held is not None)

    def _waits(self, unit: _Unit, present: _Present) -> bool:
        """Return whether a machine is not switched now; print why."""
        name, held = unit.machine.id, self._held(unit, present)
        if held and held != self._noted.get(name):
            with prefixed(unit.prefix):
                write_line(f"  Waiting up to {self._waves.rollout.deadline:g} s: {held}")
        self._noted[name] = held
        return bool(held)

    # ----------------------------------------------------------------------- steps

    def _carry_out(self, due: Sequence[_Unit], checked: Sequence[_Unit]) -> None:
        begun = time.monotonic()
        works = [
            *((one, self._begin if one.state == "waiting" else self._finish) for one in due),
            *((one, self._check) for one in checked),
        ]
        if len(works) == 1:  # in this thread, so that Ctrl-C interrupts it
            self._step(*works[0])
        else:
            in_parallel(self._connections, works, lambda one: self._step(*one))
        self._spent += time.monotonic() - begun

    def _step(self, unit: _Unit, work: Callable[[_Unit], object]) -> None:
        """Do one step of a machine; if it fails, the machine runs its former version again."""
        with prefixed(unit.prefix):
            try:
                work(unit)
            except FAULTS as error:
                text = error_text(error).removeprefix(f"{unit.machine.label}: ")
                write_line(f"  FAILED: {text}")
                unit.failed, unit.off = text, isinstance(error, Unreachable)
                unit.connection.close()

    def _begin(self, unit: _Unit) -> None:
        """Put the version on the machine."""
        unit.state = "ended"
        write_line(f"{self._label(unit.machine)}...")
        connection = unit.connection.enter_context(self._connections.open(unit.machine))
        remote = RemoteMachine(self._cluster, unit.machine, connection)
        unit.switch = DaemonSwitch(remote, self._switch)
        if unit.switch.begin():
            unit.state = "prepared"
        else:
            unit.healthy = True

    def _finish(self, unit: _Unit) -> None:
        """Replace the daemon."""
        assert unit.switch is not None
        unit.state = "ended"
        unit.switch.finish()
        unit.state = "switched"
        self.before[unit.machine.id] = unit.switch.old

    def _check(self, unit: _Unit) -> None:
        """Run the command of the roll-out."""
        assert unit.switch is not None
        command, name = self._waves.rollout.check or "", unit.machine.id
        request = CheckMachine(command=command, machine=name, version=unit.switch.new)
        try:
            queries.check_machine(self._cluster, request)
        except CoordinatorUnavailable as problem:
            self._engine.step_ended(name, self._now(), refusal=str(problem))
            return
        except DoraError as problem:
            self._write_healthy()
            write_line("  Check... FAILED")
            self._return(unit, str(problem))
        self._write_healthy()
        write_line("  Check... OK")
        self._engine.step_ended(name, self._now(), check_passed=True)

    def _write_healthy(self) -> None:
        if self._waves.rollout.healthy > 0:
            write_line(f"  Healthy for {self._waves.rollout.healthy:g} s... OK")

    def _promote(self, unit: _Unit) -> None:
        """Keep the version on a machine that stayed healthy."""
        unit.healthy, unit.state = True, "ended"
        with prefixed(unit.prefix):
            if self._waves.rollout.check is None:
                self._write_healthy()
            if self._collects and unit.switch is not None:
                self._collect(unit.switch)
        unit.connection.close()

    def _collect(self, switch: DaemonSwitch) -> None:
        try:
            collect(switch.remote.connection, switch.layout)
        except FAULTS as problem:
            reason = error_text(problem).removeprefix(f"{switch.remote.machine.label}: ")
            output.warn(f"unused versions were not removed there: {reason}")

    def _return(self, unit: _Unit, reason: str) -> None:
        """Return a machine to its former version; raises NotReady with that and the reason."""
        unit.state = "ended"
        self.before.pop(unit.machine.id, None)
        with nullcontext() if unit.switch is None else unit.switch.returning():
            raise NotReady(reason)

    def _leave(self, problem: BaseException, *states: str) -> None:
        """Return the machines in these states, because of a problem."""
        for unit in self._units.values():
            if unit.state in states and unit.switch is not None:
                unit.state = "ended"
                with (
                    prefixed(unit.prefix),
                    suppress(KeyboardInterrupt, *FAULTS),
                    unit.switch.returning(),
                ):
                    raise problem
