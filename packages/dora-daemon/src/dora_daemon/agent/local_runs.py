"""An agent that adopts the runs of `dora run` on this computer and starts nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from dora_config.access import Endpoint
from dora_config.errors import InvalidId
from dora_config.ids import parse_machine_id
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.agent.events import RunFound
from dora_daemon.agent.node_paths import log_dirs
from dora_daemon.agent.part_files import DaemonFiles
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.service import Agent, AgentOptions
from dora_daemon.out_dir import history_file
from dora_daemon.process_tree.reaper import OWNER
from dora_daemon.process_tree.runtime_dir import PLAN, living_runners, runtime_root
from dora_node_api.protocol.runner_index import IndexEntry

POLL = 0.2
"""Seconds between two searches for runs."""


def local_runs(dataflow: str | None = None) -> list[tuple[Path, IndexEntry]]:
    """Return runtime directory and index of each run, or of the one with this id; blocking."""
    return [
        (directory, entry)
        for directory, entry in living_runners(runtime_root())
        if entry.foreground and dataflow in (None, entry.dataflow_id)
    ]


def record_of(directory: Path, entry: IndexEntry) -> PartRecord | None:
    """Return the record of a run; None if this version cannot read the plan of the run."""
    try:
        plan = RunPlan.model_validate_json((directory / PLAN).read_bytes())
        token = (directory / OWNER).read_text()
        name = plan.name or Path(plan.working_dir).name or None
        own = {"name": name, "exit_when_nodes_finish": False}  # decided by its runner
        spec = DataflowSpec.model_validate(plan.model_copy(update=own), from_attributes=True)
    except (OSError, ValueError):
        return None
    return PartRecord(
        dataflow_id=entry.dataflow_id,
        attempt=1,
        spec=spec,
        borrowed=True,
        runtime_dir=str(directory),
        runtime_token=token,
        log_dirs=log_dirs(plan),
        history_file=str(history_file(plan)),
    )


FindRuns = Callable[[], list[tuple[Path, IndexEntry]]]
"""Returns runtime directory and index of the runs to adopt; may block."""


async def adopt_local_runs(
    folder: Path, reach: Callable[[], Endpoint], find: FindRuns, machine: str | None = None
) -> None:
    """Serve a coordinator until cancelled; the runs continue after that.

    ``folder`` is empty and for this agent only; ``machine``: its machine id, by default the name of
    the host.
    """
    name = machine or socket.gethostname()
    try:
        parse_machine_id(name)
    except InvalidId:
        name = "localhost"
    options = AgentOptions(machine_id=name, labels={}, base_dir=folder)
    agent = Agent(options, DaemonFiles(folder / "daemons" / name), runtime_root(), reach)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.run)
        known = set[str]()
        while True:
            for directory, entry in await anyio.to_thread.run_sync(find):
                if entry.dataflow_id not in known:
                    known.add(entry.dataflow_id)
                    record = await anyio.to_thread.run_sync(record_of, directory, entry)
                    if record is not None:
                        agent.post(RunFound(record))
            await anyio.sleep(POLL)
