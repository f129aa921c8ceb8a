"""Stream of updates about watched outputs.

The client acknowledges each update after it was shown. The coordinator sends the next one then, so
a slow terminal gets the newest messages and the rest is not stored anywhere.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator

from dora_cli import output
from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import CoordinatorLost
from dora_cli.coordinator.stream_socket import request_failed
from dora_cli.errors import CommandFailed
from dora_config.protocol.control import Answer, Failure, Progress, WatchTopics
from dora_config.protocol.envelope import clean_text
from dora_config.protocol.topics import TopicsEnd, TopicUpdate, WatchedTopics

BEGIN_WITHIN = 10.0
"""Seconds to wait for the first update before the duration starts anyway."""
HINT_AFTER = 5.0
"""Seconds without a message before a hint is printed."""
DROPS_EVERY = 5.0
"""Seconds between two remarks about messages that were not shown."""


def message_row(text: str) -> str:
    """Return output, data and metadata of a message that arrived as JSON, on one line."""
    message = json.loads(text)

    def shown(value: object) -> str:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return clean_text(text, limit=len(text))

    row = f"{message['name']}\t data={shown(message['data'])} metadata={shown(message['metadata'])}"
    facts = message.get("shortened")
    if facts is None:
        return row
    return f"{row} (shortened: {', '.join(f'{name} {value}' for name, value in facts.items())})"


def watch(
    client: Client, request: WatchTopics, seconds: float | None, *, tick: float
) -> Iterator[TopicUpdate | None]:
    """Yield updates for ``seconds`` from the first one, or until the dataflow has ended.

    Yields None at least every ``tick`` seconds. Raises CommandFailed when the coordinator reported
    why no more updates can come, and what `Client` raises.
    """
    number = client.streams.send(request)
    until = math.inf if seconds is None else time.monotonic() + seconds + BEGIN_WITHIN
    begun = False
    while (left := until - time.monotonic()) > 0:
        frame = client.streams.next_frame(min(left, tick))
        match frame:
            case None:
                yield None
            case Progress(id=of, progress=WatchedTopics() as watched) if of == number:
                update = watched.update
                if not begun and seconds is not None:
                    until = time.monotonic() + seconds
                begun = True
                for note in update.notes:
                    output.warn(note)
                yield update
                client.streams.acknowledge(number, watched.stream)
            case Failure(id=of) if of == number:
                raise request_failed(frame)
            case Answer(id=of, answer=TopicsEnd(problems=problems)) if of == number:
                _report_end(problems)
                return
            case Answer(id=of) if of == number:
                raise CoordinatorLost(f"unexpected answer {frame.answer.kind!r} of the coordinator")


def _report_end(problems: tuple[str, ...]) -> None:
    for problem in problems:
        output.warn(problem)
    if problems:
        raise CommandFailed
    output.remark("the dataflow has ended")


class SilenceHint:
    """Prints one hint when no message arrives for some time."""

    def __init__(self, names: str) -> None:
        self._names = names
        self._since: float | None = time.monotonic()

    def update(self, *, received: bool) -> None:
        """Print the hint if it is due; ``received``: a message has arrived."""
        if received:
            self._since = None
        elif self._since is not None and time.monotonic() - self._since >= HINT_AFTER:
            self._since = None
            output.remark(
                f"hint: no message of {self._names} for {HINT_AFTER:g} s; check with "
                "`dora node list` that the node runs, and the outputs with `dora topic list`"
            )


class DropCounter:
    """Counts messages that were not shown and reports them every few seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: dict[str, int] = {}
        self._reported = now() - DROPS_EVERY

    def add(self, counts: dict[str, int]) -> None:
        """Count messages by output; reports when it is due."""
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        if self._now() - self._reported >= DROPS_EVERY:
            self.report()

    def report(self) -> None:
        """Print the counts since the last report."""
        if self._counts:
            many = ", ".join(f"{count} of {name}" for name, count in self._counts.items())
            output.remark(f"not shown: {many} (messages arrive faster than they can be shown)")
            self._counts = {}
            self._reported = self._now()
