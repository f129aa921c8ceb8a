"""The scheduler: one event at a time, to one node at a time, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine
from dora_daemon.runner.logs.log_entries import entry_from_line, message_text
from dora_daemon.runner.machine import commands as do, events
from dora_daemon.runner.process.prepare import PreparedNode
from dora_node_api.data.metadata import utc_datetime
from dora_node_api.protocol import lockstep as wire, messages
from dora_node_api.protocol.connection import DEADLOCK_AFTER
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.layout import RecordKind
from dora_testing.children import Child, last_lines, output_of
from dora_testing.directing import Director
from dora_testing.errors import FlowError
from dora_testing.messages import Queued, make_block
from dora_testing.participants import NOTHING, Answer, Participant
from dora_testing.queues import InputQueue
from dora_testing.results import Output, Result, Sent
from dora_testing.schedule import Schedule
from dora_testing.sources import Source
from dora_testing.turns import Turns

EMPTY_POLL_NS = 1_000
"""Virtual time of a poll without an event, so that a polling loop ends."""
MOST_STEPS = 10_000
"""Number of events at one virtual time after which the flow counts as endless."""
SIGNAL_SECONDS = 2.0
"""Real seconds that a process has to end by SIGTERM before virtual time goes on."""
MOST_WITHOUT_END = 100_000
"""Events after which a flow without an end of its own fails."""
_RECHECK_NS = 1_000_000_000
"""Nanoseconds of virtual time between two checks of a node that full queues block."""


class Engine(Director):
    """Runs a dataflow once."""

    record = Queued

    def __init__(
        self,
        plan: RunPlan,
        programs: Mapping[str, PreparedNode],
        sources: Mapping[str, Source],
        folder: Path,
        *,
        latency: Mapping[str, int],
        cost: Mapping[str, int],
        patience: float,
        shuffle: int | None,
    ) -> None:
        """`latency` by `node/output` or `node/input`, `cost` by node, in nanoseconds."""
        self.time = Schedule()
        nodes = plan.resolved.nodes
        outputs: dict[str, list[Sent]] = {f"{n.id}/{o}": [] for n in nodes for o in n.outputs}
        super().__init__(self.time, plan, sources, outputs)
        for node, busy in cost.items():
            self.parts[node].cost_ns = busy
        self._programs = programs
        self._folder = folder
        self._latency = latency
        self._patience = patience
        self._turns = Turns(self.time, self.parts.values(), shuffle)

    # --- the loop --------------------------------------------------------------------------------

    def run(self, until_ns: int | None) -> Result:
        """Run until the dataflow ends; it is stopped at a virtual time, or if nothing happens."""
        try:
            self.handle(events.Prepared())
            steps = events_so_far = 0
            while self._state.phase != "finished":
                if self._attend() or self._act():
                    continue
                if self._go_on():
                    steps += 1
                    events_so_far += 1
                    if steps > MOST_STEPS:
                        raise FlowError(_endless(self.time.seconds))
                    if until_ns is None and events_so_far > MOST_WITHOUT_END:
                        raise FlowError(
                            f"no end after {MOST_WITHOUT_END:,} events, {self.time.seconds:g} s:"
                            " timers tick for ever; end it with `run(until=5)`"
                        )
                else:
                    steps = 0
                    self._pass_time(until_ns)
        finally:
            for node in self.parts.values():
                if node.child is not None:
                    node.child.kill()
        return self._result()

    def _attend(self) -> bool:
        """Read what the first node that runs requests, until it waits or ends."""
        for node in self.parts.values():
            if node.running:
                self._follow(node)
                return True
        return False

    def _act(self) -> bool:
        """Run the first action of the schedule that is due."""
        action = self.time.take()
        if action is None:
            return False
        action()
        return True

    def _go_on(self) -> bool:
        """Let the first ready node continue; return whether there was one."""
        return any(self._continue(node) for node in self._turns.ready())

    def _pass_time(self, until_ns: int | None) -> None:
        """Go to the time at which something happens next; stop the dataflow at its end."""
        times = self._turns.times()
        if self.time.next is not None:
            times.append(self.time.next)
        next_time = min(times, default=None)
        stopping = self._state.phase == "stopping"
        end = None if until_ns is None or self.time.began is None else self.time.began + until_ns
        if end is not None and not stopping and (next_time is None or next_time > end):
            self.time.now_ns = max(self.time.now_ns, end)
            self.handle(events.RunStopRequested("the time of the test is over"))
        elif next_time is not None:
            self.time.now_ns = max(self.time.now_ns, next_time)
        elif not stopping and self.time.began is not None:
            self.handle(events.RunStopRequested("nothing more can happen"))
        else:
            raise FlowError(_blocked(self.parts.values()))

    # --- one node --------------------------------------------------------------------------------

    def _continue(self, node: Participant) -> bool:
        """Let a node go on if it can."""
        if node.answer is not None:
            return self._reply(node, node.answer)
        if node.request is None:
            node.check_at = None
            return False
        values, block = node.request
        if values[0] == wire.SEND_WAITING:
            return self._send_waiting(node, values, block)
        return self._deliver(node, values)

    def _deliver(self, node: Participant, values: list[Any]) -> bool:
        """Give a node that waits for an event the next one, or nothing after its time-out."""
        answer = node.next_answer(self.time.now_ns)
        until = values[1] if len(values) > 1 else None
        if answer is None:
            if until is not None and until <= self.time.now_ns:
                return self._reply(node, NOTHING)
            times = [time for time in (until, node.next_time()) if time is not None]
            node.check_at = None
            if times:
                self._turns.check(node, max(min(times), self.time.now_ns + 1))
            return False
        self._wake_senders(node)
        if not (cost := node.cost_of(answer)):
            return self._reply(node, answer)
        self._turns.answer_later(node, answer, self.time.now_ns + cost)
        return True

    def _reply(self, node: Participant, answer: Answer) -> bool:
        assert node.child is not None
        node.request = node.answer = node.check_at = None
        node.running = True
        node.child.answer(self.time.now_ns, *answer)
        return True

    def _follow(self, node: Participant) -> None:
        """Handle what a process does until it waits again, or ends."""
        child = node.child
        assert child is not None
        node.running = False
        waits = False
        for values, block in child.requests():
            waits = values[0] in wire.WAITING
            self._request(node, values, block)
        self._read_lines(node, last=not waits)
        if not waits and node.child is child:
            self._exited(node)

    def _request(self, node: Participant, values: list[Any], block: bytes) -> None:
        match values:
            case [wire.SEND, output, flags]:
                self.emit(f"{node.id}/{output}", block, flags)
            case [wire.CONTROL, message]:
                self._control(node, messages.message_from_json(message), block)
            case [wire.CORRECT, inputs] if node.session is not None:
                node.session.correct_times(inputs)
            case [wire.HELLO, _, pid]:
                node.request = (values, block)
                self.handle(events.NodeConnected(node.id, node.incarnation, pid))
            case [wire.SLEEP, until]:
                node.request = (values, block)
                self._turns.answer_later(node, NOTHING, max(until, self.time.now_ns))
            case [wire.POLL]:
                node.request = (values, block)
                self._poll(node)
            case [wire.EMPTY]:
                node.request = (values, block)
                waiting = any(queue.ready() for queue in node.queues.values())
                ready = node.session is not None and node.session.waiting(self.time.now_ns)
                self._turns.answer_later(
                    node, (not (waiting or ready), b""), self.time.now_ns + EMPTY_POLL_NS
                )
            case [wire.NEXT | wire.SEND_WAITING, *_]:
                node.request = (values, block)
                self._turns.check(node)

    def _poll(self, node: Participant) -> None:
        answer = node.next_answer(self.time.now_ns)
        if answer is None:
            self._turns.answer_later(node, NOTHING, self.time.now_ns + EMPTY_POLL_NS)
            return
        self._wake_senders(node)
        self._turns.answer_later(node, answer, self.time.now_ns + node.cost_of(answer))

    def _control(self, node: Participant, message: messages.Message, block: bytes) -> None:
        match message:
            case messages.CloseOutputs(outputs):
                self.handle(events.OutputsClosed(node.id, outputs))
            case messages.StopDataflow(reason):
                self.handle(events.RunStopRequested(f'node "{node.id}" requested it: {reason}'))
            case messages.SaveState(form, _):
                node.state = (form, block)
            case _:  # what lists and operators see
                pass

    # --- messages --------------------------------------------------------------------------------

    def _transmit(self, output: str, queue: InputQueue, record: Delivery) -> None:
        latency = self._latency.get(f"{queue.node}/{queue.input}", self._latency.get(output, 0))
        if not latency:
            self._arrive(queue, record)
            return
        queue.on_way += record.kind is RecordKind.DATA
        self.time.at(self.time.now_ns + latency, partial(self._arrived_late, queue, record))

    def _arrived_late(self, queue: InputQueue, record: Delivery) -> None:
        queue.on_way -= record.kind is RecordKind.DATA
        self._arrive(queue, record)

    def _arrive(self, queue: InputQueue, record: Delivery) -> None:
        queue.put(record)
        node = self.parts[queue.node]
        if node.source is not None:
            queue.take()
        else:
            self._turns.arrived(node)

    def _send_waiting(self, node: Participant, values: list[Any], block: bytes) -> bool:
        """Send once all queues have room; as in a run, a node on a full cycle gives up."""
        output = f"{node.id}/{values[1]}"
        full = next((queue for queue in self._readers[output] if queue.full), None)
        if full is None:
            node.blocked_ns = None
            self.emit(output, block, values[2])
            return self._reply(node, NOTHING)
        if node.blocked_ns is None:
            node.blocked_ns = self.time.now_ns
        cycle = next((c for c in self._cycles if node.id in c and full.node in c), None)
        node.check_at = None
        if cycle is None:
            return False
        gives_up = node.blocked_ns + round(DEADLOCK_AFTER * 1e9)
        own = [queue for queue in node.queues.values() if queue.backpressure]
        if gives_up > self.time.now_ns or not all(queue.full for queue in own):
            self._turns.check(node, max(gives_up, self.time.now_ns + _RECHECK_NS))
            return False
        node.blocked_ns = None
        edge = f"{output} -> {full.node}/{full.input}"
        return self._reply(node, ({"edge": edge, "cycle": cycle, "seconds": DEADLOCK_AFTER}, b""))

    def _wake_senders(self, reader: Participant) -> None:
        """Look again at nodes that wait for room at this one."""
        if not any(queue.backpressure for queue in reader.queues.values()):
            return
        for node in self.parts.values():
            if node.request is not None and node.request[0][0] == wire.SEND_WAITING:
                self._turns.check(node)

    # --- lines -----------------------------------------------------------------------------------

    def _read_lines(self, node: Participant, *, last: bool = False) -> None:
        assert node.child is not None
        for text in node.child.new_lines(last=last):
            stamp = utc_datetime(wire.wall_ns(self.time.now_ns)).isoformat()
            entry = entry_from_line(text, node=node.id, stream="stdout", ts=stamp)
            node.lines.append(entry.message)
            self._publish_line(node.spec, entry, text)

    def _publish_line(self, spec: ResolvedNode, entry: LogLine, text: str) -> None:
        as_text = message_text(
            entry, dataflow_id=self._plan.dataflow_id, daemon_id=None, build_id=None
        )
        if spec.send_stdout_as is not None:
            self.emit(f"{spec.id}/{spec.send_stdout_as}", self._text_block(text))
        if spec.send_logs_as is not None and entry.level != "stdout":
            self.emit(f"{spec.id}/{spec.send_logs_as}", self._text_block(as_text))
        for node in self.parts.values():
            for queue in node.log_inputs(spec.id, entry.level):
                block = self._text_block(as_text)
                self._arrive(queue, Queued(block, self.time.now_ns, 0))

    def _text_block(self, text: str) -> bytes:
        return make_block([text], None, wire.wall_ns(self.time.now_ns))

    # --- the machine of the runner ---------------------------------------------------------------

    def _carry_out(self, command: do.Command) -> None:
        super()._carry_out(command)
        if isinstance(command, do.DropInputs):
            self._wake_senders(self.parts[command.node])

    def _spawn(self, node: Participant) -> None:
        if node.source is not None:
            super()._spawn(node)
            return
        spec, incarnation = node.spec, node.incarnation
        output = output_of(self._folder, node.id)
        try:
            node.child = Child(
                self._programs[spec.id], incarnation, output, self.time.now_ns, self._patience
            )
        except OSError as error:
            failed = events.SpawnFailed(spec.id, incarnation, str(error))
            self.time.at(self.time.now_ns, partial(self.handle, failed))
            return
        node.running = True
        pid = node.child.process.pid
        self.handle(events.NodeSpawned(spec.id, incarnation, pid))

    def _refuse(self, node: Participant, command: do.Refuse) -> None:
        if node.source is not None:
            self._source_ended(node)
        elif node.request is not None and node.request[0][0] == wire.HELLO:
            refusal = {"refused": command.message, "cancelled": command.cancelled}
            self._turns.answer_later(node, (refusal, b""), self.time.now_ns)

    def _start(self, node: Participant) -> None:
        if self.time.began is None:
            self.time.began = self.time.now_ns
        super()._start(node)

    def _go(self, node: Participant) -> None:
        assert node.session is not None
        form, content = node.state or ("", b"")
        node.state = None
        waiting = [
            output
            for output in node.spec.outputs
            if any(queue.backpressure for queue in self._readers[f"{node.id}/{output}"])
        ]
        answer = {
            "config": messages.to_json(node.session.config),
            "state": form,
            "waiting": waiting,
        }
        self._turns.answer_later(node, (answer, content), self.time.now_ns)

    def _stop(self, node: Participant) -> None:
        if node.session is not None:
            node.session.stop("MANUAL")
            if node.request is not None and node.request[0][0] == wire.SEND_WAITING:
                self._turns.answer_later(node, NOTHING, self.time.now_ns)  # the message is dropped
            self._turns.arrived(node)

    def _signal(self, node: Participant, name: str) -> None:
        if node.child is None:
            return
        node.child.signal(name)
        if node.child.ended_within(SIGNAL_SECONDS):
            node.running = False
            self._read_lines(node, last=True)
            # Scheduled: the state machine is still handling the event that caused the signal.
            self.time.at(self.time.now_ns, partial(self._signalled, node, node.incarnation))

    def _signalled(self, node: Participant, incarnation: int) -> None:
        if node.incarnation == incarnation and node.child is not None:
            self._exited(node)

    def _exited(self, node: Participant) -> None:
        child, node.child = node.child, None
        assert child is not None
        node.request = node.answer = node.check_at = None
        node.session = None
        try:
            how = child.end()
        except FlowError:
            child.kill()
            raise
        self.handle(
            events.NodeExited(
                node.id,
                node.incarnation,
                how,
                drained=not any(queue.waiting for queue in node.queues.values()),
                stderr_tail=tuple(last_lines(output_of(self._folder, node.id))),
            )
        )

    # --- what tests do ---------------------------------------------------------------------------

    def at(self, after_ns: int, action: Callable[[], None]) -> None:
        """Do something at a time after the start of the first node."""
        self.time.at(wire.START_NS + after_ns, action)

    def control(self, node: str, message: messages.Message) -> None:
        """Send a message of the runner to a node."""
        found = self.parts[node]
        if found.session is not None:
            found.session.handle(message)
            self._turns.arrived(found)

    def kill(self, node: str) -> None:
        """Kill the process of a node."""
        self._signal(self.parts[node], "SIGKILL")

    # --- the result ------------------------------------------------------------------------------

    def _result(self) -> Result:
        ended = self._state.result
        assert ended is not None
        parts = self.parts.values()
        return Result(
            {name: Output(name, sent) for name, sent in self.outputs.items()},
            {f"{part.id}/{name}": q.dropped for part in parts for name, q in part.queues.items()},
            {part.id: part.lines for part in parts},
            {node.node: node for node in ended.nodes},
            self.time.seconds,
            ended.stop_reason,
        )


def _endless(seconds: float) -> str:
    return (
        f"{MOST_STEPS:,} events at the same virtual time, {seconds:g} s: nodes that send to each"
        " other in a circle take no time in a test; give one of them a `cost`"
    )


def _blocked(nodes: Iterable[Participant]) -> str:
    waits = [
        f'node "{node.id}" waits for room to send on `{node.request[0][1]}`'
        for node in nodes
        if node.request is not None and node.request[0][0] == wire.SEND_WAITING
    ]
    return "; ".join(waits) or "the nodes wait for each other to connect"
