"""Log files of this machine: which dataflows and nodes have some, and their entries in order.

A node writes `<its working directory>/out/<dataflow id>/log_<node>.jsonl`, older parts end in
`.1`, `.2` and so on. The working directory is that of the dataflow file, or the node's clone below
`git/`.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dora_cli.logs.log_lines import LogEntry, parse_log_line
from dora_config import DoraError
from dora_config.ids import file_stem
from dora_daemon.agent.logs.files import NodeLog

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_LOG = re.compile(r"log_(?P<node>.+)\.jsonl(?:\.(?P<part>\d+))?")


class NoSuchLogs(DoraError):
    """There are no log files for what was asked."""


@dataclass(slots=True)
class NodeLogs:
    """The files of one node, oldest part first; the last one may still grow."""

    node: str
    """As file names have it: a long id is cut."""
    parts: list[Path] = field(default_factory=list)

    @property
    def current(self) -> Path:
        return self.parts[-1]

    def rotated(self) -> NodeLogs:
        """Without the part that may still grow."""
        return NodeLogs(self.node, self.parts[:-1])

    def entries(self) -> Iterator[LogEntry]:
        """Every entry, oldest first; lines that are none are left out."""
        for path in self.parts:
            try:
                with path.open(encoding="utf-8", errors="replace") as file:
                    yield from filter(None, map(parse_log_line, file))
            except FileNotFoundError:
                continue  # rotated away meanwhile


def out_dirs(base: Path) -> list[Path]:
    """The folders below `base` that may hold logs: its own `out`, and those of its clones."""
    found = [base / "out"]
    for directory, names, _ in os.walk(base / "git"):
        if _COMMIT.fullmatch(Path(directory).name):
            names.clear()
            found.append(Path(directory) / "out")
    return [path for path in found if path.is_dir()]


def dataflows(base: Path) -> list[str]:
    """Ids of the dataflows that have logs, the one written to last first."""
    newest: dict[str, float] = {}
    for out in out_dirs(base):
        for directory in out.iterdir():
            files = list(directory.glob("log_*.jsonl")) if _ID.fullmatch(directory.name) else []
            for file in files:
                written = file.stat().st_mtime
                newest[directory.name] = max(newest.get(directory.name, 0.0), written)
    return sorted(newest, key=lambda name: newest[name], reverse=True)


def choose_dataflow(base: Path, wanted: str | None) -> str:
    """The id that `wanted` begins (None: the newest); NoSuchLogs when it is none or several."""
    known = dataflows(base)
    if not known:
        raise NoSuchLogs(f"no dataflow has left logs in {base / 'out'}")
    if wanted is None:
        return known[0]
    matching = [name for name in known if name.startswith(wanted.lower())]
    if len(matching) == 1:
        return matching[0]
    listing = "\n".join(f"  {name}" for name in (matching or known)[:10])
    what = f"several dataflows begin with {wanted}" if matching else f"no logs of {wanted} here"
    raise NoSuchLogs(f"{what}; there are, newest first:\n{listing}")


def node_logs(base: Path, dataflow: str) -> list[NodeLogs]:
    """The log files of a dataflow by node, nodes in alphabetical order."""
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
    """All of them, or the one that is named; NoSuchLogs lists what there is."""
    if node is None:
        return list(logs)
    chosen = [one for one in logs if one.node == file_stem(node)]
    if not chosen:
        known = ", ".join(one.node for one in logs) or "none"
        raise NoSuchLogs(f'no log file of node "{node}"; there are: {known}')
    return chosen


def merged(logs: Sequence[NodeLogs]) -> Iterator[LogEntry]:
    """The entries of several nodes in the order of their times."""
    return heapq.merge(*(one.entries() for one in logs), key=lambda entry: entry.time)


class Follower:
    """Reads what is appended to log files, across rotations; the caller decides when to look."""

    def __init__(self, base: Path, dataflow: str, node: str | None) -> None:
        self._base = base
        self._dataflow = dataflow
        self._node = None if node is None else file_stem(node)
        self._files: dict[Path, NodeLog] = {}

    def new_entries(self) -> list[LogEntry]:
        """What came since the last look, in the order of time."""
        found: list[LogEntry] = []
        for one in self._logs():
            log = self._files.setdefault(one.current, NodeLog(one.current))
            found += filter(None, map(parse_log_line, log.news()))
        return sorted(found, key=lambda entry: entry.time)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _logs(self) -> list[NodeLogs]:
        logs = node_logs(self._base, self._dataflow)
        return [one for one in logs if self._node in (None, one.node)]
