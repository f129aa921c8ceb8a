"""Requests that start, stop or restart dataflows or wait for their end; pure."""

from __future__ import annotations

from typing import assert_never

from dora_config.dataflow.placement import UnplacedNodes
from dora_config.errors import PlacementError
from dora_config.protocol.control import (
    DataflowRef,
    Ended,
    RestartDataflow,
    Restarted,
    StartDataflow,
    Started,
    StartTriggered,
    StopDataflow,
)
from dora_coordinator.clients.builds import require_built
from dora_coordinator.clients.waits import Wait, Waits
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import StopRequested
from dora_coordinator.dataflow.placement import place
from dora_coordinator.dataflow.registry import DataflowChanged, DataflowRegistry, RequestRefused
from dora_coordinator.state.commands import AnswerClient, Command, FailClient, SendProgress
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import Phase


class LifecycleRequests:
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership
        self._waits = Waits()

    def start(self, asked: ClientRequested, start: StartDataflow, now: float) -> list[Command]:
        """Raises :class:`RequestRefused` and placement errors."""
        spec = start.spec
        running = self._registry.live_named(spec.name) if spec.name else None
        if running is not None and not start.dry_run:
            raise RequestRefused(
                "conflict",
                f'there is already a running dataflow with name "{spec.name}" ({running.id}); '
                "stop it or choose another --name",
            )
        plan = place(spec.resolved, self._membership.connected())
        if start.dry_run:
            return [AnswerClient(asked.client, asked.number, plan.explained)]
        require_built(spec, plan.parts)
        self._waits.add(Wait(asked, "started", {asked.fresh_id}))
        triggered = StartTriggered(uuid=asked.fresh_id)
        return [
            SendProgress(asked.client, asked.number, triggered),
            *self._registry.start(asked.fresh_id, spec, plan.parts, now),
        ]

    def stop(self, asked: ClientRequested, stop: StopDataflow, now: float) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        if stop.all:
            chosen = self._registry.live()
            if not chosen:
                raise RequestRefused("nothing_runs", "No dataflows are running.")
        else:
            chosen = [self._registry.find(stop.dataflow, archived=False)]
        event = StopRequested(stop.grace, stop.force)
        commands = [c for dataflow in chosen for c in self._registry.apply(dataflow, event, now)]
        left = {dataflow.id for dataflow in chosen if not dataflow.has_ended}
        wait = Wait(asked, "ended", left, [one.ended() for one in chosen if one.has_ended])
        self._waits.add(wait)
        return commands if left else [*commands, _answer_ended(wait)]

    def restart(
        self, asked: ClientRequested, restart: RestartDataflow, now: float
    ) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        dataflow = self._registry.find(restart.dataflow, archived=False)
        wait = Wait(asked, "restarted", {dataflow.id}, old=dataflow.id)
        stop = StopRequested(restart.grace, restart.force)
        commands = self._registry.apply(dataflow, stop, now)
        if dataflow.has_ended:
            return [*commands, *self._start_again(wait, dataflow, now)]
        self._waits.add(wait)
        return commands

    def wait_for_end(self, asked: ClientRequested, ref: DataflowRef) -> list[Command]:
        """Raises :class:`RequestRefused`."""
        dataflow = self._registry.find(ref, archived=True)
        if dataflow.has_ended:
            return [_answer_ended(Wait(asked, "ended", set(), [dataflow.ended()]))]
        self._waits.add(Wait(asked, "ended", {dataflow.id}))
        return []

    def drop(self, client: int, number: int | None) -> None:
        """Forget one request of a client (None: all of them)."""
        self._waits.drop(client, number)

    def dataflow_changed(self, change: DataflowChanged, now: float) -> list[Command]:
        """Answer the requests that waited for this change."""
        dataflow = change.dataflow
        commands: list[Command] = []
        for wait in self._waits.of(dataflow.id):
            match wait.until:
                case "started":
                    commands += self._start_changed(wait, change)
                case "ended" | "restarted" if not dataflow.has_ended:
                    pass
                case "ended":
                    self._waits.remove(wait, dataflow.id)
                    wait.ended.append(dataflow.ended())
                    commands += [] if wait.left else [_answer_ended(wait)]
                case "restarted":
                    self._waits.remove(wait, dataflow.id)
                    commands += self._start_again(wait, dataflow, now)
                case _ as unreachable:
                    assert_never(unreachable)
        return commands

    def _start_changed(self, wait: Wait, change: DataflowChanged) -> list[Command]:
        asked, dataflow = wait.asked, change.dataflow
        commands: list[Command] = []
        if dataflow.waits_for is not None:
            waits = StartTriggered(uuid=dataflow.id, waits_for=dataflow.waits_for)
            commands.append(SendProgress(asked.client, asked.number, waits))
        started = dataflow.phase is Phase.RUNNING or (
            dataflow.has_ended and change.before in (Phase.RELEASING, Phase.RUNNING, Phase.STOPPING)
        )
        if started or dataflow.has_ended:
            self._waits.remove(wait, dataflow.id)
            commands.append(_answer_start(wait, dataflow, started=started))
        return commands

    def _start_again(self, wait: Wait, dataflow: Dataflow, now: float) -> list[Command]:
        asked = wait.asked
        try:
            plan = place(dataflow.spec.resolved, self._membership.connected())
            require_built(dataflow.spec, plan.parts)
        except (PlacementError, UnplacedNodes) as problem:
            message = f"{dataflow.label} was stopped but not started again: {problem}"
            return [FailClient(asked.client, asked.number, message, "placement")]
        self._waits.add(Wait(asked, "started", {asked.fresh_id}, old=wait.old))
        return self._registry.start(asked.fresh_id, dataflow.spec, plan.parts, now)


def _answer_ended(wait: Wait) -> Command:
    answer = Ended(dataflows=tuple(wait.ended))
    return AnswerClient(wait.asked.client, wait.asked.number, answer)


def _answer_start(wait: Wait, dataflow: Dataflow, *, started: bool) -> Command:
    client, number = wait.asked.client, wait.asked.number
    if not started:
        message = f"dataflow {dataflow.label} was not started: {dataflow.reason}"
        return FailClient(client, number, message, ended=dataflow.ended())
    if wait.old:
        restarted = Restarted(old=wait.old, new=dataflow.id, warnings=dataflow.warnings)
        return AnswerClient(client, number, restarted)
    return AnswerClient(client, number, Started(uuid=dataflow.id, warnings=dataflow.warnings))
