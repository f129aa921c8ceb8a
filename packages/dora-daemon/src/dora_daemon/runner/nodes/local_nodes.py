"""Nodes of this runner: processes, connections and settings; their states are in `machine`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dora_config.dataflow.resolved import CurrentNode, NodeLocation, ResolvedInput, ResolvedNode
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.logs.logs import NodeLog
from dora_daemon.runner.machine.health import HealthWatch, InputWatch
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_daemon.runner.process.prepare import PreparedNode
from dora_daemon.runner.process.spawn import NodeProcess
from dora_node_api.protocol.messages import Message, RestoreState, SaveState


class QueueUser:
    """Reader and writer of queues, with one process after another: a node or the link."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.applicant: NodeConnection | None = None
        """The process that has sent Hello and is not admitted yet."""
        self.connection: NodeConnection | None = None
        """The admitted process."""
        self.connected_at = 0.0
        """Monotonic time of admission, or of the release from the start barrier."""

    def admit(self, incarnation: int) -> NodeConnection:
        """Make the applicant the admitted process."""
        connection, self.applicant = self.applicant, None
        assert connection is not None
        connection.incarnation = incarnation
        self.connection = connection
        self.connected_at = time.monotonic()
        return connection

    @property
    def connected(self) -> NodeConnection | None:
        """The admitted process, if it is connected."""
        connection = self.connection
        return None if connection is None or connection.closed else connection

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send to the admitted process; return whether it is connected."""
        if (connection := self.connected) is None:
            return False
        connection.send(message, descriptors)
        return True


@dataclass(frozen=True, slots=True)
class SavedState:
    """A saved state, in a memory file whose descriptor this process holds."""

    incarnation: int
    descriptor: int
    message: SaveState


@dataclass(slots=True, eq=False)
class Replacement:
    """A program that will take a node's place, and its process once that has been staged."""

    program: PreparedNode
    log: NodeLog
    incarnation: int = 0
    process: NodeProcess | None = None
    connection: NodeConnection | None = None
    """Set when the process has sent Hello."""
    error: OSError | None = None
    """Why the process could not be spawned."""

    def kill(self) -> None:
        if self.process is not None:
            self.process.signal_group("SIGKILL")


class LocalNode(QueueUser):
    """State of one node in the runner; it is dropped with the node."""

    def __init__(
        self,
        program: PreparedNode,
        log: NodeLog,
        place: NodeLocation | None = None,
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(program.spec.id)
        self.program = program
        self.spec = program.spec
        """Specification with the inputs that it has now."""
        self.log = log
        self.place = place or NodeLocation()
        self.code = ""
        """Digest of its code, if it was added or replaced while the dataflow ran."""
        self.params = dict(params)
        self.stopped = False
        """Whether an operator has stopped the node and not started it again."""
        self.process: NodeProcess | None = None
        self.replacement: Replacement | None = None
        self.inputs = InputWatch()
        self.health = HealthWatch()
        self._saved: SavedState | None = None
        self.operator_hold = ""

    @property
    def held(self) -> str | None:
        """Why the node must not be changed now."""
        process = self.connected
        return (process is not None and process.holds) or self.operator_hold or None

    def change_program(self, program: PreparedNode, log: NodeLog) -> None:
        """Replace the program and the log."""
        self.log.close()
        self.program, self.spec, self.log = program, program.spec, log

    def save(self, incarnation: int, message: SaveState, descriptor: int) -> None:
        """Keep a state and its descriptor; drop an earlier one."""
        self._drop_saved()
        self._saved = SavedState(incarnation, descriptor, message)

    def restore(self) -> None:
        """Send the state of a former process to the admitted one, and forget it."""
        saved, connection = self._saved, self.connection
        if saved is None or connection is None or saved.incarnation == connection.incarnation:
            return
        message = RestoreState(saved.message.format, saved.message.size)
        connection.send(message, (saved.descriptor,))
        self._drop_saved()

    def _drop_saved(self) -> None:
        if self._saved is not None:
            os.close(self._saved.descriptor)
            self._saved = None

    def current(self) -> CurrentNode:
        """Return the node as it runs now."""
        return CurrentNode(node=self.spec, place=self.place, code=self.code)

    def close(self) -> None:
        self._drop_saved()
        self.log.close()
        if self.replacement is not None:
            self.replacement.kill()
            self.replacement.log.close()


class LocalNodes(dict[str, LocalNode]):
    """The nodes by id, and the link."""

    def __init__(self, revision: int = 0) -> None:
        super().__init__()
        self.revision = revision
        """Number of changes of the nodes and their parameters."""
        self.link = QueueUser(LINK_NODE)

    def add(self, node: LocalNode) -> None:
        self[node.id] = node

    def specs(self) -> list[ResolvedNode]:
        """Return the definition of each node."""
        return [node.spec for node in self.values()]

    def locate(self, node: LocalNode, place: NodeLocation, code: str) -> None:
        """Note where the program of a changed node is, and the digest of its code."""
        self.revision += 1
        node.place, node.code = place, code
        node.stopped = False

    def set_inputs(self, node: str, inputs: dict[str, ResolvedInput]) -> None:
        """Change the inputs of a node; they are part of the next configuration that is sent."""
        self.revision += 1
        self[node].spec = self[node].spec.model_copy(update={"inputs": inputs})

    def set_stopped(self, node: str, *, stopped: bool) -> None:
        """Note whether an operator has stopped a node; a dynamic node is started elsewhere."""
        local = self[node]
        if local.stopped != stopped and not local.spec.is_dynamic:
            self.revision += 1
            local.stopped = stopped

    def set_param(self, node: str, key: str, value: Any) -> None:
        self.revision += 1
        self[node].params[key] = value

    def delete_param(self, node: str, key: str) -> None:
        self.revision += 1
        del self[node].params[key]

    def remove(self, node: str) -> None:
        """Remove a node and close what belongs to it."""
        self.revision += 1
        self.pop(node).close()

    def participant(self, name: str) -> QueueUser | None:
        """Return a node or the link; None if it does not exist."""
        return self.link if name == LINK_NODE else self.get(name)

    def send(self, name: str, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send to a node or the link; return whether it is connected."""
        participant = self.participant(name)
        return participant is not None and participant.send(message, descriptors)

    def read_waiting(self, incarnation: int, *, except_for: NodeConnection | None) -> None:
        """Process everything that a process has sent so far."""
        for participant in [*self.values(), self.link]:
            connection = participant.connection
            if connection is None or connection is except_for:
                continue
            if connection.incarnation == incarnation:
                connection.read_waiting()

    def close(self) -> None:
        for node in self.values():
            node.close()
