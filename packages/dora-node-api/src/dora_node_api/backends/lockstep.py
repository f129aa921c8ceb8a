"""Backend of a node of a test that gives it one event at a time, in virtual time."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dora_node_api import ids, virtual_time
from dora_node_api.backends.backend import Backend, timed_out
from dora_node_api.backends.outputs import delivery_flags
from dora_node_api.data.arrow import encode
from dora_node_api.data.metadata import utc_datetime
from dora_node_api.data.typecheck import OutputTypeCheck
from dora_node_api.errors import (
    BackpressureDeadlock,
    InvalidData,
    SetUpError,
    StartCancelled,
    UnknownOutput,
)
from dora_node_api.protocol import lockstep as wire
from dora_node_api.protocol.messages import (
    CloseOutputs,
    Message,
    NodeConfig,
    SaveState,
    record_from_json,
    to_json,
)
from dora_node_api.protocol.session import Tick
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.shared.layout import BLOCK_HEAD, RecordKind
from dora_node_api.transport.shared.specs import QueueSpec
from dora_node_api.virtual_time import VirtualTime

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event


def connect(node_id: str, living: Iterable[Backend]) -> LockstepBackend:
    """Connect to the scheduler of the test and wait until the dataflow runs. Raises SetUpError.

    Of several nodes of the process, all have the first one's backend.
    """
    for backend in living:
        if isinstance(backend, LockstepBackend):
            return backend
    clock = virtual_time.current
    if clock is None:
        raise SetUpError(
            f"node `{node_id}`: this process has no connection to the test; a node must be made in"
            " the process that the test has started"
        )
    answer, content = clock.ask([wire.HELLO, node_id, os.getpid()])
    if "refused" in answer:
        kind = StartCancelled if answer["cancelled"] else SetUpError
        raise kind(answer["refused"])
    config = record_from_json(NodeConfig, answer["config"], "config")
    state = read_state(answer["state"], content) if answer["state"] else None
    return LockstepBackend(clock, config, frozenset(answer["waiting"]), state)


def read_state(form: str, content: bytes | bytearray) -> Any:
    """Return a state that was sent with `SaveState`."""
    from dora_node_api.data.saved_state import read_state as read

    descriptor = os.memfd_create("dora-state", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        return read(descriptor, form, len(content))
    finally:
        os.close(descriptor)


class LockstepBackend(Backend):
    """Requests each event from the scheduler, and blocks the node until the answer arrives."""

    def __init__(
        self, clock: VirtualTime, config: NodeConfig, waiting: frozenset[str], state: Any
    ) -> None:
        """`waiting`: outputs whose sends wait for room in a queue."""
        self.config = config
        self._clock = clock
        self._waiting = waiting
        self._state = state
        self._open = frozenset(config.outputs)
        self._ended = False
        self._early: Event | None = None
        """An event that arrived while an event loop waited."""
        self._signal = os.pipe()
        self._watched = False
        """Whether a task waits for events."""
        self._types = OutputTypeCheck.from_environment(
            config.output_types, config.output_structures, self.warn
        )
        virtual_time.idle = self._idle
        ids.random_bytes = random.Random(config.node_id).randbytes

    # --- receiving -------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self._ended

    def _event(self, answer: Any, content: bytearray) -> Event | None:
        """Return the event of an answer, in the form that `Session` gives it."""
        if answer is None:
            return None
        if answer["type"] == "STOP":
            self._ended = True
        if "stamp" in answer:
            stamp = utc_datetime(answer.pop("stamp"))
            return Tick({**answer, "metadata": {"timestamp": stamp}})
        if content:
            head = BLOCK_HEAD.unpack_from(content)
            message = Delivery(
                _spec(answer["id"], self.config.node_id), RecordKind.DATA, 0, 0, len(content), 0,
                head, bytes(content),
            )  # fmt: skip
            answer |= {"value": message.value, "metadata": message.metadata}
        event: Event = answer
        return event

    def next_event(self, timeout: float | None) -> Event | None:
        if self._early is not None or self._ended:
            return self._take_early()
        until = None if timeout is None else self._clock.now + round(timeout * 1e9)
        event = self._event(*self._clock.ask([wire.NEXT, until]))
        if event is None and timeout is not None:
            return timed_out(timeout)
        return event

    def poll_event(self) -> Event | None:
        if self._early is not None or self._ended:
            return self._take_early()
        return self._event(*self._clock.ask([wire.POLL]))

    def is_empty(self) -> bool:
        if self._early is not None or self._ended:
            return self._early is None
        return bool(self._clock.ask([wire.EMPTY])[0])

    # --- receiving in an event loop --------------------------------------------------------------

    def _idle(self, until: int | None) -> bool:
        """Wait until an event has come, or the time that the event loop waits for."""
        if self._watched and self._early is None and not self._ended:
            self._early = self._event(*self._clock.ask([wire.NEXT, until, True]))
            if self._early is not None:
                os.write(self._signal[1], b"1")
        elif until is not None:
            self._clock.ask([wire.SLEEP, until])
        else:
            return False
        return True

    def waits(self, waiting: bool) -> None:
        self._watched = waiting

    def fileno(self) -> int:
        return self._signal[0]

    def _take_early(self) -> Event | None:
        event, self._early = self._early, None
        if event is not None:
            os.read(self._signal[0], 1)
        return event

    # --- sending ---------------------------------------------------------------------------------

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        if output not in self._open:
            self.warn(self.not_open(output) + " Its messages are dropped.")
            return
        try:
            payload = encode(data, metadata, on_warning=self.warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from None
        if self._types is not None:
            self._types.check(output, data, metadata)
        payload.timestamp_ns = self._clock.wall_ns()
        block = bytearray(payload.total)
        payload.write_into(block)
        flags = delivery_flags(metadata) if metadata else 0
        if output in self._waiting:
            refusal = self._clock.ask([wire.SEND_WAITING, output, flags], block)[0]
            if refusal is not None:
                seconds, nodes = refusal["seconds"], tuple(refusal["cycle"])
                raise BackpressureDeadlock(refusal["edge"], nodes, seconds)
        else:
            self._clock.send([wire.SEND, output, flags], block)

    def allocate_sample(self, output: str, nbytes: int, metadata: Mapping[str, Any]) -> Any:
        if output not in self._open:
            raise UnknownOutput(self.not_open(output))
        return super().allocate_sample(output, nbytes, metadata)

    def send_sample(self, output: str, sample: Any, metadata: Mapping[str, Any]) -> None:
        data = bytes(sample.as_buffer())
        sample.close_views()
        self.send(output, data, metadata)

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        self._open -= frozenset(outputs)
        self.send_control(CloseOutputs(outputs))

    # --- the rest --------------------------------------------------------------------------------

    def clock_ns(self) -> int:
        return self._clock.now

    def correct_times(self, inputs: Iterable[str]) -> None:
        self._clock.send([wire.CORRECT, list(inputs)])

    def count_unmatched(self, name: str, count: int) -> None:
        self._clock.send([wire.UNMATCHED, name, count])

    def send_control(self, message: Message) -> None:
        self._clock.send([wire.CONTROL, to_json(message)])

    def save_state(self, state: Any) -> None:
        from dora_node_api.data.saved_state import write_state

        descriptor, form, size = write_state(state)
        try:
            content = os.pread(descriptor, size, 0)
        finally:
            os.close(descriptor)
        self._clock.send([wire.CONTROL, to_json(SaveState(form, size))], content)

    def load_state(self) -> Any:
        return self._state

    def close(self) -> None:
        if virtual_time.current is self._clock:
            self.send_control(CloseOutputs(None))


def _spec(input_id: str, node: str) -> QueueSpec:
    return QueueSpec(0, "", "", node, input_id)
