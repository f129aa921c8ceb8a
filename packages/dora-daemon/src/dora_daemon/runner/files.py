"""Files that the runner keeps up to date in its runtime directory."""

from __future__ import annotations

import os
from collections.abc import Callable

from dora_config.protocol.run_plan import RunPlan
from dora_daemon import __version__
from dora_daemon.process_tree.runner_index import PORT_VARIABLE, IndexEntry
from dora_daemon.process_tree.runtime_dir import RuntimeDir, own_identity
from dora_daemon.runner.nodes.local_nodes import LocalNodes


def _daemon_port() -> int | None:
    text = os.environ.get(PORT_VARIABLE, "")
    return int(text) if text.isdecimal() else None


class RunnerFiles:
    """The index, by which nodes and daemons find this runner, and the record of processes."""

    def __init__(
        self,
        directory: RuntimeDir,
        plan: RunPlan,
        nodes: LocalNodes,
        *,
        foreground: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._nodes = nodes
        self._foreground = foreground
        self._warn = warn
        self._warned = False

    def write_index(self) -> None:
        """Write the index; call this when nodes have been added or removed."""
        pid, started, boot = own_identity()
        specs = self._nodes.specs()
        entry = IndexEntry(
            dataflow_id=self._plan.dataflow_id,
            name=self._plan.name,
            nodes=tuple(self._nodes),
            dynamic_nodes=tuple(spec.id for spec in specs if spec.is_dynamic),
            pid=pid,
            start_time=started,
            boot_id=boot,
            foreground=self._foreground,
            machine_id=self._plan.machine_id,
            version=__version__,
            whole=self._plan.whole,
            daemon_port=None if self._foreground else _daemon_port(),
        )
        try:
            self._directory.write_index(entry)
        except OSError as error:
            self._warn(f"cannot write the index in {self._directory.path}: {error}")

    def record_process(self, pid: int) -> None:
        """Record a process to be killed if the runner is killed."""
        self._record(lambda: self._directory.record_process(pid))

    def record_mark(self, mark: str) -> None:
        """Record the mark in the environment of all processes."""
        self._record(lambda: self._directory.record_mark(mark))

    def _record(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            # nodes still end with the runner; only their children could survive its SIGKILL
            if not self._warned:
                self._warned = True
                self._warn(f"cannot record processes in {self._directory.path}: {error}")
