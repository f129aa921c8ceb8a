"""Prepares the nodes of a dataflow on this machine: clones, environments, build lines.

Nodes are independent: a failure stops the preparation of its node only, and is reported with all
others at the end. With uv every Python node has an environment of its own and nodes are built at
the same time; without it they share the interpreter that runs dora, where two `pip install` at
once would get in each other's way, so they are built one after another unless asked otherwise.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio

from dora_config import ResolvedDataflow, ResolvedNode
from dora_daemon.build import events, own_environment, plan
from dora_daemon.build.command import OnCommand, run_command
from dora_daemon.build.errors import BuildError, NodeFailure, StepFailed
from dora_daemon.build.git_sources import GitSources, reference
from dora_daemon.build.memory import BuildMemory
from dora_daemon.build.python_env import (
    activated,
    create_environment,
    environment_python,
    find_uv,
)
from dora_daemon.build.session_file import BuiltNode
from dora_daemon.runner.process.environment import is_reserved, merge_environment

MOST_JOBS = 8
UP_TO_DATE = "up to date"
SHOWN_TAIL = 20
"""Lines of a failed command that are part of the error."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to prepare; `jobs` None: at once with uv, else one node after another."""

    uv: bool = False
    offline: bool = False
    jobs: int | None = None
    commits: Mapping[str, str] | None = None
    """By node id: the commits of a lock file. Git sources then follow it and nothing else."""
    apply_deploy: bool = False
    """Whether `deploy.working_dir` counts; `dora run` ignores it."""
    own: Mapping[str, str] = field(default_factory=dict)
    """By node id: the key of its build, for nodes whose code was sent to this machine."""
    rebuild: bool = False
    """Whether builds run that have succeeded with the same inputs."""

    def parallel(self) -> int:
        """Nodes prepared at the same time."""
        default = min(MOST_JOBS, os.cpu_count() or 1) if self.uv else 1
        return self.jobs or default


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Every node of the dataflow, prepared; in the order of the file."""

    build_id: str
    nodes: tuple[BuiltNode, ...]

    def node(self, node_id: str) -> BuiltNode:
        """The prepared node of that id; raises KeyError."""
        for built in self.nodes:
            if built.node == node_id:
                return built
        raise KeyError(node_id)


async def prepare(
    dataflow: ResolvedDataflow,
    base_dir: Path,
    *,
    options: BuildOptions = BuildOptions(),
    nodes: Collection[str] | None = None,
    environ: Mapping[str, str] | None = None,
    on_event: events.OnBuildEvent | None = None,
    on_command: OnCommand | None = None,
) -> BuildResult:
    """Prepare the nodes (default: all) of a dataflow whose files lie in `base_dir`.

    Cancelling ends every command that runs and leaves nothing half made under a final name.
    ``on_command`` hears of each command, so that somebody can end it if we are killed.
    Raises BuildError with every node that could not be prepared.
    """
    builder = _Builder(
        base_dir,
        options,
        dict(os.environ if environ is None else environ),
        on_event or (lambda event: None),
        BuildMemory(base_dir),
        on_command,
    )
    wanted = [node for node in dataflow.nodes if nodes is None or node.id in nodes]
    places = anyio.CapacityLimiter(options.parallel())
    built: dict[str, BuiltNode] = {}
    failures: dict[str, NodeFailure] = {}

    async def prepare_one(node: ResolvedNode) -> None:
        async with places:
            outcome = await builder.prepare(node)
        if isinstance(outcome, BuiltNode):
            built[node.id] = outcome
        else:
            failures[node.id] = outcome

    async with anyio.create_task_group() as tasks:
        for node in wanted:
            tasks.start_soon(prepare_one, node)
    await anyio.to_thread.run_sync(partial(builder.memory.save, complete=not failures))
    if failures:
        raise BuildError(tuple(failures[node.id] for node in wanted if node.id in failures))
    return BuildResult(str(uuid.uuid4()), tuple(built[node.id] for node in wanted))


@dataclass(frozen=True, slots=True)
class _Builder:
    base_dir: Path
    options: BuildOptions
    environ: dict[str, str]
    on_event: events.OnBuildEvent
    memory: BuildMemory
    on_command: OnCommand | None = None

    async def prepare(self, node: ResolvedNode) -> BuiltNode | NodeFailure:
        """Everything for one node; a failure is a value, so that other nodes go on."""
        work = node.needs_build
        begun = time.monotonic()
        if work:
            self.on_event(events.NodeBuildStarted(node.id))
        try:
            built = await self._prepare(node)
        except StepFailed as error:
            failure = NodeFailure(node.id, error.message, error.output)
            self.on_event(events.NodeBuildFailed(failure))
            return failure
        if work:
            self.on_event(events.NodeBuilt(node.id, time.monotonic() - begun))
        return built

    async def _prepare(self, node: ResolvedNode) -> BuiltNode:
        lines = plan.build_lines(node)
        directory = self.base_dir
        if self.options.apply_deploy and node.deploy.working_dir:
            directory = directory / node.deploy.working_dir
            directory.mkdir(parents=True, exist_ok=True)
        commit = None
        if node.git is not None:
            directory, commit = await self._clone(node)
        if node.id in self.options.own:
            return await self._prepare_own(node, directory, lines)
        uv = find_uv(self.environ) if self.options.uv else None
        if self.options.uv and uv is None and lines:
            raise StepFailed("--uv needs the program uv, which is not on PATH: pip install uv")
        python = None
        if uv is not None and plan.wants_environment(node):
            python = await self._environment(node, directory, uv)
        if lines:
            await self._run_lines(node, lines, directory, uv, python)
        return BuiltNode(node.id, directory, python, commit)

    async def _run_lines(
        self,
        node: ResolvedNode,
        lines: tuple[plan.BuildLine, ...],
        directory: Path,
        uv: str | None,
        python: Path | None,
    ) -> None:
        """Run the lines, unless they have succeeded before with the same inputs."""
        environ = self._node_environ(node, python, offline=False)
        memory = self.memory
        check = memory.check(node, lines, directory, python=python, environ=environ, uv=uv)
        if check.up_to_date and not self.options.rebuild:
            self.on_event(events.StepSkipped(node.id, UP_TO_DATE))
            return
        installed = memory.begin(check)
        success = False
        try:
            for line in lines:
                await self._run_line(node, line, directory, uv, python)
            success = True
        finally:
            memory.end(check, installed, success=success)

    async def _prepare_own(
        self, node: ResolvedNode, directory: Path, lines: tuple[plan.BuildLine, ...]
    ) -> BuiltNode:
        """A node whose code was sent here: built once for what it asks for."""
        key = self.options.own[node.id]
        if not self.options.rebuild and own_environment.is_built(directory, node.id, key):
            self.on_event(events.StepSkipped(node.id, "built already with the same requirements"))
        else:
            own_environment.begin(directory, node.id)
            uv = find_uv(self.environ)
            python = None
            if plan.wants_environment(node):
                python = await self._own_environment(node, directory, uv)
            for line in lines:
                await self._run_line(node, line, directory, uv, python)
            own_environment.mark_built(directory, node.id, key)
        own_environment.share_packages(directory, node.id)
        return BuiltNode(node.id, directory, environment_python(directory, node.id))

    async def _own_environment(self, node: ResolvedNode, directory: Path, uv: str | None) -> Path:
        if uv is not None:
            return await self._environment(node, directory, uv)
        self.on_event(events.StepStarted(node.id, "python -m venv"))
        outcome = await run_command(
            own_environment.venv_command(directory, node.id),
            cwd=directory,
            env=self._environ(),
            on_line=partial(self._output, node.id),
            on_command=self.on_command,
        )
        python = environment_python(directory, node.id)
        if not outcome.ok or python is None:
            raise StepFailed(f"cannot make its Python environment ({outcome})", outcome.tail)
        return python

    async def _clone(self, node: ResolvedNode) -> tuple[Path, str]:
        assert node.git is not None
        sources = GitSources(
            self.base_dir,
            environ=self.environ,
            offline=self.options.offline,
            on_command=self.on_command,
        )
        locked = None
        if self.options.commits is not None:
            locked = self.options.commits.get(node.id)
            if locked is None:
                raise StepFailed("its git source is not in the lock file")
        url = node.git.url

        def clone_begins(commit: str) -> None:
            self.on_event(events.StepStarted(node.id, f"git clone {url} at {commit[:12]}"))

        checkout = await sources.checkout(
            node.git,
            locked=locked,
            on_line=partial(self._output, node.id),
            on_clone=clone_begins,
        )
        if not checkout.cloned:
            self.on_event(
                events.StepSkipped(
                    node.id,
                    f"{reference(node.git)} of {node.git.url} is cloned at {checkout.commit[:12]}",
                )
            )
        return checkout.directory, checkout.commit

    async def _environment(self, node: ResolvedNode, directory: Path, uv: str) -> Path:
        python = environment_python(directory, node.id)
        if python is not None:
            return python
        self.on_event(events.StepStarted(node.id, "uv venv"))
        return await create_environment(
            directory,
            node.id,
            uv=uv,
            environ=self._environ(),
            on_line=partial(self._output, node.id),
            on_command=self.on_command,
        )

    async def _run_line(
        self,
        node: ResolvedNode,
        line: plan.BuildLine,
        directory: Path,
        uv: str | None,
        python: Path | None,
    ) -> None:
        env = self._node_environ(node, python, offline=self.options.offline)
        self.on_event(events.StepStarted(node.id, line.text))
        if uv is not None:
            own = None if python else sys.executable
            words = plan.rewrite_for_uv(line.words, uv=uv, python=own)
        elif python is not None and line.words[0] in plan.PIP:
            words = own_environment.pip_command(line.words, python)
        else:
            words = self._without_uv(node.id, line, env)
        where = f"build line {line.text!r} in {directory}"
        try:
            outcome = await run_command(
                words,
                cwd=directory,
                env=env,
                on_line=partial(self._output, node.id),
                on_command=self.on_command,
            )
        except FileNotFoundError:
            raise StepFailed(_not_found(where, words[0], directory)) from None
        except OSError as error:
            raise StepFailed(f"{where}: {words[0]}: {error.strerror}") from error
        if not outcome.ok:
            hint = plan.shell_hint(line)
            raise StepFailed(
                f"{where}: {outcome}" + (f" ({hint})" if hint else ""), outcome.tail[-SHOWN_TAIL:]
            )

    def _without_uv(
        self, node: str, line: plan.BuildLine, env: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The command as it is run; an environment that uv made has no pip, but then uv is near."""
        if line.words[0] not in plan.PIP or find_spec("pip") is not None:
            return plan.rewrite_pip(line.words, python=sys.executable)
        found = find_uv(env)
        if found is None:
            raise StepFailed(
                f"build line {line.text!r}: {sys.executable} has no pip, and `uv` is not on PATH"
                " either; install one of them"
            )
        self._output(node, f"{sys.executable} has no pip: running `uv pip` instead")
        return plan.rewrite_for_uv(line.words, uv=found, python=sys.executable)

    def _node_environ(
        self, node: ResolvedNode, python: Path | None, *, offline: bool
    ) -> dict[str, str]:
        """What the lines of a node find in their environment. Raises StepFailed."""
        merged = merge_environment(self._environ(offline=offline), {}, {}, node.env)
        if merged.problems:
            raise StepFailed("; ".join(merged.problems))
        env = merged.variables
        if python is not None:
            return activated(env, python)
        env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"
        return env

    def _environ(self, *, offline: bool | None = None) -> dict[str, str]:
        env = {name: text for name, text in self.environ.items() if not is_reserved(name)}
        if self.options.offline if offline is None else offline:
            env |= {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
        return env

    def _output(self, node: str, line: str) -> None:
        self.on_event(events.BuildOutput(node, line))


def _not_found(where: str, program: str, directory: Path) -> str:
    if not directory.is_dir():
        return f"{where}: the working directory does not exist"
    return f"{where}: there is no program {program!r} on PATH"
