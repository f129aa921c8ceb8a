"""Programs that a plug-in starts beside a dataflow: entry point `recorder`, `dora.side_programs`.

The class of the entry point is called with the arguments of :func:`start_recorders`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anyio.abc import TaskGroup

from dora_config import plugins
from dora_config.access import Endpoint
from dora_config.plugins import PluginError
from dora_config.protocol.daemon import HeartbeatAck
from dora_config.protocol.recordings import (
    ListRecordings,
    RecorderReply,
    RecorderRequest,
    RecordingStates,
)
from dora_daemon.agent.events import RecorderSettled, RecordingRequested
from dora_daemon.agent.records import PartRecord

logger = logging.getLogger("dora.daemon")

Post = Callable[[RecorderSettled | RecordingRequested], None]


class SidePrograms(Protocol):
    """Records dataflows of this machine."""

    def dataflows(self) -> set[str]:
        """Return the dataflows with a recording that has not ended."""

    def start(self, record: PartRecord, *, new_attempt: bool) -> None:
        """Start the recorders of a part; then post ``RecorderSettled``."""

    async def call(self, request: RecorderRequest) -> RecorderReply:
        """Fulfill a request about recordings. Raises DoraError."""

    def acknowledged(self, ack: HeartbeatAck) -> None:
        """Take a measurement of the coordinator's clock."""


@dataclass(frozen=True, slots=True)
class NoRecorders:
    """Starts nothing, and refuses requests with the reason."""

    _reason: str
    _post: Post

    def dataflows(self) -> set[str]:
        return set()

    def start(self, record: PartRecord, *, new_attempt: bool) -> None:
        if record.spec.recording is not None:
            logger.error("cannot record: %s", self._reason)
        self._post(RecorderSettled(record.dataflow_id))

    async def call(self, request: RecorderRequest) -> RecorderReply:
        is_missing = not plugins.installed().names("dora.side_programs")
        if isinstance(request, ListRecordings) and is_missing:
            return RecordingStates()  # this machine never records; the others may
        raise PluginError(self._reason)

    def acknowledged(self, ack: HeartbeatAck) -> None:
        pass


def start_recorders(
    tasks: TaskGroup,
    root: Path,
    machine: str,
    endpoint: Callable[[], Endpoint],
    is_live: Callable[[str], bool],
    post: Post,
) -> SidePrograms:
    """Return the recorders of the plug-in, or a substitute that refuses requests.

    ``root`` is their folder; ``is_live`` returns whether a dataflow runs here.
    """
    try:
        create = plugins.load("dora.side_programs", "recorder")
    except PluginError as error:
        return NoRecorders(str(error), post)
    recorders: SidePrograms = create(tasks, root, machine, endpoint, is_live, post)
    return recorders
