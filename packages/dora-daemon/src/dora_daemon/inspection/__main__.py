"""``python -m dora_daemon.inspection SOCKET REQUEST``: inspector process of one stream.

A byte on standard input requests another chunk, its end ends the process. Chunks are written to
standard output, a line of JSON each.
"""

from __future__ import annotations

import os
import signal
import sys

from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.inspection.inspector import Inspector
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)

NICENESS = 5
"""Nodes have a higher priority."""


def main() -> int:
    """Return the exit code."""
    path, request = sys.argv[1], StreamTopics.model_validate_json(sys.argv[2])
    # Ctrl-C in the daemon's terminal ends the daemon, and thereby the standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    try:
        problem = _inspect(path, request)
        _write(TopicChunk(stream=request.stream, done=True, problem=problem))
    except BrokenPipeError:
        pass  # the daemon has ended
    return 0


def _inspect(path: str, request: StreamTopics) -> str | None:
    """Return the error, None when the runner or the stream has ended."""
    inspector = None
    try:
        runner = InspectorConnection(path, request.dataflow_id, request.topics)
        inspector = Inspector(runner, request, _write)
        inspector.run(0)
    except InspectionError as error:
        return str(error)
    except RunnerDisconnected:
        if inspector is not None:
            inspector.finish()
    return None


def _write(chunk: TopicChunk) -> None:
    line = chunk.model_dump_json().encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    sys.exit(main())
