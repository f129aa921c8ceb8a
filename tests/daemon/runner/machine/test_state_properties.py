"""Random histories of a dataflow: whatever happens, the invariants of the world hold."""

from __future__ import annotations

from daemon.runner.dataflows import node
from daemon.runner.world import World
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

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
        self.world = World(
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
        self.world.start()

    def running(self, name: str) -> bool:
        return name in self.world.processes and name != "d"

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        if self.running(name) and not self.world.processes[name].connected:
            self.world.connect(name)

    @rule(name=st.sampled_from(NAMES), back=st.integers(-1, 3) | st.none())
    def say_anything(self, name: str, back: int | None) -> None:
        """Hello of any process, at any time; news of any incarnation."""
        life = self.world.state.nodes[name]
        if back is None and life.dynamic:
            return
        if back == 0 and not (name in self.world.processes and life.connected):
            return
        number = None if back is None else life.incarnation - back
        if number is not None:
            self.world.handle(e.NodeConnected(name, number, 1))
        if back != 0:
            stale = -7 if number is None else number
            self.world.handle(e.NodeSilent(name, stale, 9.0))
            self.world.handle(e.NodeDetached(name, stale))
            self.world.handle(e.NodeSpawned(name, stale, 3))
            self.world.handle(e.NodeExited(name, stale, e.Exit(code=0)))

    @rule(name=st.sampled_from(NAMES), code=st.integers(0, 2), drained=st.booleans())
    def exit(self, name: str, code: int, drained: bool) -> None:
        if self.running(name):
            self.world.exit(name, code, drained=drained)

    @rule(name=st.sampled_from(NAMES))
    def obey_signals(self, name: str) -> None:
        if self.running(name) and self.world.processes[name].signals:
            self.world.die(name, self.world.processes[name].signals[-1])

    @rule()
    def attach(self) -> None:
        if "d" not in self.world.processes and self.world.result is None:
            self.world.attach("d")
            if not self.world.processes["d"].connected:
                del self.world.processes["d"]

    @rule()
    def detach(self) -> None:
        if "d" in self.world.processes:
            self.world.detach("d")

    @rule(seconds=st.floats(0.01, 200.0), busy=st.booleans())
    def pass_time(self, seconds: float, busy: bool) -> None:
        self.world.pass_time(seconds, busy=busy)

    @rule(name=st.sampled_from(NAMES))
    def fall_silent(self, name: str) -> None:
        if self.running(name):
            number = self.world.processes[name].incarnation
            self.world.handle(e.NodeSilent(name, number, 99.0))

    @rule(name=st.sampled_from(NAMES), grace=st.floats(0.0, 5.0))
    def stop_node(self, name: str, grace: float) -> None:
        self.world.handle(e.NodeStopRequested(name, grace))

    @rule(name=st.sampled_from(NAMES[:3]), grace=st.floats(0.0, 5.0))
    def restart_node(self, name: str, grace: float) -> None:
        self.world.handle(e.NodeRestartRequested(name, grace))

    @rule(name=st.sampled_from(NAMES), outputs=st.none() | st.just(("x",)))
    def close_outputs(self, name: str, outputs: tuple[str, ...] | None) -> None:
        self.world.handle(e.OutputsClosed(name, outputs))

    @rule()
    def release(self) -> None:
        self.world.handle(e.Released())

    @precondition(lambda self: not self.stopped)
    @rule(force=st.booleans())
    def stop(self, force: bool) -> None:
        self.stopped = True
        spawned = len(self.world.spawns)
        self.world.stop(force=force)
        assert len(self.world.spawns) == spawned

    def teardown(self) -> None:
        """A stopped dataflow whose processes obey at the latest to SIGKILL comes to its end."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.stop()
        spawned = len(world.spawns)
        for _ in range(20):
            world.pass_time(16.0)
            for name in list(world.processes):
                if name != "d" and "SIGKILL" in world.processes[name].signals:
                    world.die(name, "SIGKILL")
        assert world.result is not None
        assert len(world.spawns) == spawned


TestDataflow = Dataflow.TestCase
