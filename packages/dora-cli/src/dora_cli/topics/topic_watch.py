"""News of outputs that are watched through the coordinator, as they come.

Each piece is asked for when the last was shown, so that a slow terminal gets the newest messages
and makes nobody else keep the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from dora_cli import output
from dora_cli.coordinator.client import Client, ConnectionLost, RequestFailed
from dora_cli.errors import CommandFailed
from dora_config.protocol.control import Answer, Failure, Progress, WatchTopics
from dora_config.protocol.topics import TopicsEnd, TopicUpdate, WatchedTopics

BEGIN_WITHIN = 10.0
"""Seconds that the first news may take before a duration counts all the same."""
HINT_AFTER = 5.0
"""Seconds without a message until a word about that."""
DROPS_EVERY = 5.0
"""Seconds between two remarks about messages that were dropped."""


def watch(
    client: Client, request: WatchTopics, seconds: float | None, *, tick: float
) -> Iterator[TopicUpdate | None]:
    """News until ``seconds`` have passed since the first of them, or the dataflow has ended.

    None at least each ``tick`` seconds. Raises CommandFailed once nothing can come for a reason
    that was told, and what `Client` raises.
    """
    number = client.send(request)
    until = math.inf if seconds is None else time.monotonic() + seconds + BEGIN_WITHIN
    begun = False
    while (left := until - time.monotonic()) > 0:
        frame = client.next_frame(min(left, tick))
        match frame:
            case None:
                yield None
            case Progress(id=of, progress=WatchedTopics(stream=stream, news=news)) if of == number:
                if not begun and seconds is not None:
                    until = time.monotonic() + seconds
                begun = True
                for note in news.notes:
                    output.warn(note)
                yield news
                client.taken(number, stream)
            case Failure(id=of) if of == number:
                raise RequestFailed(frame)
            case Answer(id=of, answer=TopicsEnd(problems=problems)) if of == number:
                _tell_end(problems)
                return
            case Answer(id=of) if of == number:
                raise ConnectionLost(f"the coordinator answered with {frame.answer.kind!r}")


def _tell_end(problems: tuple[str, ...]) -> None:
    for problem in problems:
        output.warn(problem)
    if problems:
        raise CommandFailed
    output.remark("the dataflow has ended")


class Silence:
    """Says once, on standard error, that nothing comes."""

    def __init__(self, names: str) -> None:
        self._names = names
        self._since: float | None = time.monotonic()

    def look(self, *, heard: bool) -> None:
        if heard:
            self._since = None
        elif self._since is not None and time.monotonic() - self._since >= HINT_AFTER:
            self._since = None
            output.remark(
                f"hint: no message of {self._names} for {HINT_AFTER:g} s. Does the node send? "
                "`dora node list` shows whether it runs, `dora topic list` what there is"
            )


class Drops:
    """Counts what was not shown, and says so now and then."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: dict[str, int] = {}
        self._told = now() - DROPS_EVERY

    def add(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        if self._now() - self._told >= DROPS_EVERY:
            self.tell()

    def tell(self) -> None:
        if self._counts:
            many = ", ".join(f"{count} of {name}" for name, count in self._counts.items())
            output.remark(f"not shown: {many} (more came than could be shown)")
            self._counts = {}
            self._told = self._now()
