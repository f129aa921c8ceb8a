"""Observation of each dataflow of the fleet, once a tick, for a roll-out; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dora_config.cluster.rollout import Decision, RollOut, Seen, Track
from dora_config.protocol import fleet as fleets
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.fleet.comparison import Comparison, Copy, failed_parts
from dora_coordinator.state.records import Phase

AT_REST: Final = ("Running", "Finished", "Stopped")
"""States of nodes that are not starting, stopping or failing."""


@dataclass(slots=True)
class View:
    """Observations of one tick."""

    copies: dict[str, Copy] = field(default_factory=dict)
    differences: dict[str, fleets.CopyDifference] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    decision: Decision = field(default_factory=Decision)


class FleetObserver:
    """Compares what is desired with what runs, for the decision of a roll-out."""

    def __init__(self, comparison: Comparison, roll_out: RollOut) -> None:
        self._comparison = comparison
        self._generations = comparison.generations
        self._registry = comparison.registry
        self._membership = comparison.membership
        self._roll_out = roll_out

    def observe(self, now: float) -> View:
        """Compare everything, and decide what may change."""
        view = View()
        for copy in self._comparison.copies(self._generations.fleet):
            difference = self._comparison.difference(copy)
            view.copies[copy.name] = copy
            view.differences[copy.name] = difference
            view.seen.append(self._seen(copy, difference))
        view.decision = self._roll_out.decide(
            self._generations.fleet.rollout,
            view.seen,
            now,
            finished=self._generations.status.finished,
            paused=self._generations.status.paused is not None,
        )
        return view

    def _seen(self, copy: Copy, difference: fleets.CopyDifference) -> Seen:
        comparison, track = self._comparison, self._roll_out.track(copy.name)
        dataflow = self._registry.latest_named(copy.name)
        processes = trouble = None
        if dataflow is not None and difference.action in ("equal", "ended"):
            if dataflow.has_ended and (dataflow.phase is Phase.FAILED or dataflow.stop_requested):
                trouble = comparison.end(dataflow, copy)
            elif not dataflow.has_ended:
                processes, trouble = self._health(dataflow, track)
        record, desired = self._generations.record(copy.name), copy.generation
        return Seen(
            name=copy.name,
            machine=copy.machine,
            affected=desired in (None, self._generations.number),
            removed=desired is None,
            differs=difference.action in ("start", "stop", "change", "restart"),
            connected=self.is_connected(copy, dataflow),
            ended=difference.action == "ended" and trouble is None,
            processes=processes,
            trouble=trouble,
            held=comparison.held(dataflow) if track.busy else None,
            healthy=desired is not None and record.healthy >= desired,
            failed=record.failed,
        )

    def is_connected(self, copy: Copy, dataflow: Dataflow | None) -> bool:
        """Return whether the machines of a dataflow are connected."""
        if copy.machine is not None:
            return self._membership.is_connected(copy.machine)
        if dataflow is None or dataflow.has_ended:
            return not self._roll_out.track(copy.name).refusal
        return all(self._membership.is_connected(part.daemon) for part in dataflow.parts.left())

    def _health(self, dataflow: Dataflow, track: Track) -> tuple[object, str | None]:
        """Return the processes of a dataflow, if all are ready, and what failed in it."""
        if dataflow.status()[0] != "Running":
            return None, None
        if self._generations.fleet.rollout.healthy == 0:
            return dataflow.id, None
        reported = self._comparison.has_reported(dataflow, since=track.stepped_at)
        failed = self._comparison.failed_nodes(dataflow) if reported else failed_parts(dataflow)
        if failed:
            return None, "; ".join(f'node "{node}" failed: {why}' for node, why in failed.items())
        nodes = list(self._comparison.statuses(dataflow))
        if not reported or any(one.status not in AT_REST for one in nodes):
            return None, None
        return (dataflow.id, [(one.node, one.pid, one.restarts) for one in nodes]), None
