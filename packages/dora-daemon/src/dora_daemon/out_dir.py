"""Directory `out` beside a dataflow file: logs and events of its runs, its session file."""

from __future__ import annotations

from pathlib import Path

from dora_config.ids import file_stem
from dora_config.protocol.run_plan import RunPlan

OUT_DIR = "out"


def prepare_out_dir(directory: Path) -> None:
    """Create an `out` directory, which other accounts cannot read.

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
    name = "history.jsonl" if machine is None else f"history_{file_stem(machine)}.jsonl"
    return Path(plan.working_dir) / OUT_DIR / plan.dataflow_id / name
