"""``python -m dora_daemon.inspection SOCKET REQUEST``: inspector process of one stream.

A byte on standard input requests another chunk, its end ends the process. Chunks are written to
standard output, a line of JSON each.
"""

from __future__ import annotations

import sys

from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.inspection.inspector import Inspector
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.inspection.side_process import prepare, write_line


def main() -> int:
    """Return the exit code."""
    path, request = sys.argv[1], StreamTopics.model_validate_json(sys.argv[2])
    prepare()
    try:
        problem = _inspect(path, request)
        write_line(TopicChunk(stream=request.stream, done=True, problem=problem))
    except BrokenPipeError:
        pass  # the daemon has ended
    return 0


def _inspect(path: str, request: StreamTopics) -> str | None:
    """Return the error, None when the runner or the stream has ended."""
    try:
        runner = InspectorConnection(path, request.dataflow_id, request.topics)
        Inspector(runner, request, write_line).run(0)
    except InspectionError as error:
        return str(error)
    except RunnerDisconnected:
        pass
    return None


if __name__ == "__main__":
    sys.exit(main())
