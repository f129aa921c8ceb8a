"""Messages of a recording; needs dora-recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dora_node_api.data.metadata import decode_metadata, move_times
from dora_node_api.protocol import lockstep as wire
from dora_testing.errors import FlowError
from dora_testing.sources import Emission, Source


def from_recording(file: Path | str, *, node: str | None = None, ends: bool = False) -> Source:
    """Send what a node sent in a recording of `dora record`, at the times of its messages.

    `node`: its id in the recording, if that is another one.
    """

    def emissions(replaced: str, outputs: tuple[str, ...]) -> Iterator[Emission]:
        return _recorded(Path(file), node or replaced, outputs)

    return Source(emissions, ends)


def _recorded(file: Path, node: str, outputs: tuple[str, ...]) -> Iterator[Emission]:
    """Yield the messages that a node has sent on these outputs, in order of time.

    Times count from the first message of the recording, of any node. Raises FlowError.
    """
    try:
        from dora_recordings.arrow_messages import decode
        from dora_recordings.reading import Recording, UnreadableRecording
    except ImportError:
        raise FlowError("recordings need the wheel dora-recordings; install it") from None
    try:
        recording = Recording(file)
    except OSError as error:
        raise FlowError(f"{file}: {error.strerror}") from None
    except UnreadableRecording as error:
        raise FlowError(f"{file}: {error}") from None
    first = next(recording.messages(), None)
    topics = {f"{node}/{output}": output for output in outputs}
    for message in recording.messages(topics):
        assert first is not None
        array, encoded = decode(message.schema, message.data)
        metadata = decode_metadata(encoded)
        after = message.log_time - first.log_time
        # as old as when it was recorded, for nodes that compare times of captures
        move_times(metadata, wire.wall_ns(wire.START_NS) + after - message.publish_time)
        yield Emission(after, topics[message.topic], array, metadata)
