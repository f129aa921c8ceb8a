"""Folders beside a dataflow file: `out` (logs and events of runs, session file), `git` (clones).

In a Python project they are in its folder `.dora`, because setuptools would treat folders with
these names as packages of the project and refuse to build it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dora_config.ids import RESERVED_NODE_ID, RUNNER_LOG, file_stem, log_file_name

if TYPE_CHECKING:
    from dora_config.protocol.run_plan import RunPlan

_HISTORY = "history"
OUT_DIR = "out"
GIT_DIR = "git"
HIDDEN = ".dora"
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def folder(base: Path, name: str) -> Path:
    """Return the folder `name` of dora in `base`."""
    return base / HIDDEN / name if is_python_project(base) else base / name


def is_python_project(folder: Path) -> bool:
    return any(os.path.isfile(folder / file) for file in _PROJECT_FILES)  # noqa: PTH113 - no errors


def left_over(base: Path, output: Sequence[str]) -> str | None:
    """Return a remedy if setuptools refused folders that are older than the project file."""
    if not any("top-level packages discovered" in line for line in output):
        return None
    found = [
        name for name in (OUT_DIR, GIT_DIR) if is_python_project(base) and (base / name).is_dir()
    ]
    if not found:
        return None
    names = " ".join(found)
    return (
        f"setuptools takes {names} for packages of the project; if dora created them before the "
        f"project file, move them: mkdir -p {HIDDEN} && mv {names} {HIDDEN}/"
    )


def log_dir(base: Path, dataflow_id: str) -> Path:
    """Return the folder of the logs and events of a run."""
    return folder(base, OUT_DIR) / dataflow_id


def prepare_out_dir(directory: Path) -> None:
    """Create an `out` folder, which other accounts cannot read.

    Version control ignores it unless it has a .gitignore.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(0o700, exist_ok=True)
    ignore = directory / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def history_file(plan: RunPlan) -> Path:
    """Return the file of the events of a run, one for each daemon that shares the directory."""
    machine = plan.machine_id or plan.daemon_id
    name = f"{_HISTORY}.jsonl" if machine is None else f"{_HISTORY}_{file_stem(machine)}.jsonl"
    return log_dir(Path(plan.working_dir), plan.dataflow_id) / name


def runner_log_file(history: Path) -> Path:
    """Return the log file of the runner itself, by the file of its events."""
    machine = history.stem.removeprefix(_HISTORY).removeprefix("_")
    return history.with_name(
        log_file_name(f"{RUNNER_LOG}{machine}" if machine else RESERVED_NODE_ID)
    )
