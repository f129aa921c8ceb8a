"""Log files of this machine, by dataflow and node.

A node writes `<working directory>/out/<dataflow id>/log_<node>.jsonl`; older parts end in `.1`,
`.2` and so on. The working directory is that of the dataflow file, or the clone of the node below
`git/`. In a Python project `out` and `git` are in `.dora`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dora_cli.logs.log_lines import LogEntry, parse_log_line
from dora_config import DoraError
from dora_config.history.entries import RunBegan
from dora_config.history.file import read_history
from dora_config.history.kept import split_dropped
from dora_config.ids import file_stem
from dora_daemon.agent.logs.files import NodeLogReader, by_time
from dora_daemon.out_dir import GIT_DIR, HIDDEN, OUT_DIR, folder

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_LOG = re.compile(r"log_(.+)\.jsonl(?:\.\d+)?")


class NoSuchLogs(DoraError):
    """No log files match the request."""


def here() -> str:
    """Return the log folder of the current directory."""
    return f"./{folder(Path(), OUT_DIR)}"


def out_dirs(base: Path) -> list[Path]:
    """Return the log folders below `base`: its `out` and those of its clones."""
    found = [base]
    for clones in (base / GIT_DIR, base / HIDDEN / GIT_DIR):
        for directory, names, _ in os.walk(clones):
            if _COMMIT.fullmatch(Path(directory).name):
                names.clear()
                found.append(Path(directory))
    outs = [path / out for path in found for out in (OUT_DIR, f"{HIDDEN}/{OUT_DIR}")]
    return [path for path in outs if path.is_dir()]


def dataflows(base: Path) -> list[str]:
    """Return the ids of dataflows with logs, most recently written first."""
    newest: dict[str, float] = {}
    for out in out_dirs(base):
        for directory in out.iterdir():
            files = list(directory.glob("log_*.jsonl*")) if _ID.fullmatch(directory.name) else []
            for file in files:
                with suppress(FileNotFoundError):  # rotated meanwhile
                    written = file.stat().st_mtime
                    newest[directory.name] = max(newest.get(directory.name, 0.0), written)
    return sorted(newest, key=lambda name: newest[name], reverse=True)


def choose_dataflow(base: Path, wanted: str | None) -> str:
    """Return the id that starts with `wanted`, or the newest with that name (None: the newest).

    Raises NoSuchLogs if no name and no id or several ids match.
    """
    known = dataflows(base)
    if not known:
        raise NoSuchLogs(f"no logs of dataflows in {folder(base, OUT_DIR)}")
    if wanted is None:
        return known[0]
    matching = [name for name in known if name.startswith(wanted.lower())]
    if len(matching) == 1:
        return matching[0]
    names = {one: dataflow_name(base, one) for one in matching or known}
    named = next((one for one, name in names.items() if name == wanted), None)
    if named is not None:
        return named
    listing = listed(list(names.items()))
    what = f"several dataflows start with {wanted}" if matching else f"no logs of {wanted} here"
    raise NoSuchLogs(f"{what}; dataflows with logs, newest first:\n{listing}")


def dataflow_name(base: Path, dataflow: str) -> str | None:
    """Return the name with which a dataflow was started, from its events."""
    for out in out_dirs(base):
        for path in (out / dataflow).glob("history*.jsonl"):
            with suppress(OSError):
                for entry in split_dropped(read_history(path))[0]:
                    if isinstance(entry.event, RunBegan):
                        return entry.event.name
    return None


def listed(dataflows: Sequence[tuple[str, str | None]]) -> str:
    """Return a line for each of the first dataflows: id and name."""
    return "\n".join(f"  {one}" + (f" ({name})" if name else "") for one, name in dataflows[:10])


def log_files(base: Path, dataflow: str) -> dict[str, Path]:
    """Return the log files of a dataflow by node; long ids are shortened, as in the file names."""
    found: dict[str, Path] = {}
    for out in out_dirs(base):
        for path in (out / dataflow).glob("log_*.jsonl*"):
            if match := _LOG.fullmatch(path.name):
                found[match[1]] = path.with_name(f"log_{match[1]}.jsonl")
    return dict(sorted(found.items()))


class LogFiles:
    """Reads the log files of a dataflow, across rotations; polled by the caller."""

    def __init__(self, base: Path, dataflow: str, node: str | None = None) -> None:
        """``node`` None: all nodes."""
        self._base = base
        self._dataflow = dataflow
        self._node = None if node is None else file_stem(node)
        self._nodes: dict[str, NodeLogReader] = {}

    def new_entries(self) -> Iterator[LogEntry]:
        """Yield the entries since the last call by time, at the first call all of them."""
        read = {node: reader.new_lines() for node, reader in self._nodes.items()}
        for node, path in log_files(self._base, self._dataflow).items():
            if self._node in (None, node) and node not in self._nodes:
                self._nodes[node] = NodeLogReader(path)
                read[node] = self._nodes[node].history()
        for _, line in by_time(read):
            if (entry := parse_log_line(line.text)) is not None:
                yield entry

    def close(self) -> None:
        """Close all files."""
        for reader in self._nodes.values():
            reader.close()
