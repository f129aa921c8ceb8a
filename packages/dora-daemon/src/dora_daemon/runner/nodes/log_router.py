"""Routes log entries to files, the output of `dora run`, and to nodes that read ``dora/logs``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dora_config.dataflow.sources import LogLevel
from dora_config.history.entries import RunnerWarned
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import LogLine, RunnerEvent, RunOutput, passes
from dora_daemon.lifecycle_lines import LifecycleLines
from dora_daemon.runner.logs.history import KeptHistory
from dora_daemon.runner.logs.log_entries import file_line, message_text
from dora_daemon.runner.logs.log_files import LogFile
from dora_daemon.runner.logs.logs import NodeLog, OutputGate, now_text
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.publishing import RunnerOutputs, log_route
from dora_daemon.runner.process.prepare import PreparedNode
from dora_node_api.transport.shared.errors import TransportError


@dataclass(eq=False)
class LogRouter:
    """Router of the log entries of nodes, of their libraries and of the runner."""

    _plan: RunPlan
    _nodes: LocalNodes
    _outputs: RunnerOutputs
    _on_event: Callable[[RunOutput], None]
    history: KeptHistory
    _file: LogFile
    """Log of dora itself, for entries that belong to no node."""
    gate: OutputGate | None = None
    """Holds back the output of nodes while ``on_event`` is overloaded."""
    _lifecycle_lines: LifecycleLines = field(default_factory=LifecycleLines, init=False)
    _warned: bool = False

    def open_log(self, prepared: PreparedNode) -> NodeLog:
        """Create the log of a node with its file, and log warnings about its program."""
        node = prepared.spec.id
        log = self.new_log(prepared)
        log.create_file()
        if self._plan.recovered is not None:
            log.note("warn", f"started again (recovery): {self._plan.recovered}")
        for text in prepared.warnings:
            self.emit("warn", text, about=node)
        return log

    def new_log(self, prepared: PreparedNode) -> NodeLog:
        """Create the log of a node, or of a program that may replace it."""
        spec = prepared.spec
        file = LogFile(
            prepared.log_file, max_size=spec.max_log_size, rotated=spec.max_rotated_files
        )
        return NodeLog(spec, file, self)

    def note(self, event: RunnerEvent) -> None:
        """Keep an event; write restarts and failures of a node into its log file."""
        self.history.note(event)
        line = self._lifecycle_lines.line(event)
        if line is not None and (node := self._nodes.get(line.node)) is not None:
            node.log.note(line.level, line.message)

    def warn(self, message: str) -> None:
        """Log a warning of the runner."""
        self.emit("warn", message)

    def warn_in_node_log(self, node: str, message: str) -> None:
        """Log a warning as an entry of a node, whose log file is kept after the runner's end."""
        known = node if node in self._nodes else None
        self.history.add(RunnerWarned(level="warn", text=message, node=known))
        self.log(LogLine(ts=now_text(), level="warn", node=known, message=message))

    def emit(self, level: LogLevel, message: str, about: str | None = None) -> None:
        """Log a line of the runner; ``about`` is the node that the line names."""
        if level in ("warn", "error"):
            self.history.add(RunnerWarned(level=level, text=message, node=about))
        text = message if about is None else f'node "{about}": {message}'
        self.log(LogLine(ts=now_text(), level=level, message=text, target="dora.runner"))

    def log(self, entry: LogLine) -> None:
        """Log an entry of the runner or of a node's library, not one that a node printed."""
        if entry.node is not None and (node := self._nodes.get(entry.node)) is not None:
            node.log.log(entry)
            return
        if (problem := self._file.write([file_line(entry)])) is not None:
            self.warn(problem)
        self.show(entry)
        self.to_subscribers(entry)

    def show(self, entry: LogLine) -> bool:
        """Pass on an entry if its level is shown; return whether it is."""
        settings = self._plan.logs
        shown = passes(entry.level, settings.per_node.get(entry.node or "", settings.level))
        if shown:
            self._on_event(entry)
        return shown

    def forward(self, readers: tuple[tuple[str, str], ...], text: str) -> None:
        """Send a log line of another machine to these inputs."""
        for node, name in readers:
            self.send(log_route(node, name), text)

    def to_subscribers(self, entry: LogLine) -> None:
        """Send an entry to the inputs that read its node and level."""
        for queue in self._outputs.log_queues.values():
            edge, source = queue.edge, queue.log_source
            if source is None or edge.target == entry.node:
                continue
            if source.node in (None, entry.node) and passes(entry.level, source.level):
                self.send(log_route(edge.target, edge.input), self.message_text(entry))

    def message_text(self, entry: LogLine) -> str:
        """Return the text of an entry on ``dora/logs`` and ``send_logs_as``."""
        return message_text(
            entry,
            dataflow_id=self._plan.dataflow_id,
            daemon_id=self._plan.daemon_id,
            build_id=self._plan.build_id,
        )

    def send(self, output: str, text: str) -> None:
        """Send on an output of the runner or, on behalf of a node, of the node."""
        try:
            self._outputs.send_text(output, text)
        except (TransportError, OSError) as error:
            if not self._warned:
                self._warned = True
                self.warn(f"cannot send log lines as samples: {error}")
