"""Messages of a recording; needs dora-recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dora_node_api.data.metadata import move_times
from dora_node_api.protocol import lockstep as wire
from dora_testing.errors import FlowError
from dora_testing.sources import Emission, Source


def from_recording(file: Path | str, *, node: str | None = None, ends: bool = False) -> Source:
    """Send what a node sent in a recording of `dora record`, at the times of its messages.

    Times count from the first message of the recording, of any node. A relative path counts from
    the current folder, not from that of the test.

    `node`: its id in the recording, if that is another one.
    """

    def emissions(replaced: str, outputs: tuple[str, ...]) -> Iterator[Emission]:
        try:
            from dora_recordings.reading import UnreadableRecording
            from dora_recordings.received import Recorded
        except ImportError:
            raise FlowError("recordings need the wheel dora-recordings; install it") from None
        topics = {f"{node or replaced}/{output}": output for output in outputs}
        try:
            recorded = Recorded([file])
            for message in recorded.messages(topics):
                sent, after = message.publish_time, message.log_time - recorded.first.log_time
                # Keeps the age of the message, for nodes that compare capture times.
                move_times(message.metadata, wire.wall_ns(wire.START_NS) + after - sent)
                yield Emission(after, topics[message.output], message.value, message.metadata)
        except UnreadableRecording as error:
            raise FlowError(str(error)) from None

    return Source(emissions, ends)
