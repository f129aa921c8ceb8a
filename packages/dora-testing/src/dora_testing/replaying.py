"""Check a recording: nodes get their recorded events, and their messages are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dora_config.dataflow.loader import LoadedDataflow, load_dataflow
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.runner.nodes.node_config import node_config
from dora_daemon.runner.process.prepare import PreparedNode
from dora_node_api.backends import event_notes as notes
from dora_node_api.data.metadata import captured_ns
from dora_node_api.protocol import lockstep as wire, messages
from dora_recordings.message_file import MessageFile
from dora_recordings.received import Recorded, RecordedInputs, RecordedStep, ReplayMessage
from dora_testing.children import Child, output_of, shown
from dora_testing.comparison import Tolerance, differing
from dora_testing.errors import FlowError
from dora_testing.messages import Opened, make_block
from dora_testing.participants import NOTHING, Answer
from dora_testing.programs import plan_of, prepare

EMPTY_POLL_NS = 1_000
"""Virtual nanoseconds that a poll without an event takes."""
LOOP_GRACE_NS = 5_000_000
"""Nanoseconds by which an event may be later than a timer of an event loop and still precede it,
because work takes no virtual time."""
MAX_AFTER_END = 10_000
"""Most requests after STOP; then the node is ended."""
_IDS = ("request_id", "goal_id")


@dataclass(frozen=True, slots=True)
class MessageDifference:
    """The first message of a node that is not as recorded."""

    output: str
    number: int
    """Number of the message on its output, from 1."""
    seconds: float
    """Time since the first message of the recording."""
    what: str
    after: str
    """The event after which it was sent."""

    def __str__(self) -> str:
        return (
            f"{self.output}: message {self.number} at {self.seconds:.3f} s {self.what}\n"
            f"  {self.after}"
        )


@dataclass(slots=True)
class Check:
    """The result of a check."""

    equal: dict[str, int] = field(default_factory=dict)
    """Messages that were as recorded, by output."""
    differences: list[MessageDifference] = field(default_factory=list)
    """The first one of each node that has one, by time."""
    remarks: list[str] = field(default_factory=list)
    """Why the check cannot be exact."""
    file: Path | None = None
    """The messages of the run, if there is a difference."""

    def lines(self) -> Iterator[str]:
        """Yield the result as text."""
        yield from (f"note: {remark}" for remark in self.remarks)
        yield from (
            f"{output}: {count} messages as recorded" for output, count in self.equal.items()
        )
        yield from map(str, self.differences)
        if self.file is not None:
            yield f"the messages of this run: {self.file}"


def check_recording(
    files: Sequence[Path | str],
    *,
    run: Collection[str] | None = None,
    compare: Collection[str] | None = None,
    atol: float = 0.0,
    rtol: float = 0.0,
    ignore: Collection[str] = (),
    dataflow: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    patience: float = 30.0,
) -> Check:
    """Run nodes with the events that they received in a recording, and compare what they send.

    `run`: nodes, by default all that received and sent recorded messages. `compare`: outputs, by
    default all of these nodes. `atol`, `rtol`: tolerances of numbers. `ignore`: fields that may
    differ, such as `stamp`. `dataflow`: a file in place of the recorded dataflow. `folder`: of
    relative paths. Raises FlowError, or UnreadableRecording.
    """
    recorded = Recorded(files)
    base = folder or Path()
    loaded = recorded.load(base) if dataflow is None else load_dataflow(base / dataflow)
    specs = _chosen(recorded, loaded, run)
    for name in compare or ():
        if not any(name == f"{spec.id}/{output}" for spec in specs for output in spec.outputs):
            raise FlowError(f'output "{name}" is not one of the nodes that run')
    tolerance = Tolerance(atol, rtol, frozenset(ignore))
    result = Check(remarks=recorded.lost())
    with tempfile.TemporaryDirectory(prefix="dora-check-") as temporary:
        place = Path(temporary)
        plan = plan_of(loaded, env or {})
        programs = prepare(plan, loaded, specs, place)
        run_file = MessageFile(place / "run.mcap", recorded.facts.source)
        for spec in specs:
            result.remarks += _remarks(recorded, spec)
            node = NodeCheck(
                recorded, plan, programs[spec.id], compare, tolerance,
                place, run_file, patience,
            )  # fmt: skip
            if (difference := node.run()) is not None:
                result.differences.append(difference)
            result.equal |= node.equal
        run_file.finish()
        if result.differences:
            first = recorded.files[0]
            result.file = first.with_name(f"{first.stem}-check{first.suffix}")
            result.file.write_bytes(run_file.path.read_bytes())
    result.differences.sort(key=lambda one: one.seconds)
    return result


def check(files: Sequence[Path], **settings: Any) -> tuple[Iterator[str], bool]:
    """Return the lines of `dora replay --check`, and whether nothing differs."""
    result = check_recording(files, **settings)
    return result.lines(), not result.differences


def _chosen(
    recorded: Recorded, loaded: LoadedDataflow, run: Collection[str] | None
) -> list[ResolvedNode]:
    """Return the nodes to run."""
    nodes = {node.id: node for node in loaded.resolved.nodes if not node.is_dynamic}

    def possible(spec: ResolvedNode) -> bool:
        return any(f"{spec.id}/{output}" in recorded.topics for output in spec.outputs)

    def reads(spec: ResolvedNode) -> bool:
        sources = [wanted.source for wanted in spec.inputs.values()]
        return any(isinstance(one, OutputSource) and str(one) in recorded.topics for one in sources)

    names = [n for n in nodes if possible(nodes[n]) and reads(nodes[n])] if run is None else run
    known = ", ".join(name for name in nodes if possible(nodes[name])) or "none"
    for name in names:
        if name not in nodes or not possible(nodes[name]):
            raise FlowError(f'node "{name}" has no messages in the recording; those with: {known}')
    if not names:
        raise FlowError(
            f"no node both received and sent recorded messages; choose some of: {known}"
        )
    return [nodes[name] for name in nodes if name in names]


def _remarks(recorded: Recorded, spec: ResolvedNode) -> Iterator[str]:
    if not recorded.is_noted(spec):
        yield (
            f'node "{spec.id}": the order of its events was not recorded, as with `dora record'
            " --attach`; it gets its inputs in the order in which they were sent, so it may differ"
            " where it works as before. `dora record PATH` records the order"
        )
    elif missing := recorded.gaps(spec):
        yield f'node "{spec.id}": the events before {missing} messages are not in the recording'


class NodeCheck:
    """One node, with its recorded events in virtual time."""

    def __init__(
        self,
        recorded: Recorded,
        plan: RunPlan,
        program: PreparedNode,
        outputs: Collection[str] | None,
        tolerance: Tolerance,
        folder: Path,
        run_file: MessageFile,
        patience: float,
    ) -> None:
        spec = self._spec = program.spec
        self._recorded, self._plan, self._program = recorded, plan, program
        self._tolerance, self._run_file, self._patience = tolerance, run_file, patience
        self._log = output_of(folder, spec.id)
        own = [f"{spec.id}/{output}" for output in spec.outputs]
        self._compared = {
            name for name in own if name in recorded.topics and (outputs is None or name in outputs)
        }
        self.equal = dict.fromkeys(sorted(self._compared), 0)
        self._steps = recorded.steps(spec)
        self._step: RecordedStep | None = next(self._steps, None)
        self._last = "its start"
        self._ahead = recorded.ahead(spec)
        self._inputs = RecordedInputs(recorded, self._sources(), self._ahead)
        self._expected = {name: recorded.sent(spec, name) for name in self._compared}
        self._now = wire.START_NS
        self._offset = recorded.first.log_time - wire.START_NS
        """Added to the time of the run, the time of the recording."""
        self._own_offset = self._offset + self._ahead
        """Added to the time of the run, the time of the node's machine."""
        self._corrected: set[str] = set()
        self._ids: dict[str, str] = {}
        """Ids of requests of this run, by the ids in the recording."""
        self._state: tuple[str, bytes] = ("", b"")
        self._stopped = self._beyond = False
        """Whether STOP was sent that is not in the recording."""
        self._after_end = 0
        self._difference: MessageDifference | None = None

    def _sources(self) -> list[str]:
        sources = [wanted.source for wanted in self._spec.inputs.values()]
        return [str(source) for source in sources if isinstance(source, OutputSource)]

    def run(self) -> MessageDifference | None:
        """Run the node and return its first difference."""
        restarts = 0
        while self._kind() == notes.START:
            self._advance()
            child = Child(
                self._program, restarts, self._log, self._now, self._patience, self._own_offset
            )
            try:
                self._follow(child, restarts)
            finally:
                child.kill()
            if self._difference is not None:
                return self._difference
            restarts += 1
            while self._kind() not in (None, notes.START):
                self._advance()  # it has ended before these events
        return self._missing()

    def _follow(self, child: Child, restarts: int) -> None:
        """Give a process its events until it ends, starts anew or differs."""
        while True:
            waits: list[Any] | None = None
            for values, block in child.requests():
                waits = values if values[0] in wire.WAITING else None
                self._request(values, block)
                if self._difference is not None:
                    return
            if waits is None:
                return
            answer = self._answer(waits, restarts)
            if answer is None:
                return
            child.answer(self._now, *answer)

    def _request(self, values: list[Any], block: bytes) -> None:
        match values:
            case [wire.SEND | wire.SEND_WAITING, output, _]:
                self._sent(f"{self._spec.id}/{output}", block)
            case [wire.CORRECT, inputs]:
                self._corrected.update(inputs)
            case [wire.CONTROL, message]:
                control = messages.message_from_json(message)
                if isinstance(control, messages.SaveState):
                    self._state = (control.format, block)

    # --- events ----------------------------------------------------------------------------------

    def _kind(self) -> str | None:
        return None if self._step is None else self._step.kind

    def _advance(self) -> None:
        self._step = next(self._steps, None)

    def _answer(self, request: list[Any], restarts: int) -> Answer | None:
        """Return what the node gets; None if its process has ended here in the recording."""
        match request:
            case [wire.HELLO, *_]:
                config = node_config(self._plan, self._spec, restarts, ())
                form, content = self._state
                return {"config": messages.to_json(config), "state": form, "waiting": []}, content
            case [wire.SLEEP, until]:
                self._now = max(self._now, until)
                return NOTHING
            case [wire.SEND_WAITING, *_]:
                return NOTHING
            case [wire.EMPTY]:
                self._now += EMPTY_POLL_NS
                return self._step is None or self._step.kind in (notes.EMPTY, notes.TIMED_OUT), b""
            case [wire.POLL]:
                return self._poll()
            case [_, until, *_loop]:
                return self._next(until, in_loop=bool(_loop))
        raise AssertionError(f"unexpected request {request!r:.80}")

    def _poll(self) -> Answer | None:
        step = self._step
        if step is None:
            return self._stop()
        if step.kind in (notes.EMPTY, notes.TIMED_OUT):
            self._now += EMPTY_POLL_NS
            if step.kind == notes.EMPTY:
                self._step = replace(step, times=step.times - 1)
                if step.times == 1:
                    self._advance()
            return NOTHING
        return self._take(step)

    def _next(self, until: int | None, *, in_loop: bool) -> Answer | None:
        while (step := self._step) is not None and (
            step.kind == notes.EMPTY or (step.kind == notes.TIMED_OUT and until is None)
        ):
            self._advance()
        if step is None:
            return self._stop()
        if until is not None and (
            step.kind == notes.TIMED_OUT
            or (in_loop and step.taken - self._own_offset > until + LOOP_GRACE_NS)
        ):
            if step.kind == notes.TIMED_OUT:
                self._advance()
            self._now = max(self._now, until)
            return NOTHING
        return self._take(step)

    def _stop(self) -> Answer | None:
        """Stop a node that has had all recorded events."""
        if self._stopped:
            self._after_end += 1
            return NOTHING if self._after_end < MAX_AFTER_END else None
        self._stopped = self._beyond = True
        return {"type": "STOP", "id": "MANUAL", "kind": "dora"}, b""

    def _take(self, step: RecordedStep) -> Answer | None:
        if step.kind == notes.START:
            return None
        self._advance()
        self._now = max(self._now, step.taken - self._own_offset)
        if step.kind != notes.INPUT:
            event = dict(step.event or {})
            self._last = f"{step.kind} {event.get('id') or ''}".rstrip()
            self._stopped = self._stopped or step.kind == "STOP"
            return event, b""
        source = self._spec.inputs[step.input].source if step.input in self._spec.inputs else None
        values: dict[str, Any] = {"type": "INPUT", "id": step.input, "kind": "dora"}
        if isinstance(source, TimerSource):
            stamp = int(step.identity)
            self._last = f"tick `{step.input}`"
            if step.input in self._corrected:
                values["captured_ns"] = stamp - self._own_offset
            return {**values, "stamp": stamp}, b""
        message = self._inputs.find(str(source), step) if source is not None else None
        if message is None:
            raise FlowError(
                f'node "{self._spec.id}": a message of its input `{step.input}` is not in the'
                " recording; record all outputs that it reads (lines of logs are not recorded)"
            )
        return self._input(message, values)

    def _input(self, message: ReplayMessage, values: dict[str, Any]) -> Answer:
        self._last = f"a message of {message.output} on `{values['id']}`"
        metadata = dict(message.metadata)
        for key in _IDS:
            if metadata.get(key) in self._ids:
                metadata[key] = self._ids[metadata[key]]
        if values["id"] in self._corrected:
            captured = captured_ns(message.metadata) or message.publish_time
            values["captured_ns"] = captured - message.ahead - self._offset
        return values, make_block(message.value, metadata, message.publish_time)

    # --- messages --------------------------------------------------------------------------------

    def _sent(self, output: str, block: bytes) -> None:
        sent, at = Opened(block), self._now + self._offset
        published = sent.timestamp_ns - self._ahead
        self._run_file.add(output, sent.value, sent.metadata, log_time=at, publish_time=published)
        if output not in self._compared or self._beyond:
            return
        expected = next(self._expected[output], None)
        if expected is None:
            seconds = (at - self._recorded.first.log_time) / 1e9
            value = sent.value.to_pylist()
            self._differs(output, seconds, f"is not in the recording: {value!r:.80}")
            return
        metadata, known = sent.metadata, dict(expected.metadata)
        for fields in (metadata, known):
            fields.pop("timestamp", None)
        for key in _IDS:
            if isinstance(metadata.get(key), str) and isinstance(known.get(key), str):
                self._ids[known.pop(key)] = metadata.pop(key)
        mismatch = differing((expected.value, known), (sent.value, metadata), self._tolerance)
        if mismatch is None:
            self.equal[output] += 1
        else:
            self._differs(output, self._seconds(expected), str(mismatch))

    def _seconds(self, message: ReplayMessage) -> float:
        return (message.log_time - self._recorded.first.log_time) / 1e9

    def _differs(self, output: str, seconds: float, what: str, after: str | None = None) -> None:
        after = f"sent after {self._last}" if after is None else after
        number = self.equal[output] + 1
        self._difference = MessageDifference(output, number, seconds, what, after)

    def _missing(self) -> MessageDifference | None:
        """Return the first recorded message that was not sent."""
        left = [(output, next(self._expected[output], None)) for output in sorted(self._compared)]
        missing = [(message, output) for output, message in left if message is not None]
        if missing:
            message, output = min(missing, key=lambda one: one[0].log_time)
            value = f"was not sent: {message.value.to_pylist()!r:.80}"
            ended = f"the node has ended after {self._last}{shown(self._log)}"
            self._differs(output, self._seconds(message), value, ended)
        return self._difference
