"""What stands behind a `Node`: a runner, a file of test events, a terminal, or nothing any more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from dora_node_api.errors import DoraNodeError
from dora_node_api.protocol.messages import NodeConfig

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event
    from dora_node_api.transport.producer.blocks import Sample


def timed_out(timeout: float) -> Event:
    """The event that stands for "nothing came within `timeout` seconds"."""
    return {
        "type": "ERROR",
        "error": f"Timeout event stream error: Receiver timed out after {timeout:g} s",
        "kind": "dora",
    }


class Backend:
    """Where a node's events come from and where its outputs go."""

    config: NodeConfig

    @property
    def ended(self) -> bool:
        """Whether the stream is at its end: nothing follows."""
        raise NotImplementedError

    def next_event(self, timeout: float | None) -> Event | None:
        """Wait for an event; None at the end, an ERROR event after `timeout` seconds."""
        raise NotImplementedError

    def poll_event(self) -> Event | None:
        """The next event if there is one. Never blocks."""
        raise NotImplementedError

    def is_empty(self) -> bool:
        """Whether `poll_event` would return None."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Readable when `poll_event` may have something; -1 if only time decides."""
        return -1

    def deadline(self) -> int | None:
        """CLOCK_MONOTONIC ns at which `poll_event` has something though nothing arrives."""
        return None

    def waits(self, waiting: bool) -> None:
        """A task waits for events outside `next_event`, or no longer."""

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Send one message. Raises InvalidData."""
        raise NotImplementedError

    def allocate_sample(self, output: str, nbytes: int, metadata: Mapping[str, Any]) -> Sample:
        """Memory for a message to be filled in place. Raises UnknownOutput, InvalidData."""
        raise NotImplementedError

    def send_sample(self, output: str, sample: Sample, metadata: Mapping[str, Any]) -> None:
        """Send what `allocate_sample` gave."""
        raise NotImplementedError

    def warn(self, message: str) -> None:
        """A warning of the library itself, to the node's log; the same sentence only once."""
        raise NotImplementedError

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        """Nothing more will be sent on these outputs."""

    def stop_dataflow(self, reason: str) -> None:
        """Ask for the whole dataflow to be stopped."""

    def share(self, path: str, node_id: str) -> bool:
        """Whether this is the usable connection of that node to the runner at `path`.

        If so, one more `Node` holds it: it takes one more `close` to give it back.
        """
        return False

    def leave(self) -> None:
        """The process is about to end: say so, wait for nothing."""

    def close(self) -> None:
        """Each `Node` that holds it closes it once, from any thread; the last gives all back."""


class Unusable(Backend):
    """Stands in for a backend that must not be used: each use raises the same error."""

    _OWN = frozenset({"leave", "close", "config", "share"})

    def __init__(self, config: NodeConfig, error: type[DoraNodeError], sentence: str) -> None:
        self.config = config
        self._error = error
        self._sentence = sentence

    def _refuse(self, *_args: object, **_named: object) -> NoReturn:
        raise self._error(self._sentence)

    ended = property(_refuse)
    next_event = poll_event = is_empty = fileno = deadline = _refuse
    send = allocate_sample = send_sample = warn = close_outputs = stop_dataflow = _refuse


def check_timeout(timeout: float) -> float:
    """A timeout in seconds. Raises ValueError for a negative one or one that is no number."""
    try:
        usable = timeout >= 0
    except TypeError:
        message = f"a timeout is a number of seconds, or None; found {timeout!r:.80}"
        raise TypeError(message) from None
    if not usable:
        raise ValueError(f"invalid timeout of {timeout} seconds: it must be zero or more")
    return min(float(timeout), 1e9)


def until(timeout: float | None) -> int | None:
    """CLOCK_MONOTONIC ns at which `timeout` seconds from now have passed; None: never."""
    return None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
