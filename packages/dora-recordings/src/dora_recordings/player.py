"""Player: a node that sends the messages of a recorded node (``python -m`` this module)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from dora_node_api import Node
from dora_node_api.data.metadata import decode_metadata, move_times
from dora_recordings.arrow_messages import RecordedMessage, decode
from dora_recordings.reading import Recording, merged


def main() -> None:
    """Send until the recording or the dataflow ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--node", required=True)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--end", type=int)
    parser.add_argument("--loop", action="store_true")
    given = parser.parse_args()
    recordings = [Recording(path) for path in given.files]
    with Node() as node:
        player = Player(node, given.speed)
        while True:
            end = given.start
            messages = merged(recordings, None, given.start, given.end)
            for message in messages:
                end = message.log_time
                if message.topic.partition("/")[0] == given.node and not player.play(
                    message, given.start
                ):
                    return
            if not given.loop:
                return
            player.begin_again(end - given.start)


class Player:
    """Sends messages at their times."""

    def __init__(self, node: Node, speed: float) -> None:
        self._node = node
        self._speed = speed
        self._started = time.monotonic()

    def begin_again(self, length: int) -> None:
        """Wait, with the next message, for the end of this pass over ``length`` nanoseconds."""
        if self._speed:
            self._started += length / 1e9 / self._speed

    def play(self, message: RecordedMessage, start: int) -> bool:
        """Send a message at its time; return False if the dataflow stops."""
        due = 0.0
        if self._speed:
            due = self._started + (message.log_time - start) / 1e9 / self._speed
        if self._stopped_before(due):
            return False
        array, encoded = decode(message.schema, message.data)
        output = message.topic.partition("/")[2]
        metadata = decode_metadata(encoded)
        # keep the age of the message, for nodes that compare capture times
        move_times(metadata, time.time_ns() - message.publish_time)
        self._node.send_output(output, array, metadata)
        return True

    def _stopped_before(self, due: float) -> bool:
        return any(event == "STOP" for event in self._events_before(due))

    def _events_before(self, due: float) -> Iterator[str]:
        while True:
            event = self._node.next(timeout=max(0.0, due - time.monotonic()))
            if event is None:
                return
            yield event["type"]
            if time.monotonic() >= due:
                return


if __name__ == "__main__":
    main()
