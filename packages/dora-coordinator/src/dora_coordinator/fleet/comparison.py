"""Comparison of what the fleet should run with what runs; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dora_config.protocol import fleet as fleets, runner as protocol
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet_diff import changes_by_hand, differences, restart_reason
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.fleet.generations import Generations
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import Phase


@dataclass(frozen=True, slots=True)
class Copy:
    """One dataflow that is desired or runs."""

    name: str
    machine: str | None
    spec: DataflowSpec | None
    """Desired specification; None: the dataflow is to be stopped."""

    @property
    def generation(self) -> int | None:
        return None if self.spec is None else self.spec.generation


_ByHand = tuple[object, object, tuple[fleets.NodeDifference, ...]]


@dataclass(eq=False)
class Comparison:
    registry: DataflowRegistry
    membership: Membership
    generations: Generations
    _specs: dict[tuple[int, str], tuple[object, DataflowSpec]] = field(
        default_factory=dict, init=False
    )
    _by_hand: dict[str, _ByHand] = field(default_factory=dict, init=False)
    """Last comparisons of dataflows with what their generations want, with the two
    specifications.
    """

    # ---------------------------------------------------------------- all dataflows

    def compare(self, fleet: fleets.Fleet) -> list[fleets.CopyDifference]:
        """Return the changes that an apply of a fleet would make."""
        present = {copy.name: copy for copy in self.copies(self.generations.fleet)}
        found = []
        for copy in self.copies(fleet):
            difference = self.difference(copy)
            before, dataflow = present.get(copy.name), self.registry.live_named(copy.name)
            if before is not None and dataflow is not None and difference.action != "equal":
                by_hand = self.changes_by_hand(before, dataflow)
                at = clock(self.generations.record(copy.name).by_hand_at)
                difference = difference.model_copy(update={"by_hand": by_hand, "by_hand_at": at})
            found.append(difference)
        return found

    def stamped(self, wanted: fleets.Fleet) -> fleets.Fleet:
        """Return a fleet whose dataflows have the generation that changes them.

        A dataflow that is equal but was stopped or failed is started again by a new generation.
        """
        number, desired = self.generations.number + 1, self.generations.fleet
        found = []
        for one in wanted.dataflows:
            present = desired.get(one.name)
            same = present is not None and present.content() == one.content()
            stamp = present.spec.generation if present is not None and same else number
            stamped = one.at_generation(stamp)
            if same and any(
                self._must_change(copy) for copy in self._copies_of(stamped, self.labels())
            ):
                stamped = one.at_generation(number)
            found.append(stamped)
        return wanted.model_copy(update={"dataflows": tuple(found)})

    def labels(self) -> dict[str, Mapping[str, str]]:
        """Return the labels of the known machines."""
        return {
            member.register.machine_id: member.register.labels
            for member in self.membership.all()
            if member.register.machine_id is not None
        }

    def copies(self, fleet: fleets.Fleet) -> Iterator[Copy]:
        """Yield the dataflows that should run, then those that run and should not."""
        labels, names = self.labels(), set()
        for one in fleet.dataflows:
            for copy in self._copies_of(one, labels):
                names.add(copy.name)
                yield copy
        for dataflow in self.registry.live():
            name = dataflow.name or ""
            is_ours = dataflow.spec.generation or name in self.generations.status.copies
            if name not in names and is_ours:
                machine = name.rpartition("@")[2] if "@" in name else None
                yield Copy(name, machine, None)

    def _copies_of(
        self, one: fleets.DesiredDataflow, labels: Mapping[str, Mapping[str, str]]
    ) -> Iterator[Copy]:
        if not one.is_copied:
            yield Copy(one.name, None, one.spec)
            return
        machines = set(one.machines_of(labels))
        if one.labels is not None:  # machines that were off for long are forgotten
            prefix = f"{one.name}@"
            names = [dataflow.name or "" for dataflow in self.registry.live()]
            running = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
            machines |= {machine for machine in running if machine not in labels}
        for machine in sorted(machines):
            key = (id(one), machine)
            cached = self._specs.get(key)
            if cached is None or cached[0] is not one:
                cached = self._specs[key] = (one, one.copy_for(machine))
            yield Copy(f"{one.name}@{machine}", machine, cached[1])

    def forget(self) -> None:
        """Remove cached comparisons with former generations."""
        live = {id(one) for one in self.generations.fleet.dataflows}
        self._specs = {key: one for key, one in self._specs.items() if key[0] in live}
        names = {dataflow.name for dataflow in self.registry.live()}
        self._by_hand = {name: one for name, one in self._by_hand.items() if name in names}

    # ---------------------------------------------------------------- one dataflow

    def difference(self, copy: Copy) -> fleets.CopyDifference:
        dataflow = self.registry.latest_named(copy.name)
        base = fleets.CopyDifference(name=copy.name, machine=copy.machine, action="equal")
        if copy.spec is None:
            lives = dataflow is not None and not dataflow.has_ended
            where = "" if copy.machine is None else f' for machine "{copy.machine}"'
            why = f"it is not in the file{where}"
            return base.model_copy(update={"action": "stop", "why": why} if lives else {})
        if dataflow is None:
            ended = {"action": "ended", "why": "it was removed from the list of dataflows"}
            return base.model_copy(update=ended if self.has_run(copy) else {"action": "start"})
        if dataflow.has_ended:
            if dataflow.waits_to_restart:
                return base
            if self.has_run(copy):
                why = self.end(dataflow, copy)
                return base.model_copy(update={"action": "ended", "why": why})
            why = f"it has ended: {self.end(dataflow, copy)}"
            return base.model_copy(update={"action": "start", "why": why})
        if dataflow.phase in (Phase.STOPPING, Phase.ROLLING_BACK):
            return base.model_copy(update={"action": "restart", "why": "it is being stopped"})
        if self.has_run(copy):  # differences are changes by hand, which stay until an apply
            return base
        if (reason := restart_reason(dataflow.spec, copy.spec)) is not None:
            return base.model_copy(update={"action": "restart", "why": reason})
        nodes = self._node_differences(dataflow, copy.spec)
        return base.model_copy(update={"action": "change", "nodes": nodes}) if nodes else base

    def _node_differences(
        self, dataflow: Dataflow, wanted: DataflowSpec
    ) -> tuple[fleets.NodeDifference, ...]:
        nodes = differences(dataflow.spec, wanted)
        changed = {one.node for one in nodes if one.action in ("replaced", "removed")}
        ended = {one.node: "it was stopped" for one in self._nodes_with("Stopped", dataflow)}
        ended |= {
            node: f"it has failed: {why}" for node, why in self.failed_nodes(dataflow).items()
        }
        started = (
            fleets.NodeDifference(node=node, action="started", detail=why)
            for node, why in ended.items()
            if node not in changed
        )
        return (*nodes, *started)

    def has_run(self, copy: Copy) -> bool:
        """Return whether the desired generation has run, and so is not started again."""
        return self.generations.record(copy.name).reached >= (copy.generation or 0)

    def _must_change(self, copy: Copy) -> bool:
        """Return whether the next apply changes a dataflow although its description is the same."""
        dataflow = self.registry.latest_named(copy.name)
        if dataflow is None:
            return self.has_run(copy)
        if not dataflow.has_ended:
            return bool(self.failed_nodes(dataflow) or self.changes_by_hand(copy, dataflow))
        by_itself = dataflow.phase is Phase.FINISHED and not dataflow.stop_requested
        return self.has_run(copy) and not by_itself

    def changes_by_hand(self, copy: Copy, dataflow: Dataflow) -> tuple[fleets.NodeDifference, ...]:
        """Return the changes of a running dataflow since it reached its generation."""
        running, wanted = dataflow.spec, copy.spec
        if wanted is None or dataflow.phase is not Phase.RUNNING or not self.has_run(copy):
            return ()
        known = self._by_hand.get(copy.name)
        if known is None or known[0] is not running or known[1] is not wanted:
            known = self._by_hand[copy.name] = (running, wanted, changes_by_hand(wanted, running))
        stopped = [
            fleets.NodeDifference(node=one.node, action="stopped")
            for one in self._nodes_with("Stopped", dataflow)
        ]
        return (*known[2], *stopped)

    def end(self, dataflow: Dataflow, copy: Copy) -> str:
        """Return the end of a dataflow as text."""
        status, reason = dataflow.status()
        record = self.generations.record(copy.name)
        if dataflow.stop_requested and reason is None:
            if record.reached < dataflow.spec.generation or record.by_hand_at is None:
                return "it was stopped"  # by a roll-out
            return f"it was stopped by hand{clock(record.by_hand_at)}"
        if reason is not None and dataflow.phase is Phase.FAILED:
            return reason
        return status.lower() if reason is None else f"{status.lower()}: {reason}"

    # ----------------------------------------------------------------------- nodes

    def statuses(self, dataflow: Dataflow) -> Iterator[protocol.NodeStatus]:
        """Yield the nodes of a dataflow as their machines reported them last."""
        for part in dataflow.parts.left():
            member = self.membership.get(part.daemon)
            metrics = None if member is None else member.metrics.get(dataflow.id)
            yield from () if metrics is None else metrics.nodes

    def has_reported(self, dataflow: Dataflow, *, since: float) -> bool:
        """Return whether all machines of a dataflow have reported its nodes after that time."""
        members = [self.membership.get(part.daemon) for part in dataflow.parts.left()]
        return all(
            one is not None and dataflow.id in one.metrics and one.metrics_at > since
            for one in members
        )

    def failed_nodes(self, dataflow: Dataflow) -> dict[str, str]:
        """Return why nodes failed, without dynamic ones."""
        running = {
            node.node: node.error or "see its log" for node in self._nodes_with("Failed", dataflow)
        }
        return running | failed_parts(dataflow)

    def _nodes_with(
        self, status: protocol.ShownState, dataflow: Dataflow
    ) -> list[protocol.NodeStatus]:
        """Return the nodes with a status, without dynamic ones, which users start and end."""
        found = self.statuses(dataflow)
        return [one for one in found if one.status == status and not one.dynamic]

    def held(self, dataflow: Dataflow | None, name: str | None = None) -> str | None:
        """Return which node of a dataflow holds updates, and why; ``name``: only this one."""
        for node in () if dataflow is None else self.statuses(dataflow):
            if node.held is not None and name in (None, node.node):
                return f'node "{node.node}" holds updates: {node.held}'
        return None


def failed_parts(dataflow: Dataflow) -> dict[str, str]:
    """Return why nodes failed whose part has ended."""
    return {
        node.node: node.message
        for part in dataflow.parts.values()
        if part.result is not None
        for node in part.result.nodes
        if node.outcome == "failed" and node.node in part.nodes
    }


def clock(at: float | None) -> str:
    return "" if at is None else f" at {datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
