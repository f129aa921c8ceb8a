"""Log streams to the coordinator: how they end."""

from __future__ import annotations

from pathlib import Path

import anyio
from support.simulation.fleet_simulation import dataflow

from dora_config.protocol.daemon import LogChunk, StreamLogs
from dora_daemon.agent.logs.streams import LogStreams
from dora_daemon.agent.records import PartRecord

FLOW = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def test_a_folder_that_cannot_be_read_has_no_log(tmp_path: Path) -> None:
    """Its name is too long, so looking at it is an error."""
    part = PartRecord(
        dataflow_id=FLOW, attempt=1, spec=dataflow(), log_dirs={"a": str(tmp_path / ("x" * 300))}
    )
    sent: list[LogChunk] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            streams = LogStreams(tasks, sent.append, lambda dataflow: False)
            streams.open(part, StreamLogs(stream=1, dataflow_id=FLOW, nodes=("a",)))

    anyio.run(main)
    (chunk,) = sent
    assert chunk.done
    assert chunk.missing == ("a",)
    assert chunk.problem is not None
