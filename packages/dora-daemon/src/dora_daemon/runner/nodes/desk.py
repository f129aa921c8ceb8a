"""Who is connected: answers Hello, hands out queues, routes and segments, passes events on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping

import dora_node_api
from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource, parse_source
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.link.streams import LOGS, Outflow
from dora_daemon.runner.logs.log_entries import as_level
from dora_daemon.runner.logs.logs import now_text
from dora_daemon.runner.logs.publishing import RunnerOutputs
from dora_daemon.runner.machine.events import (
    LinkConnected,
    NodeConnected,
    NodeDetached,
    OutputsClosed,
    RunnerStimulus,
    StopRequested,
)
from dora_daemon.runner.machine.wiring import Edge
from dora_daemon.runner.nodes.queues import (
    LARGEST_HOLD_LIMIT,
    NO_LIMIT,
    KeptQueue,
    QueueBook,
    hold_limit,
)
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_daemon.runner.process.spawn import watch_process
from dora_node_api.frozen import Frozen
from dora_node_api.protocol.frames import close_all
from dora_node_api.protocol.messages import (
    PROTOCOL_VERSION,
    AddInput,
    AddRoute,
    CloseOutputs,
    Go,
    Hello,
    InputConfig,
    Leaving,
    Log,
    NodeConfig,
    OpenSegment,
    OperatorConfig,
    ParamUpdate,
    Refused,
    RemoveInput,
    RemoveRoute,
    Segment,
    SegmentFd,
    SegmentGone,
    SegmentUnknown,
    Stop,
    StopDataflow,
    Welcome,
)
from dora_node_api.transport.shared.errors import BoardFull


class Desk:
    """The runner's side of the control sockets of all nodes."""

    def __init__(
        self,
        plan: RunPlan,
        specs: Mapping[str, ResolvedNode],
        book: QueueBook,
        outputs: RunnerOutputs,
        *,
        tell: Callable[[RunnerStimulus], None],
        log: Callable[[LogLine], None],
        tell_staged: Callable[[], None],
        cycles: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        self._plan = plan
        self._specs = specs
        self._book = book
        self._outputs = outputs
        self._tell = tell
        self._log = log
        self._tell_staged = tell_staged
        self._cycles = cycles
        self._asking: dict[str, NodeConnection] = {}
        self.connections: dict[str, NodeConnection] = {}
        """By node, once admitted."""
        self.areas: dict[str, int] = {}
        """A node's words on the status board."""
        self.restarts: dict[str, int] = {}
        self.connected_at: dict[str, float] = {}
        self.params = {node: dict(values) for node, values in plan.params.items()}
        self.log_inputs: dict[tuple[str, str], LogSource] = {}
        self.remote_nodes: frozenset[str] = frozenset()
        """Nodes of other machines: the link writes into the queues of those who read them."""
        self.on_link_queues: Callable[[], None] = lambda: None
        """Called when a queue that the link writes into has come or gone."""
        self.staged: dict[int, NodeConnection | None] = {}
        """By incarnation: processes that are to replace others, once they have said Hello."""
        self._watched: dict[NodeConnection, int] = {}
        self._left: set[NodeConnection] = set()
        self.epoch_ns: int | None = None

    # --------------------------------------------------------------------------- coming in

    def node_said(
        self, connection: NodeConnection, message: Frozen, descriptors: tuple[int, ...]
    ) -> None:
        """One message of a node."""
        node, incarnation = connection.node, connection.incarnation
        match message:
            case Hello():
                self._hello(connection, message)
            case _ if node is None or incarnation is None:
                self.complain(f"{type(message).__name__} of a process that has not said Hello")
            case Segment(number=number, size=size) if len(descriptors) == 1:
                self._book.add_segment(incarnation, number, descriptors[0], size)
                return
            case SegmentGone(number=number):
                self._book.remove_segment(incarnation, number)
            case OpenSegment():
                self._open_segment(connection, message)
            case Log():
                self._library_log(None if node == LINK_NODE else node, message)
            case CloseOutputs(outputs=outputs):
                self._tell(OutputsClosed(node, outputs))
            case StopDataflow(reason=reason):
                self._tell(StopRequested(f'node "{node}" asked for it: {reason}'))
            case Leaving():
                self._left.add(connection)
            case _:
                self.complain(f'node "{node}" sent {type(message).__name__}, not expected here')
        close_all(descriptors)

    def node_hung_up(self, connection: NodeConnection) -> None:
        """A spawned node's end is its exit. A dynamic one has left, unless it merely crashed."""
        node = connection.node
        if node is not None and self._asking.get(node) is connection:
            del self._asking[node]
        if connection in self._watched and connection not in self._left:
            return
        self._detach(connection)

    def complain(self, message: str) -> None:
        self._log(LogLine(ts=now_text(), level="warn", message=message, target="dora.runner"))

    def _hello(self, connection: NodeConnection, hello: Hello) -> None:
        problem = self._why_not(connection, hello)
        if problem is not None:
            connection.send(Refused(problem))
            connection.close_when_sent()
            return
        connection.node = hello.node_id
        if hello.incarnation is not None and hello.incarnation in self.staged:
            self.staged[hello.incarnation] = connection
            self._tell_staged()
            return
        self._asking[hello.node_id] = connection
        if hello.node_id == LINK_NODE:
            self._tell(LinkConnected(hello.incarnation or 0))
            return
        self._tell(NodeConnected(hello.node_id, hello.incarnation, connection.pid or hello.pid))

    def take_over(self, incarnation: int) -> None:
        """A staged process asks for its place as if it had just come."""
        connection = self.staged.pop(incarnation)
        if connection is not None and connection.node is not None:
            self._asking[connection.node] = connection
            self._tell(NodeConnected(connection.node, incarnation, connection.pid))

    def _why_not(self, connection: NodeConnection, hello: Hello) -> str | None:
        """Reasons to refuse that need no state."""
        if connection.node is not None:
            return "this connection has said Hello before"
        if hello.protocol != PROTOCOL_VERSION:
            return (
                f"this runner speaks protocol {PROTOCOL_VERSION} with nodes, the package at"
                f" {hello.package or 'an unknown place'} speaks {hello.protocol} (version"
                f" {hello.version or 'unknown'}); install the same version of dora-node-api and"
                " dora-daemon"
            )
        spec = self._specs.get(hello.node_id)
        if spec is None:
            return None
        self._note_foreign_package(hello)
        if hello.incarnation is None and not spec.is_dynamic:
            return (
                f'node "{spec.id}" is not dynamic: the dataflow starts it by itself. To attach by'
                " hand, give it `path: dynamic`"
            )
        if hello.incarnation is not None and spec.is_dynamic:
            return f'node "{spec.id}" is dynamic: create it with Node("{spec.id}")'
        if spec.is_dynamic and self._asking.get(spec.id, connection) is not connection:
            return f'node "{spec.id}" is being attached by another process'
        return None

    def _note_foreign_package(self, hello: Hello) -> None:
        """Ours is put in front of every node's path; say so when another version came first."""
        if hello.version and hello.version != dora_node_api.__version__:
            self.complain(
                f'node "{hello.node_id}" runs dora_node_api {hello.version} from {hello.package},'
                f" not the {dora_node_api.__version__} that this runner brings"
            )

    def _library_log(self, node: str | None, message: Log) -> None:
        self._log(
            LogLine(
                ts=now_text(),
                level=as_level(message.level),
                node=node,
                message=message.message,
                target=message.target or "dora",
                fields=message.fields,
            )
        )

    def _open_segment(self, connection: NodeConnection, wanted: OpenSegment) -> None:
        segment = self.find_segment(wanted.incarnation, wanted.number, asking=connection)
        if segment is None:
            connection.send(SegmentUnknown(wanted.request))
        else:
            connection.send(SegmentFd(wanted.request, segment[1]), (segment[0],))

    def find_segment(
        self, incarnation: int, number: int, *, asking: NodeConnection | None = None
    ) -> tuple[int, int] | None:
        """Descriptor (still ours) and size of a segment."""
        segment = self._book.segment(incarnation, number)
        if segment is None:
            # Its owner told us before it sent the message that lies there; we may not have read it.
            for owner in list(self.connections.values()):
                if owner.incarnation == incarnation and owner is not asking:
                    owner.read_waiting()
            segment = self._book.segment(incarnation, number)
        return segment

    # --------------------------------------------------------------------------- going out

    def admit(self, node: str, incarnation: int) -> None:
        """Welcome a process that said Hello: its configuration, inputs, then its routes."""
        connection = self._asking.pop(node)
        connection.incarnation = incarnation
        self.connections[node] = connection
        self.connected_at[node] = time.monotonic()
        spec = self._specs[node]
        try:
            self.make_inputs(spec)
            self._renew_area(node)
        except (QueueUnavailable, BoardFull) as error:
            connection.send(Refused(str(error)))
            self.complain(str(error))
            return
        self._welcome(connection, node, incarnation, self._config(spec))
        for key, value in self.params.get(node, {}).items():
            connection.send(ParamUpdate(key, value))
        if spec.is_dynamic:
            self._watch(connection)

    def _welcome(
        self, connection: NodeConnection, node: str, incarnation: int, config: NodeConfig
    ) -> None:
        queues = self._book.into(node)
        descriptors = [self._book.board.fd]
        for kept in queues:
            descriptors += kept.ends.for_consumer()
        welcome = Welcome(
            incarnation=incarnation,
            config=config,
            queues=tuple(kept.spec for kept in queues),
            board_size=self._book.board.size,
            node_area=self.areas[node],
        )
        connection.send(welcome, descriptors)
        for kept in self._book.written_by(node):
            self._send_route(connection, kept)

    def admit_link(self, incarnation: int) -> None:
        """Welcome the link as a node whose inputs are the streams that leave this machine."""
        connection = self._asking.pop(LINK_NODE)
        connection.incarnation = incarnation
        self.connections[LINK_NODE] = connection
        try:
            self._renew_area(LINK_NODE)
        except BoardFull as error:
            connection.send(Refused(str(error)))
            self.complain(str(error))
            return
        inputs = tuple(link_input(kept) for kept in self._book.into(LINK_NODE))
        config = NodeConfig(
            dataflow_id=self._plan.dataflow_id,
            node_id=LINK_NODE,
            inputs=inputs,
            machine_id=self._plan.machine_id,
        )
        self._welcome(connection, LINK_NODE, incarnation, config)
        connection.send(Go(time.monotonic_ns()))

    def _renew_area(self, node: str) -> None:
        if node in self.areas:
            self._book.board.free_node(self.areas[node])
        self.areas[node] = self._book.board.allocate_node()

    def _config(self, spec: ResolvedNode) -> NodeConfig:
        return NodeConfig(
            dataflow_id=self._plan.dataflow_id,
            node_id=spec.id,
            inputs=tuple(input_config(name, wanted) for name, wanted in spec.inputs.items()),
            outputs=spec.outputs,
            restart_count=self.restarts.get(spec.id, 0),
            descriptor=self._plan.descriptor,
            machine_id=self._plan.machine_id,
            pool_size=spec.shared_memory_pool_size,
            exit_when_nodes_finish=self._plan.exit_when_nodes_finish,
            operators=tuple(_operator_config(spec)),
            dynamic=spec.is_dynamic,
            output_types=dict(spec.output_types),
            cycles=tuple(cycle for cycle in self._cycles if spec.id in cycle),
        )

    def refuse(self, node: str, message: str) -> None:
        """Turn down a Hello, or a process that waits at the start barrier."""
        connection = self._asking.pop(node, None) or self.connections.get(node)
        if connection is not None:
            connection.send(Refused(message))

    def go(self, nodes: tuple[str, ...]) -> None:
        """Release nodes from the barrier. Those that come later count their timers from now."""
        now = time.monotonic_ns()
        if self.epoch_ns is None:
            self.epoch_ns = now
        for node in nodes:
            if (connection := self.connections.get(node)) is not None:
                # A wait at the barrier is no silence.
                self.connected_at[node] = now / 1e9
                connection.send(Go(now))

    def stop(self, node: str, reason: str) -> None:
        self.send(node, Stop(reason))

    def send(self, node: str, message: Frozen) -> bool:
        """Send to a connected node; False if it is not connected."""
        connection = self.connections.get(node)
        if connection is None or connection.closed:
            return False
        connection.send(message)
        return True

    # ------------------------------------------------------------------------------ queues

    def make_inputs(self, spec: ResolvedNode) -> None:
        """Make the queues of a node's inputs that do not exist yet, and route to them."""
        for name, wanted in spec.inputs.items():
            self.make_input(spec.id, name, wanted)

    def make_input(self, node: str, name: str, wanted: ResolvedInput) -> KeptQueue | None:
        """Make the queue of one input; ``None`` for a timer."""
        source = wanted.source
        from_link = False
        match source:
            case TimerSource():
                return None
            case LogSource():
                edge = Edge(LOGS, "logs", node, name)
                self.log_inputs[node, name] = source
                route = log_route(node, name)
                from_runner = True
            case OutputSource():
                edge = Edge(source.node, source.output, node, name)
                route = f"{source.node}/{source.output}"
                from_runner = self.runner_sends(source)
                from_link = source.node in self.remote_nodes
        kept, is_new = self._book.ensure(
            edge,
            bound=wanted.queue_size,
            backpressure=wanted.queue_policy == "backpressure",
            from_runner=from_runner,
            from_link=from_link,
            hold_limit=hold_limit(self._specs.get(edge.source), os.environ),
        )
        if is_new:
            self.route(kept, route)
        return kept

    def make_outflow(self, flow: Outflow) -> None:
        """Make the queue of a stream that leaves this machine, unless there is one."""
        edge = flow.edge
        lines = flow.log_source is not None
        source = OutputSource(node=flow.node, output=flow.output)
        kept, is_new = self._book.ensure(
            edge,
            bound=flow.bound,
            backpressure=flow.backpressure,
            from_runner=lines or self.runner_sends(source),
            # The link holds what is on its way, and copies would be lost with its process.
            hold_limit=NO_LIMIT if flow.backpressure else LARGEST_HOLD_LIMIT,
            journal=True,
        )
        if not is_new:
            return
        route = str(source)
        if flow.log_source is not None:
            wanted = parse_source(flow.log_source)
            assert isinstance(wanted, LogSource)
            self.log_inputs[LINK_NODE, edge.input] = wanted
            route = log_route(LINK_NODE, edge.input)
        self.route(kept, route)
        if (connection := self.connections.get(LINK_NODE)) is not None:
            connection.send(AddInput(link_input(kept), kept.spec), kept.ends.for_consumer())

    def drop_outflow(self, kept: KeptQueue) -> None:
        """A stream that leaves this machine is not wanted any more."""
        self.log_inputs.pop((LINK_NODE, kept.edge.input), None)
        self.drop_queue(kept)
        self.send(LINK_NODE, RemoveInput(kept.edge.input))

    def runner_sends(self, source: OutputSource) -> bool:
        """Whether the runner sends this output of a node itself: it is made of printed lines."""
        spec = self._specs.get(source.node)
        if spec is None:
            return False
        ours = {spec.send_stdout_as, spec.send_logs_as}
        for operator in spec.operators:
            for output in (operator.send_stdout_as, operator.send_logs_as):
                if output is not None:
                    ours.add(f"{operator.id}/{output}")
        return source.output in ours

    def route(self, kept: KeptQueue, route: str) -> None:
        """Tell whoever writes into a new queue; ``route`` is what the runner calls it."""
        if kept.from_runner:
            self._outputs.add_route(route, kept)
        elif (connection := self.connections.get(kept.writer)) is not None:
            self._send_route(connection, kept)
        if kept.from_link:
            self.on_link_queues()

    @staticmethod
    def _send_route(connection: NodeConnection, kept: KeptQueue) -> None:
        edge = kept.edge
        output = f"{edge.source}/{edge.output}" if kept.from_link else edge.output
        connection.send(AddRoute(output, kept.spec), kept.ends.for_producer())

    def drop_inputs(self, node: str) -> None:
        """The node reads no more: free its producers of its queues."""
        for kept in self._book.into(node):
            self.drop_queue(kept)
        for key in [k for k in self.log_inputs if k[0] == node]:
            del self.log_inputs[key]

    def drop_queue(self, kept: KeptQueue) -> None:
        """Take one queue out of the dataflow."""
        if kept.from_runner:
            self._outputs.remove_route(kept)
        else:
            self.send(kept.writer, RemoveRoute(kept.spec.queue))
        self._book.drop(kept.edge)
        if kept.from_link:
            self.on_link_queues()

    def connect_input(self, node: str, name: str, wanted: ResolvedInput) -> None:
        """A new edge of a running node."""
        kept = self.make_input(node, name, wanted)
        connection = self.connections.get(node)
        if connection is not None:
            message = AddInput(input_config(name, wanted), None if kept is None else kept.spec)
            connection.send(message, () if kept is None else kept.ends.for_consumer())

    def disconnect_input(self, edge: Edge) -> None:
        """An edge ends; the consumer is told that the input closed."""
        self.send(edge.target, RemoveInput(edge.input))
        kept = self._book.get(edge)
        if kept is not None:
            self.drop_queue(kept)

    # ---------------------------------------------------------------------------- the end

    def process_ended(self, node: str, incarnation: int) -> None:
        """The node's process was reaped; call it before the state machine hears of it."""
        connection = self.connections.get(node)
        if connection is not None and connection.incarnation == incarnation:
            # Its last words: a segment that its last message lies in, say.
            connection.read_waiting()
            self.connections.pop(node, None)
            connection.close()
        self._book.consumer_died(node)
        self._book.producer_died(node, incarnation)

    def forget(self, node: str) -> None:
        """The node has left the dataflow; a process that is still attached is let go."""
        connection = self.connections.pop(node, None)
        if connection is not None:
            self._unwatch(connection)
            connection.send(Stop())
            connection.close()
        self.params.pop(node, None)
        area = self.areas.pop(node, None)
        if area is not None:
            self._book.board.free_node(area)

    def _watch(self, connection: NodeConnection) -> None:
        descriptor = watch_process(connection.pid) if connection.pid else None
        if descriptor is not None:
            self._watched[connection] = descriptor
            loop = asyncio.get_running_loop()
            loop.add_reader(descriptor, self._detach, connection)

    def _detach(self, connection: NodeConnection) -> None:
        """A dynamic node has left or its process has ended."""
        self._unwatch(connection)
        connection.read_waiting()
        self._left.discard(connection)
        connection.close()
        node, incarnation = connection.node, connection.incarnation
        if node is None or incarnation is None or self.connections.get(node) is not connection:
            return
        spec = self._specs.get(node)
        if spec is not None and spec.is_dynamic:
            self.process_ended(node, incarnation)
            self._tell(NodeDetached(node, incarnation))

    def _unwatch(self, connection: NodeConnection) -> None:
        descriptor = self._watched.pop(connection, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Stop watching; the server closes the connections."""
        for connection in list(self._watched):
            self._unwatch(connection)


def log_route(node: str, name: str) -> str:
    """What the runner calls the route to a ``dora/logs`` input; no output has such a name."""
    return f"dora/logs -> {node}/{name}"


def input_config(name: str, wanted: ResolvedInput) -> InputConfig:
    """An input as nodes are told of it."""
    source = wanted.source
    node: str | None = None
    output: str | None = None
    interval: int | None = None
    match source:
        case OutputSource():
            kind, node, output = "output", source.node, source.output
        case TimerSource():
            kind, interval = "timer", source.interval_ns
        case LogSource():
            kind = "logs"
    return InputConfig(
        id=name,
        source=str(source),
        source_kind=kind,
        source_node=node,
        source_output=output,
        interval_ns=interval,
        queue_size=wanted.queue_size,
        queue_policy=wanted.queue_policy,
        input_timeout=wanted.input_timeout,
    )


def link_input(kept: KeptQueue) -> InputConfig:
    """A queue into the link as an input."""
    edge = kept.edge
    return InputConfig(
        id=edge.input,
        source=f"{edge.source}/{edge.output}",
        source_node=edge.source,
        source_output=edge.output,
        queue_size=kept.spec.bound,
        queue_policy=kept.spec.policy,
    )


def _operator_config(spec: ResolvedNode) -> list[OperatorConfig]:
    return [
        OperatorConfig(
            id=operator.id,
            python=operator.python,
            name=operator.name,
            description=operator.description,
            inputs=tuple(operator.inputs),
            outputs=operator.outputs,
        )
        for operator in spec.operators
    ]
