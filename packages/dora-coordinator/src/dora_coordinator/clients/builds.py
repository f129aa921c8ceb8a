"""Builds on daemons for a client: shares, progress, result; pure.

A build ends with the connection of the client that requested it, is not stored, and its results
stay on the daemons. A daemon that is lost fails its share; the others continue, so that the answer
contains all problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import PlacementError
from dora_config.protocol import builds
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import clean_lines
from dora_coordinator.dataflow.history import ClusterHistory
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.events import ClientRequested, TimerKey


@dataclass(slots=True)
class _Build:
    requested: ClientRequested
    name: str | None
    waiting: set[str]
    """Daemons that have not finished their share."""
    nodes: list[builds.BuiltNode] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def build_id(self) -> str:
        return self.requested.fresh_id


class Builds:
    def __init__(self, settings: Settings, history: ClusterHistory) -> None:
        """``history`` keeps why builds failed."""
        self._settings = settings
        self._history = history
        self._builds: dict[str, _Build] = {}

    def start(
        self,
        requested: ClientRequested,
        request: builds.BuildDataflow,
        placement: Mapping[str, tuple[str, ...]],
        now: float,
    ) -> list[do.Command]:
        """``placement`` maps daemons to node ids, as a start would place them now."""
        build = _Build(requested, request.spec.name, set())
        commands: list[do.Command] = [
            do.SendProgress(
                requested.client, requested.number, builds.BuildTriggered(build_id=build.build_id)
            )
        ]
        spec = request.spec
        nodes = {
            node.id: node
            for node in spec.resolved.nodes
            if node.needs_build or node.id in spec.code
        }
        for daemon, here in placement.items():
            chosen = tuple(nodes[node] for node in here if node in nodes)
            if chosen:
                build.waiting.add(daemon)
                commands.append(_share(build, daemon, request, chosen))
        self._builds[build.build_id] = build
        at = now + self._settings.build_timeout
        return [
            *commands,
            do.ArmTimer(TimerKey("build", build.build_id), at),
            *self._finish(build, now),
        ]

    # ---------------------------------------------------------------- from daemons

    def progress(self, daemon: str, message: builds.BuildEvents) -> list[do.Command]:
        build = self._builds.get(message.build_id)
        if build is None or daemon not in build.waiting:
            return [do.SendToDaemon(daemon, builds.CancelBuild(build_id=message.build_id))]
        progress = builds.BuildProgress(
            build_id=message.build_id, daemon=daemon, events=message.events, dropped=message.dropped
        )
        return [do.SendProgress(build.requested.client, build.requested.number, progress)]

    def sent(self, build_id: str, daemon: str) -> list[do.Command]:
        """The client was sent the daemon's last progress: the daemon may send more."""
        build = self._builds.get(build_id)
        if build is None or daemon not in build.waiting:
            return []
        return [do.SendToDaemon(daemon, builds.BuildEventsAck(build_id=build_id))]

    def ended(self, daemon: str, message: builds.BuildEnded, now: float) -> list[do.Command]:
        build = self._builds.get(message.build_id)
        if build is None or daemon not in build.waiting:
            return []
        build.waiting.discard(daemon)
        build.nodes += [node.model_copy(update={"daemon": daemon}) for node in message.nodes]
        build.problems += [_failure(daemon, failure) for failure in message.failures]
        if message.problem is not None:
            build.problems.append(f'daemon "{daemon}": {clean_lines(message.problem)}')
        return self._finish(build, now)

    def daemon_lost(self, daemon: str, now: float) -> list[do.Command]:
        commands: list[do.Command] = []
        for build in list(self._builds.values()):
            if daemon in build.waiting:
                build.waiting.discard(daemon)
                build.problems.append(
                    f'daemon "{daemon}": the connection was lost during the build; build again'
                )
                commands += self._finish(build, now)
        return commands

    # ------------------------------------------------------------- clients and time

    def drop(self, client: int, number: int | None) -> list[do.Command]:
        """Cancel one build of a client (None: all of them)."""
        return [
            command
            for build in list(self._builds.values())
            if build.requested.is_of(client, number)
            for command in self._drop(build)
        ]

    def timed_out(self, build_id: str, now: float) -> list[do.Command]:
        build = self._builds.get(build_id)
        if build is None:
            return []
        limit = self._settings.build_timeout
        build.problems += [
            f'daemon "{daemon}": not finished within {limit:g} s (the coordinator\'s setting '
            "build_timeout); its build was cancelled"
            for daemon in sorted(build.waiting)
        ]
        cancelled = self._cancel_shares(build)
        build.waiting.clear()
        return [*cancelled, *self._finish(build, now)]

    def _finish(self, build: _Build, now: float) -> list[do.Command]:
        if build.waiting:
            return []
        del self._builds[build.build_id]
        client, number = build.requested.client, build.requested.number
        noted: list[do.Command] = []
        done: do.Command
        if build.problems:
            problems = "\n".join(build.problems)
            noted = self._history.start_refused(build.name, "build", problems, now)
            done = do.FailClient(client, number, f"the build failed\n{problems}")
        else:
            built = builds.Built(build_id=build.build_id, nodes=tuple(build.nodes))
            done = do.AnswerClient(client, number, built)
        return [do.CancelTimer(TimerKey("build", build.build_id)), *noted, done]

    def _drop(self, build: _Build) -> list[do.Command]:
        del self._builds[build.build_id]
        return [do.CancelTimer(TimerKey("build", build.build_id)), *self._cancel_shares(build)]

    def _cancel_shares(self, build: _Build) -> list[do.Command]:
        message = builds.CancelBuild(build_id=build.build_id)
        return [do.SendToDaemon(daemon, message) for daemon in sorted(build.waiting)]


def _share(
    build: _Build, daemon: str, request: builds.BuildDataflow, nodes: tuple[ResolvedNode, ...]
) -> do.Command:
    message = builds.BuildPart(
        build_id=build.build_id,
        spec=request.spec.with_nodes(nodes),
        settings=request.settings,
        replaces=request.replaces,
    )
    return do.SendToDaemon(daemon, message)


def _failure(daemon: str, failure: builds.FailedNode) -> str:
    return f'daemon "{daemon}", node "{failure.node}": {clean_lines(failure.message)}'


def require_built(spec: DataflowSpec, placement: Mapping[str, tuple[str, ...]]) -> None:
    """Raise :class:`PlacementError` if a node would run on another daemon than built it."""
    for daemon, nodes in placement.items():
        for node in nodes:
            built_on = spec.built_on.get(node)
            if built_on is not None and built_on != daemon:
                raise PlacementError(
                    node,
                    f'it was built on daemon "{built_on}" and would now run on "{daemon}"; run '
                    "`dora build` again",
                )
