"""`Node.joined`: the events of a node, with samples in place of the messages of some inputs."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Protocol

from dora_node_api.backends.backend import Backend, TimedOut, check_timeout, timed_out
from dora_node_api.data.metadata import captured_ns, has_unusable_stamp, utc_datetime
from dora_node_api.events import EventStream, InputEvent, Sample, from_dict
from dora_node_api.joining import Joiner, Match, Missing

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event


@dataclass(frozen=True, slots=True, init=False)
class Join:
    """Inputs that are joined to samples: arguments of `Node.joined`, `joined` of an operator."""

    inputs: tuple[str, ...]
    within: float
    wait: float

    def __init__(self, *inputs: str, within: float, wait: float = 0.5) -> None:
        if not inputs or len(set(inputs)) != len(inputs):
            raise ValueError(f"expected the names of different inputs to join, found {inputs}")
        for name, seconds in (("within", within), ("wait", wait)):
            if not isinstance(seconds, Real):
                raise TypeError(f"`{name}` must be a number of seconds, not {seconds!r:.80}")
            if not (seconds >= 0 and math.isfinite(seconds)):
                raise ValueError(f"invalid `{name}` of {seconds} seconds; it must be zero or more")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "within", within)
        object.__setattr__(self, "wait", wait)


class NothingYet(LookupError):
    """A queue of samples has neither a sample nor another event."""


class SampleQueue:
    """Takes events, and returns them with samples in place of the messages of joined inputs."""

    def __init__(self, join: Join, backend: Backend, prefix: str = "") -> None:
        """``prefix``: of the names of inputs in the dataflow, for the ports of an operator."""
        declared = [one.id for one in backend.config.inputs if one.id.startswith(prefix)]
        for name in join.inputs:
            if declared and prefix + name not in declared:
                known = ", ".join(one.removeprefix(prefix) for one in declared)
                raise ValueError(f"joined input `{name}` does not exist; inputs: {known}")
        self.join = join
        self._backend = backend
        self._prefix = prefix
        within, wait = round(join.within * 1e9), round(join.wait * 1e9)
        self._joiner = Joiner[InputEvent](join.inputs, within=within, wait=wait)
        self._counted = dict(self._joiner.dropped)
        self._others: deque[Event | None] = deque()
        """Events that follow the samples that are complete."""
        self._monotonic = True
        """Whether capture times are CLOCK_MONOTONIC; in tests they come from the metadata."""
        self._failures = 0
        """Messages of the first input without a sample since the last sample."""
        self._stopped = False
        self._warned: set[tuple[str, str]] = set()
        """Warnings that were logged, as pairs of an input and a remedy."""
        backend.correct_times(prefix + name for name in join.inputs)

    def put(self, event: Event | None) -> None:
        """Add an event of the node; None: the end of the stream."""
        kind = None if event is None else event.get("type")
        if event is None or kind == "STOP":
            self._joiner.end(*self.join.inputs)
            self._stopped = True
        elif event.get("id") in self.join.inputs:
            name = event["id"]
            if kind == "INPUT":
                self._add(name, event)
                return
            if kind in ("INPUT_CLOSED", "INPUT_ENDED"):
                self._joiner.end(name)
            elif kind == "INPUT_RECOVERED":
                self._joiner.continues(name)
        self._others.append(event)

    def _add(self, name: str, event: Event) -> None:
        message = from_dict(event)
        assert isinstance(message, InputEvent)
        now = self._backend.clock_ns()
        if has_unusable_stamp(message.metadata):
            self._warn_of_stamp(name, message.metadata["stamp"])
        captured = event.get("captured_ns")
        self._monotonic = captured is not None
        if captured is None:
            captured = captured_ns(message.metadata)
        if captured is None:  # only in tests
            raise ValueError(
                f"a message of input `{name}` has no time; give it a `stamp` in its metadata, in"
                " nanoseconds, seconds or as a datetime"
            )
        self._joiner.add(name, captured, message, now)

    def _warn_of_stamp(self, name: str, stamp: object) -> None:
        """Warn once for each input."""
        remedy = "send nanoseconds, seconds or a datetime"
        if (name, remedy) not in self._warned:
            self._warned.add((name, remedy))
            self._backend.warn(
                f"joined: the `stamp` of a message of input `{name}` is {stamp!r:.80}, which is not"
                f" a time; {remedy}; until then the time of the send counts"
            )

    def take(self) -> Sample | Event | None:
        """Return the next sample or event, None at the end. Raises NothingYet."""
        match = self._joiner.next(self._backend.clock_ns())
        self._count()
        if match is not None:
            self._failures = 0
            return self._sample(match)
        if not self._others:
            raise NothingYet
        return self._others.popleft()

    def seconds_left(self) -> float | None:
        """Return when `take` may have a sample although nothing arrives; None: never."""
        due = self._joiner.due
        return None if due is None else max(0, due - self._backend.clock_ns()) / 1e9

    def _sample(self, match: Match[InputEvent]) -> Sample:
        begin = time.time_ns() - time.monotonic_ns() if self._monotonic else 0
        return Sample(match.items, utc_datetime(match.time + begin), match.spread / 1e9)

    def _count(self) -> None:
        for name, dropped in self._joiner.dropped.items():
            if more := dropped - self._counted[name]:
                self._counted[name] = dropped
                self._backend.count_unmatched(self._prefix + name, more)
                if name == self._joiner.leader:
                    self._failures += more
        missing = self._joiner.missing
        if self._failures >= _FAILURES_TO_WARN and missing is not None and not self._stopped:
            self._warn(missing)

    def _warn(self, missing: Missing) -> None:
        """Warn of an input that keeps samples from being complete, once for each remedy."""
        problem, remedy = self._problem(missing)
        if (missing.name, remedy) in self._warned:
            return
        self._warned.add((missing.name, remedy))
        self._backend.warn(
            f"joined: {self._failures} messages of input `{self._joiner.leader}` have no message of"
            f" input `{missing.name}` within {self.join.within:g} s: {problem}; {remedy}"
        )

    def _problem(self, missing: Missing) -> tuple[str, str]:
        """Return why an input has no match, and what to do."""
        distance = missing.distance
        if missing.ended:
            return "it is closed", "look for the end of its sender with `dora why`"
        if distance is None or missing.silent >= (self.join.wait + self.join.within) * 1e9:
            silence = f"it has received nothing for {missing.silent / 1e9:.3g} s"
            return silence, "look for its sender with `dora why` and `dora topic hz`"
        if abs(distance) <= self.join.within * 1e9:
            return "it arrives too late", "raise `wait`"
        side = "after" if distance > 0 else "before"
        return (
            f"the nearest one was captured {abs(distance) / 1e9:.3g} s {side} it",
            "raise `within`, or correct the `stamp` in the metadata of one of them",
        )


_FAILURES_TO_WARN = 20
"""Messages without a match after which a warning names the input."""


class _Node(Protocol):
    def next(self, timeout: float | None = None) -> Event | None: ...

    async def recv_async(self, timeout: float | None = None) -> Event | None: ...  # noqa: ASYNC109


class JoinedEvents:
    """The events of a node with samples; see `Node.joined`."""

    def __init__(self, node: _Node, samples: SampleQueue) -> None:
        self._node = node
        self._queue = samples

    def next(self, timeout: float | None = None) -> Sample | Event | None:
        """Wait for the next sample or event, as `Node.next` does."""
        deadline = None if timeout is None else time.monotonic() + check_timeout(timeout)
        while True:
            try:
                return self._queue.take()
            except NothingYet:
                event = self._node.next(self._patience(deadline))
            if not isinstance(event, TimedOut):
                self._queue.put(event)
            elif deadline is not None and time.monotonic() >= deadline:
                return timed_out(timeout or 0.0)

    async def recv_async(self, timeout: float | None = None) -> Sample | Event | None:  # noqa: ASYNC109
        """Do what `next` does, inside asyncio. Cancelling it loses no event."""
        deadline = None if timeout is None else time.monotonic() + check_timeout(timeout)
        while True:
            try:
                return self._queue.take()
            except NothingYet:
                event = await self._node.recv_async(self._patience(deadline))
            if not isinstance(event, TimedOut):
                self._queue.put(event)
            elif deadline is not None and time.monotonic() >= deadline:
                return timed_out(timeout or 0.0)

    def _patience(self, deadline: float | None) -> float | None:
        left = [] if deadline is None else [max(0.0, deadline - time.monotonic())]
        due = self._queue.seconds_left()
        return min(left if due is None else [*left, due], default=None)

    def __iter__(self) -> JoinedEvents:
        return self

    def __next__(self) -> Sample | Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> JoinedEvents:
        return self

    async def __anext__(self) -> Sample | Event:
        event = await self.recv_async()
        if event is None:
            raise StopAsyncIteration
        return event

    def events(self) -> EventStream:
        """Return the same stream as typed events, for `for` and `async for`."""
        return EventStream(self)
