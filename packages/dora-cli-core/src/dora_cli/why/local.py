"""Explanations from history files below `./out`, without a coordinator."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from dora_cli.logs.files import RecordedRun, choose_run
from dora_config.disk_space import SPARE_BYTES, free_space
from dora_config.history.entries import HistoryEntry, RunBegan, RunEnded, RunnerDied, split_dropped
from dora_config.history.evidence import Evidence, MachineEvidence
from dora_config.history.file import read_history
from dora_config.protocol.runner_events import DataflowStarted, DataflowStopping
from dora_daemon.process_tree.runtime_dir import living_runners, runtime_root

PREFIX = "history"


def choose_history(base: Path, wanted: str | None) -> RecordedRun:
    """Return the histories of the selected run; raises NoSuchRun."""
    return choose_run(base, wanted, f"{PREFIX}*.jsonl", "history")


def read_machines(run: RecordedRun) -> dict[str, tuple[tuple[HistoryEntry, ...], int]]:
    """Return the events of each machine, and the number of dropped ones.

    The name is empty for a run without a daemon.
    """
    return {
        path.stem.removeprefix(PREFIX).removeprefix("_"): split_dropped(read_history(path))
        for path in run.files
    }


def evidence(run: RecordedRun) -> Evidence:
    """Return the evidence about a run from its files. Raises OSError."""
    now = time.time()
    alive = {
        entry.machine_id or ""
        for _, entry in living_runners(runtime_root())
        if entry.dataflow_id == run.dataflow
    }
    machines = [
        _machine(machine, *saved, run, alive=machine in alive or (not machine and bool(alive)))
        for machine, saved in read_machines(run).items()
    ]
    began = [_began(one.entries) for one in machines]
    edges = dict.fromkeys(edge for one in began if one is not None for edge in one.edges)
    return Evidence(
        uuid=run.dataflow,
        name=next((one.name for one in began if one is not None and one.name), None),
        status=_status([one.entries for one in machines], alive=bool(alive)),
        ended=not alive,
        now=now,
        machines=tuple(machines),
        edges=tuple(edges),
    )


def _machine(
    machine: str,
    entries: tuple[HistoryEntry, ...],
    dropped: int,
    run: RecordedRun,
    *,
    alive: bool,
) -> MachineEvidence:
    began = _began(entries)
    if not alive and entries and not isinstance(entries[-1].event, RunEnded):
        pid = 0 if began is None else began.pid
        entries = (*entries, HistoryEntry(at=run.written, event=RunnerDied(pid=pid)))
    folder = run.files[0].parent
    return MachineEvidence(
        machine=machine,
        entries=entries,
        dropped=dropped,
        node_ids=() if began is None else began.nodes,
        full_disk=str(folder) if free_space(folder) < SPARE_BYTES else None,
    )


def _began(entries: Iterable[HistoryEntry]) -> RunBegan | None:
    """Return the last event `RunBegan`."""
    found = [entry.event for entry in entries if isinstance(entry.event, RunBegan)]
    return found[-1] if found else None


def _status(machines: list[tuple[HistoryEntry, ...]], *, alive: bool) -> str:
    """Return the status as ``dora list`` would show it."""
    if alive:
        kinds = {type(entry.event) for entries in machines for entry in entries}
        if DataflowStopping in kinds:
            return "Stopping"
        return "Running" if DataflowStarted in kinds else "Starting"
    ends = [entries[-1].event for entries in machines if entries]
    return "Finished" if all(isinstance(end, RunEnded) and end.ok for end in ends) else "Failed"
