"""Log files of this machine, by dataflow and node.

A node writes `<working directory>/out/<dataflow id>/log_<node>.jsonl`; older parts end in `.1`,
`.2` and so on. The working directory is that of the dataflow file, or the clone of the node below
`git/`.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_cli.logs.log_lines import LogEntry, parse_log_line
from dora_config import DoraError
from dora_config.ids import file_stem
from dora_daemon.agent.logs.files import NodeLogReader

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_LOG = re.compile(r"log_(?P<node>.+)\.jsonl(?:\.(?P<part>\d+))?")


class NoSuchLogs(DoraError):
    """No log files match the request."""


@dataclass(frozen=True, slots=True)
class NodeLogs:
    """Files of one node, oldest part first; the last one may grow."""

    node: str
    """Id as in the file name, where long ids are shortened."""
    parts: list[Path]

    @property
    def current(self) -> Path:
        return self.parts[-1]

    def entries(self, *, rotated_only: bool = False) -> Iterator[LogEntry]:
        """Yield the entries, oldest first; ignores malformed lines."""
        for path in self.parts[:-1] if rotated_only else self.parts:
            try:
                with path.open(encoding="utf-8", errors="replace") as file:
                    yield from filter(None, map(parse_log_line, file))
            except FileNotFoundError:
                continue  # rotated meanwhile


def out_dirs(base: Path) -> list[Path]:
    """Return the log folders below `base`: its `out` and those of its clones."""
    found = [base / "out"]
    for directory, names, _ in os.walk(base / "git"):
        if _COMMIT.fullmatch(Path(directory).name):
            names.clear()
            found.append(Path(directory) / "out")
    return [path for path in found if path.is_dir()]


def dataflows(base: Path) -> list[str]:
    """Return the ids of dataflows with logs, most recently written first."""
    newest: dict[str, float] = {}
    for out in out_dirs(base):
        for directory in out.iterdir():
            files = list(directory.glob("log_*.jsonl")) if _ID.fullmatch(directory.name) else []
            for file in files:
                written = file.stat().st_mtime
                newest[directory.name] = max(newest.get(directory.name, 0.0), written)
    return sorted(newest, key=lambda name: newest[name], reverse=True)


def choose_dataflow(base: Path, wanted: str | None) -> str:
    """Return the id that starts with `wanted` (None: the newest).

    Raises NoSuchLogs if none or several match.
    """
    known = dataflows(base)
    if not known:
        raise NoSuchLogs(f"no logs of dataflows in {base / 'out'}")
    if wanted is None:
        return known[0]
    matching = [name for name in known if name.startswith(wanted.lower())]
    if len(matching) == 1:
        return matching[0]
    listing = "\n".join(f"  {name}" for name in (matching or known)[:10])
    what = f"several dataflows start with {wanted}" if matching else f"no logs of {wanted} here"
    raise NoSuchLogs(f"{what}; dataflows with logs, newest first:\n{listing}")


def node_logs(base: Path, dataflow: str) -> list[NodeLogs]:
    """Return the log files of each node of a dataflow, nodes in alphabetical order."""
    numbered: dict[str, list[tuple[int, Path]]] = {}
    for out in out_dirs(base):
        for path in (out / dataflow).glob("log_*.jsonl*"):
            if match := _LOG.fullmatch(path.name):
                numbered.setdefault(match["node"], []).append((int(match["part"] or 0), path))
    return [
        NodeLogs(node, [path for _, path in sorted(parts, key=lambda p: p[0], reverse=True)])
        for node, parts in sorted(numbered.items())
    ]


def select_nodes(logs: Sequence[NodeLogs], node: str | None) -> list[NodeLogs]:
    """Return the logs of one node (None: all); raises NoSuchLogs."""
    if node is None:
        return list(logs)
    chosen = [one for one in logs if one.node == file_stem(node)]
    if not chosen:
        known = ", ".join(one.node for one in logs) or "none"
        raise NoSuchLogs(f'no log file of node "{node}"; nodes with logs: {known}')
    return chosen


def merged(logs: Sequence[NodeLogs]) -> Iterator[LogEntry]:
    """Return the entries of several nodes by time."""
    return heapq.merge(*(one.entries() for one in logs), key=lambda entry: entry.time)


class Follower:
    """Reads entries that are appended to log files, across rotations; polled by the caller."""

    def __init__(self, base: Path, dataflow: str, node: str | None) -> None:
        self._base = base
        self._dataflow = dataflow
        self._node = None if node is None else file_stem(node)
        self._files: dict[Path, NodeLogReader] = {}

    def rotated_entries(self) -> list[LogEntry]:
        """Return the entries in parts that no longer grow."""
        return [entry for one in self._logs() for entry in one.entries(rotated_only=True)]

    def new_entries(self) -> list[LogEntry]:
        """Return the entries since the last call, by time."""
        found: list[LogEntry] = []
        for one in self._logs():
            log = self._files.setdefault(one.current, NodeLogReader(one.current))
            found += filter(None, (parse_log_line(line.text) for line in log.new_lines()))
        return sorted(found, key=lambda entry: entry.time)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _logs(self) -> list[NodeLogs]:
        logs = node_logs(self._base, self._dataflow)
        return [one for one in logs if self._node in (None, one.node)]
