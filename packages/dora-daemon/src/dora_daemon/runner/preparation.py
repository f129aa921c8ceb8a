"""Checks a plan and prepares its nodes, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dora_config.dataflow.resolved import DEFAULT_FINISH_GRACE
from dora_config.protocol.run_plan import RunPlan
from dora_config.yaml.quantities import parse_duration
from dora_daemon.out_dir import log_dir
from dora_daemon.process_tree.runtime_dir import RuntimeDir
from dora_daemon.runner.process.injection import make_package_folder
from dora_daemon.runner.process.prepare import PreparedNode, Preparer

FINISH_GRACE = "DORA_FINISH_DRAIN_GRACE_SECS"


@dataclass(frozen=True, slots=True)
class Preparation:
    """A plan whose nodes can be spawned."""

    plan: RunPlan
    preparer: Preparer
    nodes: tuple[PreparedNode, ...]
    default_finish_grace: float | None
    log_dir: str


def prepare(
    plan: RunPlan, directory: RuntimeDir, environ: Mapping[str, str] = os.environ
) -> Preparation:
    """Prepare all nodes. Raises PreparationError with everything that is wrong."""
    preparer = Preparer(plan, make_package_folder(directory.path / "packages"), environ)
    nodes = preparer.prepare_all()
    return Preparation(plan, preparer, nodes, _default_finish_grace(environ), _log_dir(plan, nodes))


def _log_dir(plan: RunPlan, nodes: Iterable[PreparedNode]) -> str:
    """Return the folder of the log files: beside the dataflow file, unless no node uses that."""
    usual = log_dir(Path(plan.working_dir), plan.dataflow_id)
    used = sorted({node.log_file.parent for node in nodes})
    return str(usual if usual in used or not used else used[0])


def _default_finish_grace(environ: Mapping[str, str]) -> float | None:
    text = environ.get(FINISH_GRACE, "").strip().lower()
    if text == "off":
        return None
    try:
        return parse_duration(text)
    except ValueError:
        return DEFAULT_FINISH_GRACE
