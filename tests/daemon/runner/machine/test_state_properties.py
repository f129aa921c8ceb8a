"""Random histories of a dataflow: the invariants of the simulation hold after every event."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from support.runner.nodes import node
from support.runner.simulation import Simulation

from dora_config.dataflow.resolved import RestartSettings
from dora_daemon.runner.machine import events as e

POLICIES = st.sampled_from(["never", "on-failure", "always"])
NAMES = ["a", "b", "c", "d", "s"]


class Dataflow(RuleBasedStateMachine):
    """Source a, consumers b and c, dynamic d, shell s."""

    @initialize(
        policies=st.tuples(POLICIES, POLICIES, POLICIES),
        most=st.integers(0, 3),
        delay=st.sampled_from([None, 0.5]),
        finish=st.booleans(),
        hold=st.booleans(),
    )
    def begin(
        self,
        policies: tuple[str, str, str],
        most: int,
        delay: float | None,
        finish: bool,
        hold: bool,
    ) -> None:
        def settings(policy: str) -> RestartSettings:
            return RestartSettings.model_validate(
                {"policy": policy, "max_restarts": most, "delay": delay}
            )

        self.stopped = False
        self.sim = Simulation(
            [
                node("a", outputs="x", restart=settings(policies[0]), startup_timeout=30.0),
                node("b", reads="a/x", outputs="y", restart=settings(policies[1])),
                node("c", reads="b/y d/z", timer=finish, restart=settings(policies[2])),
                node("d", path="dynamic", kind="dynamic", outputs="z", reads="a/x"),
                node("s", kind="shell"),
            ],
            exit_when_nodes_finish=finish,
            hold_at_barrier=hold,
        )
        self.sim.start()

    def running(self, name: str) -> bool:
        return name in self.sim.processes and name != "d"

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        if self.running(name) and not self.sim.processes[name].connected:
            self.sim.connect(name)

    @rule(name=st.sampled_from(NAMES), back=st.integers(-1, 3) | st.none())
    def send_stale_events(self, name: str, back: int | None) -> None:
        """Send events of any incarnation at any time."""
        life = self.sim.node(name)
        if back is None and life.dynamic:
            return
        if back == 0 and not (name in self.sim.processes and life.connected):
            return
        number = None if back is None else life.incarnation - back
        if number is not None:
            self.sim.handle(e.NodeConnected(name, number, 1))
        if back != 0:
            stale = -7 if number is None else number
            self.sim.handle(e.NodeStalled(name, stale, 9.0))
            self.sim.handle(e.NodeDetached(name, stale))
            self.sim.handle(e.NodeSpawned(name, stale, 3))
            self.sim.handle(e.NodeExited(name, stale, e.Exit(code=0)))

    @rule(name=st.sampled_from(NAMES), code=st.integers(0, 2), drained=st.booleans())
    def exit(self, name: str, code: int, drained: bool) -> None:
        if self.running(name):
            self.sim.exit(name, code, drained=drained)

    @rule(name=st.sampled_from(NAMES))
    def die_of_signals(self, name: str) -> None:
        if self.running(name) and self.sim.processes[name].signals:
            self.sim.die(name, self.sim.processes[name].signals[-1])

    @rule()
    def attach(self) -> None:
        if "d" not in self.sim.processes and self.sim.result is None:
            self.sim.attach("d")
            if not self.sim.processes["d"].connected:
                del self.sim.processes["d"]

    @rule()
    def detach(self) -> None:
        if "d" in self.sim.processes:
            self.sim.detach("d")

    @rule(seconds=st.floats(0.01, 200.0), busy=st.booleans())
    def pass_time(self, seconds: float, busy: bool) -> None:
        self.sim.pass_time(seconds, busy=busy)

    @rule(name=st.sampled_from(NAMES))
    def stall(self, name: str) -> None:
        if self.running(name):
            number = self.sim.processes[name].incarnation
            self.sim.handle(e.NodeStalled(name, number, 99.0))

    @rule(name=st.sampled_from(NAMES), grace=st.floats(0.0, 5.0))
    def stop_node(self, name: str, grace: float) -> None:
        self.sim.handle(e.NodeStopRequested(name, grace))

    @rule(name=st.sampled_from(NAMES[:3]), grace=st.floats(0.0, 5.0))
    def restart_node(self, name: str, grace: float) -> None:
        self.sim.handle(e.NodeRestartRequested(name, grace))

    @rule(name=st.sampled_from(NAMES), outputs=st.none() | st.just(("x",)))
    def close_outputs(self, name: str, outputs: tuple[str, ...] | None) -> None:
        self.sim.handle(e.OutputsClosed(name, outputs))

    @rule()
    def release(self) -> None:
        self.sim.handle(e.BarrierReleased())

    @precondition(lambda self: not self.stopped)
    @rule(force=st.booleans())
    def stop(self, force: bool) -> None:
        self.stopped = True
        spawned = len(self.sim.spawns)
        self.sim.stop(force=force)
        assert len(self.sim.spawns) == spawned

    def teardown(self) -> None:
        """A stopped dataflow whose processes die of SIGKILL at the latest ends."""
        if not hasattr(self, "sim"):
            return
        sim = self.sim
        sim.stop()
        spawned = len(sim.spawns)
        for _ in range(20):
            sim.pass_time(16.0)
            for name in list(sim.processes):
                if name != "d" and "SIGKILL" in sim.processes[name].signals:
                    sim.die(name, "SIGKILL")
        assert sim.result is not None
        assert len(sim.spawns) == spawned


TestDataflow = Dataflow.TestCase
