"""Prepares nodes: program, arguments, directory and environment of each process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dora_config.dataflow import node_kinds
from dora_config.dataflow.resolved import DEFAULT_FINISH_GRACE, NodeLocation, ResolvedNode
from dora_config.dataflow.variables import ALLOW_SHELL
from dora_config.ids import log_file_name
from dora_config.plugins import PluginError
from dora_config.protocol.run_plan import RunPlan
from dora_config.yaml.quantities import parse_duration
from dora_config.yaml.text_files import is_file
from dora_daemon.out_dir import log_dir
from dora_daemon.runner.errors import PreparationError, RunnerError
from dora_daemon.runner.process.environment import merge_environment, with_packages
from dora_daemon.runner.process.injection import LaunchFacts, link_package
from dora_daemon.runner.process.python_choice import PythonChooser
from dora_daemon.runner.process.sources import find_program, require_executable
from dora_daemon.runner.process.spawn import usable_cpus

FINISH_GRACE = "DORA_FINISH_DRAIN_GRACE_SECS"
OPERATOR_HOST = "dora_node_api.operators"


@dataclass(frozen=True, slots=True)
class PreparedNode:
    """A node that can be spawned. A dynamic node has no ``argv``."""

    spec: ResolvedNode
    argv: tuple[str, ...]
    cwd: Path
    variables: Mapping[str, str] = field(repr=False)
    """Environment without DORA_NODE_CONFIG, which differs for each process."""
    facts: LaunchFacts
    log_file: Path
    cpus: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


class Preparer:
    """Prepares the nodes of a plan without spawning them. Blocks: checks may run a program."""

    def __init__(
        self, plan: RunPlan, packages: Path, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.plan = plan
        self.nodes: tuple[PreparedNode, ...] = ()
        """The nodes of the plan, once :meth:`prepare_all` has prepared them."""
        self._packages = packages
        self._environ = environ
        self._python = PythonChooser(uv=plan.uv)

    @property
    def default_finish_grace(self) -> float | None:
        """Seconds for nodes to end after their inputs have ended; None: no limit."""
        text = self._environ.get(FINISH_GRACE, "").strip().lower()
        if text == "off":
            return None
        try:
            return parse_duration(text)
        except ValueError:
            return DEFAULT_FINISH_GRACE

    @property
    def log_dir(self) -> str:
        """The folder of the log files: beside the dataflow file, unless no node uses that."""
        usual = log_dir(Path(self.plan.working_dir), self.plan.dataflow_id)
        used = sorted({node.log_file.parent for node in self.nodes})
        return str(usual if usual in used or not used else used[0])

    def prepare_all(self) -> None:
        """Prepare every node of the plan. Raises PreparationError with all problems."""
        prepared: list[PreparedNode] = []
        problems: list[str] = []
        for spec in self.plan.resolved.nodes:
            try:
                prepared.append(self.prepare(spec, self.plan.places.get(spec.id, NodeLocation())))
            except PreparationError as error:
                problems += error.problems
        if problems:
            raise PreparationError(tuple(problems))
        self.nodes = tuple(prepared)

    def prepare(self, spec: ResolvedNode, place: NodeLocation) -> PreparedNode:
        """Prepare one node. Raises PreparationError."""
        try:
            return self._prepare(spec, place)
        except PreparationError:
            raise
        except RunnerError as error:
            raise PreparationError((f'node "{spec.id}": {error}',)) from error

    def _prepare(self, spec: ResolvedNode, place: NodeLocation) -> PreparedNode:
        cwd = self._working_dir(place)
        if spec.is_dynamic:
            facts = LaunchFacts((), None)
            return PreparedNode(spec, (), cwd, {}, facts, self._log_file(cwd, spec))
        merged = merge_environment(
            self._environ, self.plan.resolved.env, self.plan.env_overrides, spec.env
        )
        if merged.problems:
            raise PreparationError(tuple(f'node "{spec.id}": {p}' for p in merged.problems))
        variables = with_packages(merged.variables, str(self._packages))
        if self.plan.machine_id is not None:
            variables["DORA_MACHINE_ID"] = self.plan.machine_id
        argv, facts = self._command(spec, place, cwd, variables)
        cpus, missing = usable_cpus(spec.cpu_affinity)
        warnings = list(merged.warnings)
        if problem := link_package(self._packages, Path(facts.argv[0]).name):
            warnings.append(problem)
        if missing:
            cores = ", ".join(str(core) for core in missing)
            warnings.append(f"cpu_affinity names cores that this process may not use: {cores}")
        return PreparedNode(
            spec,
            argv,
            cwd,
            variables,
            facts,
            self._log_file(cwd, spec),
            cpus,
            tuple(warnings),
        )

    def _working_dir(self, place: NodeLocation) -> Path:
        path = Path(self.plan.working_dir)
        if place.working_dir is not None:
            path = path / place.working_dir
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises, as for a name too long
            if not self.plan.create_working_dirs:
                raise RunnerError(f"working directory does not exist: {path}")
            try:
                path.mkdir(parents=True)
            except OSError as error:
                raise RunnerError(
                    f"cannot create the working directory {path}: {error.strerror}"
                ) from error
        return path

    def _log_file(self, cwd: Path, spec: ResolvedNode) -> Path:
        return log_dir(cwd, self.plan.dataflow_id) / log_file_name(spec.id)

    def _command(
        self, spec: ResolvedNode, place: NodeLocation, cwd: Path, variables: dict[str, str]
    ) -> tuple[tuple[str, ...], LaunchFacts]:
        if spec.kind == "shell":
            return self._shell_command(spec)
        if spec.kind == "runtime":
            return self._operator_command(spec, place, cwd, variables)
        if spec.block is not None:
            return self._plugin_command(spec, place, cwd, variables)
        path = spec.path or ""
        has_ports = bool(spec.inputs or spec.outputs)
        if spec.kind == "url":
            from dora_daemon.runner.process.download import download

            program = download(path, spec.path_sha256, cwd)
        else:
            program = find_program(
                path, working_dir=cwd, variables=variables, managed_python=place.python
            )
        if program.suffix == ".py":
            interpreter = self._python.choose(place.python, variables, cwd)
            argv = (*interpreter.words, "-u", str(program), *spec.args)
            return argv, LaunchFacts(argv, program, has_ports=has_ports)
        require_executable(program, path)
        # the first line of a program of a managed environment names its interpreter
        run: tuple[str, ...] = ()
        if self.plan.uv and place.python is None:
            from dora_daemon.build.python_env import find_uv

            uv = find_uv(variables)
            run = (uv, "run") if uv is not None else ()
        argv = (*run, str(program), *spec.args)
        return argv, LaunchFacts(argv[len(run) :], None, has_ports=has_ports)

    def _shell_command(self, spec: ResolvedNode) -> tuple[tuple[str, ...], LaunchFacts]:
        given = self._environ.get(ALLOW_SHELL, "").lower()
        if not self.plan.allow_shell and given not in ("true", "1"):
            raise RunnerError(
                "shell nodes are disabled, because a dataflow file with them can run any command;"
                f" if you trust the file, use --allow-shell-nodes or set {ALLOW_SHELL}=true"
            )
        argv = ("sh", "-c", spec.args[0] if spec.args else "")
        return argv, LaunchFacts(argv, None, shell=True)

    def _plugin_command(
        self, spec: ResolvedNode, place: NodeLocation, cwd: Path, variables: dict[str, str]
    ) -> tuple[tuple[str, ...], LaunchFacts]:
        try:
            kind = node_kinds.load(spec.kind)
        except PluginError as error:
            raise RunnerError(str(error)) from error
        variables[kind.variable] = json.dumps(spec.block)
        needs = ("pyarrow", *kind.needs)
        interpreter = self._python.choose(place.python, variables, cwd, needs)
        argv = (*interpreter.words, "-u", "-m", kind.module)
        return argv, LaunchFacts(argv, None)

    def _operator_command(
        self, spec: ResolvedNode, place: NodeLocation, cwd: Path, variables: Mapping[str, str]
    ) -> tuple[tuple[str, ...], LaunchFacts]:
        for operator in spec.operators:
            file = cwd / operator.python
            if not is_file(file):
                raise RunnerError(
                    f'Could not find source path `{operator.python}` of operator "{operator.id}":'
                    f" {file} does not exist"
                )
        interpreter = self._python.choose(place.python, variables, cwd)
        argv = (*interpreter.words, "-u", "-m", OPERATOR_HOST)
        return argv, LaunchFacts(argv, None)
