"""Plan of a dataflow, and the program of each node."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from dora_config.dataflow.loader import LoadedDataflow
from dora_config.dataflow.resolved import NodeLocation, ResolvedNode
from dora_config.linux import require_linux
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.build.session_file import read_session
from dora_daemon.runner.errors import PreparationError
from dora_daemon.runner.process.injection import make_package_folder
from dora_daemon.runner.process.prepare import PreparedNode, Preparer
from dora_testing.errors import FlowError

_SITE = '''"""Gives a node of a test its virtual time before its own code is imported."""
import importlib.machinery, importlib.util, os, sys
try:
    from dora_node_api.virtual_time import begin
except ImportError:
    pass
else:
    begin()
_own = os.path.dirname(os.path.abspath(__file__))
_rest = [place for place in sys.path if os.path.abspath(place) != _own]
_spec = importlib.machinery.PathFinder.find_spec("sitecustomize", _rest)
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(importlib.util.module_from_spec(_spec))
'''


def plan_of(loaded: LoadedDataflow, env: Mapping[str, str]) -> RunPlan:
    """Return the plan of a run in this process."""
    return RunPlan(
        dataflow_id=str(uuid.uuid5(uuid.NAMESPACE_URL, loaded.path.name)),
        name=loaded.resolved.name,
        resolved=loaded.resolved,
        descriptor=loaded.descriptor_dict,
        working_dir=str(loaded.directory),
        env_overrides=dict(env),
        exit_when_nodes_finish=loaded.resolved.exit_when_nodes_finish,
        allow_shell=True,
    )


def prepare(
    plan: RunPlan, loaded: LoadedDataflow, nodes: Iterable[ResolvedNode], folder: Path
) -> dict[str, PreparedNode]:
    """Return the programs of these nodes, with virtual time. Raises FlowError, NeedsLinux."""
    require_linux()
    packages = make_package_folder(folder / "packages")
    (packages / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    preparer = Preparer(plan, packages, os.environ)
    places = read_session(loaded.path).places(loaded.directory)
    programs: dict[str, PreparedNode] = {}
    problems: list[str] = []
    for spec in nodes:
        try:
            programs[spec.id] = preparer.prepare(spec, places.get(spec.id, NodeLocation()))
        except PreparationError as error:
            problems += error.problems
    if problems:
        raise FlowError("\n".join(problems))
    return programs
