"""Spans of starts, builds and recoveries in a simulated fleet."""

from __future__ import annotations

from collections.abc import Sequence

from support.simulation.fleets import SimulatedFleet, dataflow, fleet_of

from dora_config.protocol.builds import BuildDataflow, BuildEnded, FailedNode
from dora_config.protocol.control import PlanDataflow
from dora_config.protocol.daemon import PartLost
from dora_coordinator.state.commands import Command
from dora_coordinator.state.events import DaemonMessageReceived, Event
from dora_coordinator.telemetry.spans import SpanBegun, SpanEnded, SpanEvent, SpanKey, SpanTracker


class Traced:
    """A fleet whose coordinator is traced."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.fleet = fleet
        self.tracker = SpanTracker()
        self.begun: list[SpanBegun] = []
        self.ended: list[SpanEnded] = []
        assert fleet.coordinator is not None
        self._coordinator = fleet.coordinator
        self._handle = self._coordinator.handle
        self._coordinator.handle = self._traced  # type: ignore[method-assign]
        fleet.spans = self._note

    def _traced(self, event: Event, now: float) -> list[Command]:
        daemon = None
        if isinstance(event, DaemonMessageReceived):
            member = self._coordinator.membership.on_connection(event.connection)
            daemon = None if member is None else member.key
        commands = self._handle(event, now)
        self._observe(event, commands, daemon, now)
        return commands

    def _observe(
        self, event: Event, commands: Sequence[Command], daemon: str | None, now: float
    ) -> None:
        self._note(self.tracker.observe(event, commands, daemon=daemon, began=now, ended=now))

    def _note(self, spans: Sequence[SpanEvent]) -> None:
        for span in spans:
            if isinstance(span, SpanBegun):
                assert span.parent is None or span.parent in self.open
                self.begun.append(span)
            else:
                assert span.key in self.open
                self.ended.append(span)

    @property
    def open(self) -> set[SpanKey]:
        ended = [span.key for span in self.ended]
        return {
            span.key
            for span in self.begun
            if ended.count(span.key) < [one.key for one in self.begun].count(span.key)
        }

    def tree(self) -> list[str]:
        """Return names, machines and parents of the spans that have begun."""
        return [
            f"{span.name} {span.attributes.get('dora.machine', '')}"
            + (f" in {span.parent[0]}" if span.parent else "")
            for span in self.begun
        ]


def traced(*machines: str) -> Traced:
    return Traced(fleet_of(*machines))


def test_a_start_contains_placement_and_a_spawn_per_machine() -> None:
    found = traced("robot", "station")
    found.fleet.start(dataflow(camera="robot", detector="station"))
    assert found.tree() == [
        "start ",
        "placement  in start",
        "spawn robot in start",
        "spawn station in start",
    ]
    assert found.begun[1].attributes == {"dora.machines": "robot, station"}
    assert found.begun[2].attributes["dora.nodes"] == "camera"
    assert {key[0] for key in found.open} == {"start", "spawn"}
    found.fleet.settle()
    assert not found.open
    assert [span.error for span in found.ended] == [None] * 4


def test_a_start_that_fails_names_the_reason() -> None:
    found = traced("robot", "station")
    found.fleet.daemons["robot"].broken_nodes.add("camera")
    found.fleet.start(dataflow(camera="robot", detector="station"))
    found.fleet.settle()
    errors = {span.key[0]: span.error for span in found.ended if span.error is not None}
    assert "camera" in (errors["start"] or "")
    assert not found.open


def test_a_start_that_is_refused_has_no_spawn() -> None:
    found = traced("robot")
    found.fleet.start(dataflow(camera="nosuch"))
    assert found.tree() == ["start "]
    (ended,) = found.ended
    assert "nosuch" in (ended.error or "")


def test_a_plan_is_not_traced() -> None:
    found = traced("robot")
    found.fleet.request(PlanDataflow(spec=dataflow(camera="robot")))
    assert not found.begun


def test_a_recovery_is_a_trace_of_its_own() -> None:
    found = traced("robot")
    found.fleet.start(dataflow(camera="robot"))
    found.fleet.settle()
    before = len(found.begun)
    robot = found.fleet.daemons["robot"]
    found.fleet.kill_runner(robot.runners[0], robot)
    found.fleet.settle()
    found.fleet.pass_time(60.0)
    assert found.tree()[before:] == ["recovery robot", "spawn robot in recovery"]
    recovery = found.begun[before]
    assert recovery.attributes["dora.attempt"] == 2
    assert "runner" in str(recovery.attributes["dora.reason"])
    assert not found.open


def build(found: Traced) -> str:
    """Build a node on each machine; return the id of the build."""
    spec = dataflow(camera="robot", detector="station")
    nodes = tuple(node.model_copy(update={"build": ("make",)}) for node in spec.resolved.nodes)
    resolved = spec.resolved.model_copy(update={"nodes": nodes})
    found.fleet.request(BuildDataflow(spec=spec.model_copy(update={"resolved": resolved})))
    return found.begun[0].key[1]


def test_a_build_contains_a_span_per_machine() -> None:
    found = traced("robot", "station")
    build_id = build(found)
    assert found.tree() == [
        "build ",
        "build machine robot in build",
        "build machine station in build",
    ]
    failure = FailedNode(node="camera", message="pip failed")
    for name, failures in (("robot", (failure,)), ("station", ())):
        daemon = found.fleet.daemons[name]
        assert daemon.connection is not None
        ended = BuildEnded(build_id=build_id, failures=failures)
        found.fleet.handle(DaemonMessageReceived(daemon.connection, ended))
    errors = {span.key[0]: span.error for span in found.ended if span.error is not None}
    assert errors["build machine"] == 'daemon "robot", node "camera": pip failed'
    assert "pip failed" in (errors["build"] or "")
    assert not found.open


def test_a_cancelled_build_ends_its_spans() -> None:
    found = traced("robot", "station")
    build(found)
    found.fleet.leave()
    assert {span.error for span in found.ended} == {"cancelled"}
    assert not found.open


def test_a_part_that_is_lost_ends_its_spawn() -> None:
    found = traced("robot", "station")
    found.fleet.start(dataflow(camera="robot", detector="station"))
    robot = found.fleet.daemons["robot"]
    assert robot.connection is not None
    dataflow_id = found.begun[0].key[1]
    lost = PartLost(dataflow_id=dataflow_id, attempt=1, reason="no such file")
    found.fleet.handle(DaemonMessageReceived(robot.connection, lost))
    assert [(s.key[0], s.error) for s in found.ended][1] == ("spawn", "no such file")


def test_the_tracker_forgets_finished_spans() -> None:
    found = traced("robot")
    for _ in range(3):
        found.fleet.start(dataflow(camera="robot"))
        found.fleet.settle()
    assert vars(found.tracker) == vars(SpanTracker())
