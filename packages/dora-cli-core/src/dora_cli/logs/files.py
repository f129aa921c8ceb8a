"""Logs and histories in files of this machine, by dataflow and node.

A node writes `<working directory>/out/<dataflow id>/log_<node>.jsonl`; older parts end in `.1`,
`.2` and so on. The working directory is that of the dataflow file, or the clone of the node below
`git/`. In a Python project `out` and `git` are in `.dora`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from dora_cli.logs.log_lines import EntryPrinter
from dora_config.errors import DoraError
from dora_config.history.entries import RunBegan, split_dropped
from dora_config.history.file import read_history
from dora_config.ids import file_stem
from dora_config.protocol.dataflow import LogFilter
from dora_daemon.agent.logs.files import NodeLogReader, PartLogReader
from dora_daemon.out_dir import GIT_DIR, HIDDEN, OUT_DIR, folder

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DATAFLOW_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_LOG_NAME = re.compile(r"log_(.+)\.jsonl(?:\.\d+)?")

POLL_INTERVAL = 0.2
"""Seconds between two reads of followed files."""


class NoSuchRun(DoraError):
    """No files of a dataflow match the request."""


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


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """Files of one dataflow: its logs, or its histories."""

    dataflow: str
    files: tuple[Path, ...]
    written: float
    """Unix time at which the newest one was written."""


def recorded_runs(base: Path, pattern: str) -> list[RecordedRun]:
    """Return the dataflows with files of these names below ``base``, newest first."""
    found: dict[str, dict[Path, float]] = {}
    for out in out_dirs(base):
        for path in out.glob(f"*/{pattern}"):
            if _DATAFLOW_ID.fullmatch(path.parent.name):
                with suppress(FileNotFoundError):  # rotated meanwhile
                    found.setdefault(path.parent.name, {})[path] = path.stat().st_mtime
    runs = [
        RecordedRun(dataflow, tuple(sorted(files)), max(files.values()))
        for dataflow, files in found.items()
    ]
    return sorted(runs, key=lambda run: run.written, reverse=True)


def choose_run(base: Path, wanted: str | None, pattern: str, what: str) -> RecordedRun:
    """Return the run whose id starts with ``wanted``, else the newest with that name.

    ``wanted`` None: the newest run. ``what`` names the files in messages. Raises NoSuchRun if
    several ids match, or neither an id nor a name.
    """
    runs = recorded_runs(base, pattern)
    if not runs:
        raise NoSuchRun(f"no {what} of dataflows in {folder(base, OUT_DIR)}")
    if wanted is None:
        return runs[0]
    matching = [run for run in runs if wanted and run.dataflow.startswith(wanted.lower())]
    if len(matching) == 1:
        return matching[0]
    names = [(run, dataflow_name(base, run.dataflow)) for run in matching or runs]
    for run, name in names:
        if name == wanted:
            return run
    listed = (f"  {run.dataflow}" + (f" ({name})" if name else "") for run, name in names[:10])
    problem = (
        f'several dataflows start with "{wanted}"' if matching else f'no {what} of "{wanted}" here'
    )
    raise NoSuchRun("\n".join((f"{problem}; dataflows with {what}, newest first:", *listed)))


def dataflow_name(base: Path, dataflow: str) -> str | None:
    """Return the name with which a dataflow was started, from its events."""
    for out in out_dirs(base):
        for path in (out / dataflow).glob("history*.jsonl"):
            with suppress(OSError):
                for entry in split_dropped(read_history(path))[0]:
                    if isinstance(entry.event, RunBegan):
                        return entry.event.name
    return None


def log_files(base: Path, dataflow: str) -> dict[str, Path]:
    """Return the log files of a dataflow by node; long ids are shortened, as in the file names."""
    found: dict[str, Path] = {}
    for out in out_dirs(base):
        for path in (out / dataflow).glob("log_*.jsonl*"):
            if match := _LOG_NAME.fullmatch(path.name):
                found[match[1]] = path.with_name(f"log_{match[1]}.jsonl")
    return dict(sorted(found.items()))


class LocalLog:
    """Log of a dataflow below a folder, across rotations; polled by the caller."""

    def __init__(
        self, base: Path, dataflow: str, wanted: LogFilter, node: str | None = None
    ) -> None:
        """``node`` None: all nodes."""
        self._base = base
        self._dataflow = dataflow
        self._node = None if node is None else file_stem(node)
        self._nodes: dict[str, NodeLogReader] = {}
        self._log = PartLogReader(self._nodes, wanted)

    def new_lines(self) -> Iterator[str]:
        """Yield the lines since the last call by time, at the first call all of them."""
        for node, path in log_files(self._base, self._dataflow).items():
            if self._node in (None, node) and node not in self._nodes:
                self._nodes[node] = NodeLogReader(path)
        while lines := self._log.next_chunk():
            yield from lines

    def close(self) -> None:
        """Close all files."""
        self._log.close()


def show(
    dataflow: str | None,
    node: str | None,
    wanted: LogFilter,
    printer: EntryPrinter,
    *,
    follow: bool,
) -> None:
    """Print the logs below `./out`; ``follow``: until Ctrl-C. Raises NoSuchRun."""
    base = Path.cwd()
    chosen = choose_run(base, dataflow, "log_*.jsonl*", "logs").dataflow
    known = log_files(base, chosen)
    if node is not None and not follow and file_stem(node) not in known:
        raise NoSuchRun(
            f'no log file of node "{node}"; nodes with logs: {", ".join(known) or "none"}'
        )
    with closing(LocalLog(base, chosen, wanted, node)) as log:
        try:
            printer.print_lines(log.new_lines())
            while follow:
                time.sleep(POLL_INTERVAL)
                printer.print_lines(log.new_lines())
        except KeyboardInterrupt:
            if not follow:
                raise
