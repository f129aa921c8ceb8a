"""Collects the contents of an archive: from a coordinator, or from the files of a local run."""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.logs.files import LocalLog, RecordedRun
from dora_cli.why.archive import MAX_LOG_LINES, Report, own_versions
from dora_cli.why.local import read_machines
from dora_config import DoraError
from dora_config.history.entries import RunBegan
from dora_config.history.evidence import Evidence
from dora_config.history.explain import explain
from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    ControlProgress,
    DataflowRef,
    Described,
    DescribeDataflow,
    Explained,
    GetSnapshot,
    LogLines,
    LogsEnd,
    ReadLogs,
)
from dora_config.protocol.dataflow import LogFilter
from dora_config.protocol.snapshot import REUSED_SECONDS, Snapshot


def remote_report(client: Client, answer: Explained, seconds: float) -> Report:
    """Return what a coordinator and its daemons have; ``seconds``: time span of the logs."""
    assert answer.evidence is not None, "requested with it"
    explained = answer.explanation
    report = Report(explained, answer.evidence)
    cluster = client.request(ClusterStatus(), ClusterReport)
    report.versions = {
        **own_versions(),
        "coordinator": str(cluster.coordinator),
        "daemons": {one.daemon: one.release for one in cluster.machines},
        "runners": {one.daemon: list(one.runners) for one in cluster.machines},
    }
    if explained.uuid:
        ref = DataflowRef(uuid=explained.uuid)
        report.metrics = _snapshots(client, ref, twice=not answer.evidence.ended)
        described = client.request(DescribeDataflow(dataflow=ref), Described)
        spec = described.spec
        report.descriptor = {
            "dataflow": spec.descriptor,
            "env_overrides": spec.env_overrides,
            "params": spec.params,
            "daemons": described.daemons,
        }
        report.variables = spec.env_overrides
        report.logs = _remote_logs(client, ref, report.last_event() - seconds)
    return report


def _snapshots(client: Client, ref: DataflowRef, *, twice: bool) -> list[Any]:
    """Return machines, nodes and edges; ``twice``: also a moment later, for rates."""
    found = [client.request(GetSnapshot(dataflow=ref), Snapshot).model_dump(mode="json")]
    if twice:
        time.sleep(2 * REUSED_SECONDS)
        found.append(client.request(GetSnapshot(dataflow=ref), Snapshot).model_dump(mode="json"))
    return found


def _remote_logs(client: Client, ref: DataflowRef, since: float) -> dict[str, list[str]]:
    found: dict[str, deque[str]] = {}

    def receive(progress: ControlProgress) -> None:
        if isinstance(progress, LogLines):
            kept = found.setdefault(progress.daemon, deque(maxlen=MAX_LOG_LINES))
            kept.extend(progress.lines)

    wanted = LogFilter(since=since, tail=MAX_LOG_LINES)
    try:
        end = client.request(ReadLogs(dataflow=ref, filter=wanted), LogsEnd, receive)
    except RequestFailed as error:
        return {"": [f"the logs could not be read: {error}"]}
    logs = {machine: list(lines) for machine, lines in found.items()}
    if end.problems:
        logs["problems"] = list(end.problems)
    return logs


def local_report(base: Path, run: RecordedRun, known: Evidence, seconds: float) -> Report:
    """Return what the files of a run below ``base`` contain."""
    report = Report(explain(known), known, _matching_dataflow(base, run))
    events = [one.event for entries, _ in read_machines(run).values() for one in entries]
    report.versions = {
        **own_versions(),
        "runners": sorted({one.version for one in events if isinstance(one, RunBegan)}),
    }
    wanted = LogFilter(since=report.last_event() - seconds, tail=MAX_LOG_LINES)
    with closing(LocalLog(base, run.dataflow, wanted)) as log:
        report.logs = {"": list(log.new_lines())}
    return report


def _matching_dataflow(base: Path, run: RecordedRun) -> dict[str, Any] | None:
    """Return the dataflow file in ``base`` that has the nodes of a run; None if no file has."""
    from dora_config import load_dataflow

    events = [one.event for entries, _ in read_machines(run).values() for one in entries]
    nodes = {node for one in events if isinstance(one, RunBegan) for node in one.nodes}
    for path in sorted([*base.glob("*.yml"), *base.glob("*.yaml")]):
        try:
            loaded = load_dataflow(path)
        except (DoraError, OSError):
            continue
        if {node.id for node in loaded.resolved.nodes} == nodes:
            return {"file": path.name, "dataflow": loaded.descriptor_dict}
    return None
