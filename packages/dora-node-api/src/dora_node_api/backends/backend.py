"""Interface of the backends of a `Node`: a runner, a file of test events, or a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from dora_node_api.errors import DoraNodeError
from dora_node_api.protocol.extensions import Extensions, local_extensions
from dora_node_api.protocol.messages import Message, NodeConfig
from dora_node_api.transport.producer.blocks import heap_sample

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event
    from dora_node_api.transport.producer.blocks import SampleMemory


class TimedOut(dict[str, Any]):
    """The event of a timeout."""


def timed_out(timeout: float) -> Event:
    """Return the event of a timeout of `timeout` seconds."""
    return TimedOut(
        type="ERROR",
        error=f"Timeout event stream error: Receiver timed out after {timeout:g} s",
        kind="dora",
    )


class Backend:
    """Source of a node's events and destination of its outputs."""

    config: NodeConfig

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        raise NotImplementedError

    def next_event(self, timeout: float | None) -> Event | None:
        """Wait for an event; None at the end, an ERROR event after `timeout` seconds."""
        raise NotImplementedError

    def poll_event(self) -> Event | None:
        """Return the next event if there is one. Never blocks."""
        raise NotImplementedError

    def is_empty(self) -> bool:
        """Whether `poll_event` would return None."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Return a descriptor that is readable when `poll_event` may have an event; -1: none."""
        return -1

    def deadline(self) -> int | None:
        """Return when `poll_event` has an event although nothing arrives (CLOCK_MONOTONIC ns)."""
        return None

    def waits(self, waiting: bool) -> None:
        """Note whether a task waits for events outside of `next_event`."""

    def clock_ns(self) -> int:
        """Return CLOCK_MONOTONIC in nanoseconds."""
        return time.monotonic_ns()

    def correct_times(self, inputs: Iterable[str]) -> None:
        """Add the key `captured_ns` to later events of these inputs."""

    def count_unmatched(self, name: str, count: int) -> None:
        """Count messages of an input that were in no sample."""

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Send one message. Raises InvalidData."""
        raise NotImplementedError

    def allocate_sample(
        self, output: str, nbytes: int, metadata: Mapping[str, Any]
    ) -> SampleMemory:
        """Return memory for a message to be filled in place. Raises UnknownOutput, InvalidData."""
        return heap_sample(nbytes)

    def send_sample(self, output: str, sample: SampleMemory, metadata: Mapping[str, Any]) -> None:
        """Send a sample of `allocate_sample`."""
        self.send(output, bytes(sample.as_buffer()), metadata)

    @cached_property
    def _warned(self) -> set[str]:
        return set()

    def warn(self, message: str) -> None:
        """Log a warning of this library; the same sentence only once."""
        from dora_node_api.logging.log_lines import entry_line, write_line

        if message not in self._warned:
            self._warned.add(message)
            write_line(entry_line(self.config.node_id, "warn", message, target="dora_node_api"))

    def not_open(self, output: str) -> str:
        """Return why nothing can be sent on an output."""
        if output in self.config.outputs:
            return f"Output `{output}` was closed by this node."
        declared = ", ".join(f"`{name}`" for name in self.config.outputs) or "none"
        return f"Output `{output}` not in node's output list ({declared}); add it to `outputs`."

    def send_control(self, message: Message) -> None:
        """Send a message to the runner, if there is one."""

    def save_state(self, state: Any) -> None:
        """Keep a state for the next process. Raises InvalidData."""
        from dora_node_api.data.saved_state import write_state

        os.close(write_state(state)[0])  # only validates the state: no process reads it later

    def load_state(self) -> Any:
        """Return the state that the former process saved; None if it saved none."""
        return None

    @property
    def extensions(self) -> Extensions:
        """Values that extensions of nodes share."""
        known = vars(self).get("_extensions")
        if known is None:
            known = self._extensions = local_extensions(self.config.node_id)
        return known

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        """End these outputs: nothing more is sent on them."""

    def share(self, path: str, node_id: str) -> bool:
        """Add a holder if this is the connection of that node to the runner at `path`.

        Return whether it is. Each holder must call `close`.
        """
        return False

    def leave(self) -> None:
        """Report that the process is about to end, without waiting."""

    def close(self) -> None:
        """Called once by each holder, from any thread; the last call closes the backend."""


class Unusable(Backend):
    """Replaces a backend that must not be used: each use raises the same error."""

    def __init__(self, config: NodeConfig, error: type[DoraNodeError], sentence: str) -> None:
        self.config = config
        self._error = error
        self._sentence = sentence

    def _refuse(self, *_args: object, **_named: object) -> NoReturn:
        raise self._error(self._sentence)

    ended = extensions = property(_refuse)
    next_event = poll_event = is_empty = fileno = deadline = correct_times = _refuse
    send = allocate_sample = send_sample = warn = close_outputs = send_control = _refuse
    save_state = load_state = _refuse


def check_timeout(timeout: float) -> float:
    """Return a timeout in seconds.

    Raises ValueError if it is negative or NaN, TypeError if it is not a number.
    """
    try:
        usable = timeout >= 0
    except TypeError:
        message = f"timeout must be a number of seconds or None, not {timeout!r:.80}"
        raise TypeError(message) from None
    if not usable:
        raise ValueError(f"invalid timeout of {timeout} seconds; it must be zero or more")
    return min(float(timeout), 1e9)


def until(timeout: float) -> int:
    """Return the CLOCK_MONOTONIC ns at which `timeout` seconds have passed."""
    return time.monotonic_ns() + int(timeout * 1e9)
