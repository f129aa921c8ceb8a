"""``python -m dora_daemon.inspection``: inspector process of one stream, see ``side_process``.

A byte on standard input requests another chunk.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.inspection.inspector import Inspector
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.inspection.side_process import prepare, write_line


def main() -> None:
    socket, request = prepare(StreamTopics)
    with suppress(BrokenPipeError):  # the daemon has ended
        problem = _inspect(socket, request)
        write_line(TopicChunk(stream=request.stream, done=True, problem=problem))


def _inspect(socket: Path, request: StreamTopics) -> str | None:
    """Return the error, None when the runner or the stream has ended."""
    try:
        runner = InspectorConnection(socket, request.dataflow_id, request.topics)
        Inspector(runner, request, write_line).run(0)
    except InspectionError as error:
        return str(error)
    except RunnerDisconnected:
        pass
    return None


if __name__ == "__main__":
    main()
