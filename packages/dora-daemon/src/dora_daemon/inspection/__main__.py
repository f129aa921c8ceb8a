"""``python -m dora_daemon.inspection SOCKET REQUEST``: be the inspector of one watch.

A byte on standard input asks for another chunk, its end ends the process. Chunks go to standard
output, a line of JSON each.
"""

from __future__ import annotations

import os
import signal
import sys

from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.inspection.inspector import Inspector
from dora_daemon.inspection.runner_side import InspectionError, RunnerGone, RunnerSide

POLITENESS = 5
"""Nodes that need the processor get it first."""


def main() -> int:
    """The exit code."""
    path, request = sys.argv[1], StreamTopics.model_validate_json(sys.argv[2])
    # An interrupt at the daemon's terminal is for the daemon, which ends us by its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(POLITENESS)
    try:
        problem = _watch(path, request)
        _write(TopicChunk(stream=request.stream, done=True, problem=problem))
    except BrokenPipeError:
        pass  # nobody listens any more
    return 0


def _watch(path: str, request: StreamTopics) -> str | None:
    """Why there is nothing to watch, None when the runner has ended or nobody watches."""
    inspector = None
    try:
        runner = RunnerSide(path, request.dataflow_id, request.topics)
        inspector = Inspector(runner, request, _write)
        inspector.run(0)
    except InspectionError as error:
        return str(error)
    except RunnerGone:
        if inspector is not None:
            inspector.finish()
    return None


def _write(chunk: TopicChunk) -> None:
    line = chunk.model_dump_json().encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    sys.exit(main())
