"""Prepares the nodes of a dataflow on this machine: clones, environments, build lines.

A failure only stops the preparation of its node; all failures are reported at the end. With uv each
Python node with build lines has an environment and nodes are built concurrently. Without uv build
lines install into the interpreter that runs dora, where concurrent `pip install` would conflict, so
by default nodes are built one after another. Nodes whose code was sent to this machine always have
environments of their own.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio

from dora_config import ResolvedDataflow, ResolvedNode
from dora_config.dataflow.resolved import GitSource
from dora_config.dataflow.variables import is_reserved
from dora_config.errors import os_error_text
from dora_config.protocol.builds import FailedNode, NodeBuildEvent
from dora_config.protocol.runner import NodeLocation
from dora_daemon.build import own_environment, plan
from dora_daemon.build.cache import BuildCache
from dora_daemon.build.command import CommandResult, OnCommand, run_command
from dora_daemon.build.errors import BuildError, StepFailed
from dora_daemon.build.file_lock import file_lock
from dora_daemon.build.git_sources import GitSources, reference
from dora_daemon.build.job import BuiltNode
from dora_daemon.build.python_env import (
    activated,
    create_command,
    environment_dir,
    environment_lock,
    environment_python,
    find_uv,
    unfinished_mark,
)
from dora_daemon.runner.process.environment import merge_environment

MAX_JOBS = 8
SHOWN_TAIL = 20
"""Lines of a failed command in the error."""

OnBuildEvent = Callable[[NodeBuildEvent], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of a build; `jobs` None: concurrent with uv, otherwise one node after another."""

    uv: bool = False
    offline: bool = False
    jobs: int | None = None
    commits: Mapping[str, str] | None = None
    """By node id: commits of a lock file, which git sources must use if it is given."""
    apply_deploy: bool = False
    """Use `deploy.working_dir`, which `dora run` ignores."""
    build_keys: Mapping[str, str] = field(default_factory=dict)
    """By node id, for nodes whose code was sent to this machine: key of the build."""
    rebuild: bool = False
    """Run also builds that have succeeded with the same inputs."""

    def parallel(self) -> int:
        """Return how many nodes are prepared at the same time."""
        default = min(MAX_JOBS, os.cpu_count() or 1) if self.uv else 1
        return self.jobs or default


async def prepare(
    dataflow: ResolvedDataflow,
    base_dir: Path,
    *,
    options: BuildOptions = BuildOptions(),
    environ: Mapping[str, str] = os.environ,
    on_event: OnBuildEvent = lambda event: None,
    on_command: OnCommand | None = None,
) -> tuple[BuiltNode, ...]:
    """Prepare the nodes of a dataflow whose files are in `base_dir`.

    Cancellation ends all running commands. Clones and environments that are incomplete then, or
    after a crash, are not used; the next build creates them again.
    ``on_command`` is called for each command, so that a reaper can kill it with this process.
    Raises BuildError with every node that could not be prepared.
    """
    cache = BuildCache(base_dir)
    builder = _Builder(base_dir, options, dict(environ), on_event, cache, on_command)
    limiter = anyio.CapacityLimiter(options.parallel())
    outcomes: dict[str, BuiltNode | FailedNode] = {}

    async def prepare_one(node: ResolvedNode) -> None:
        async with limiter:
            outcomes[node.id] = await builder.prepare(node)

    async with anyio.create_task_group() as tasks:
        for node in dataflow.nodes:
            tasks.start_soon(prepare_one, node)
    ordered = [outcomes[node.id] for node in dataflow.nodes]
    failures = tuple(one for one in ordered if isinstance(one, FailedNode))
    await anyio.to_thread.run_sync(partial(cache.save, complete=not failures))
    if failures:
        raise BuildError(failures)
    return tuple(one for one in ordered if isinstance(one, BuiltNode))


@dataclass(frozen=True, slots=True)
class _Builder:
    base_dir: Path
    options: BuildOptions
    environ: dict[str, str]
    on_event: OnBuildEvent
    cache: BuildCache
    on_command: OnCommand | None

    async def prepare(self, node: ResolvedNode) -> BuiltNode | FailedNode:
        """Prepare one node; a failure is returned, so that other nodes are still prepared."""
        begun = time.monotonic()
        if node.needs_build:
            self.on_event(NodeBuildEvent(node=node.id, what="started"))
        try:
            built = await self._prepare(node)
        except StepFailed as error:
            return self._failed(node, str(error), error.output)
        except OSError as error:
            return self._failed(node, os_error_text(error))
        if node.needs_build:
            seconds = time.monotonic() - begun
            self.on_event(NodeBuildEvent(node=node.id, what="built", seconds=seconds))
        return built

    def _failed(self, node: ResolvedNode, text: str, output: tuple[str, ...] = ()) -> FailedNode:
        self.on_event(NodeBuildEvent(node=node.id, what="failed", text=text))
        return FailedNode(node=node.id, message=text, output=output)

    async def _prepare(self, node: ResolvedNode) -> BuiltNode:
        lines = plan.build_lines(node)
        directory = self.base_dir
        if self.options.apply_deploy and node.deploy.working_dir:
            directory = directory / node.deploy.working_dir
            directory.mkdir(parents=True, exist_ok=True)
        commit = python = None
        if node.git is not None:
            directory, commit = await self._clone(node, node.git)
        if node.id in self.options.build_keys:
            python = await self._prepare_own(node, directory, lines)
        else:
            uv = find_uv(self.environ) if self.options.uv else None
            if self.options.uv and uv is None and lines:
                raise StepFailed("--uv needs the program uv, which is not on PATH: pip install uv")
            if uv is not None and plan.wants_environment(node):
                python = await self._environment(node, directory, uv)
            if lines:
                await self._run_lines(node, lines, directory, uv, python)
        place = NodeLocation(working_dir=str(directory), python=str(python) if python else None)
        return BuiltNode(node=node.id, place=place, commit=commit)

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
        cache = self.cache
        check = await anyio.to_thread.run_sync(
            partial(cache.check, lines, directory, python=python, environ=environ, uv=uv)
        )
        if check.up_to_date and not self.options.rebuild:
            self._skip(node, "up to date")
            return
        installed = await anyio.to_thread.run_sync(cache.begin, check)
        try:
            for line in lines:
                await self._run_line(node, line, directory, uv, python)
        except BaseException:
            cache.end(check, installed, success=False)
            raise
        await anyio.to_thread.run_sync(partial(cache.end, check, installed, success=True))

    async def _prepare_own(
        self, node: ResolvedNode, directory: Path, lines: tuple[plan.BuildLine, ...]
    ) -> Path | None:
        """Build a node whose code was sent here, once per requirements; return its interpreter."""
        key = self.options.build_keys[node.id]
        if not self.options.rebuild and own_environment.is_built(directory, node.id, key):
            self._skip(node, "built already with the same requirements")
        else:
            await anyio.to_thread.run_sync(own_environment.begin, directory, node.id)
            uv = find_uv(self.environ)
            python = None
            if plan.wants_environment(node):
                python = await self._environment(node, directory, uv)
            for line in lines:
                await self._run_line(node, line, directory, uv, python)
            own_environment.mark_built(directory, node.id, key)
        own_environment.share_packages(directory, node.id)
        return environment_python(directory, node.id)

    async def _clone(self, node: ResolvedNode, git: GitSource) -> tuple[Path, str]:
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
        checkout = await sources.checkout(
            git,
            locked=locked,
            on_line=partial(self._output, node),
            on_clone=lambda commit: self._step(node, f"git clone {git.url} at {commit[:12]}"),
        )
        if not checkout.cloned:
            self._skip(node, f"{reference(git)} of {git.url} is cloned at {checkout.commit[:12]}")
        return checkout.directory, checkout.commit

    async def _environment(self, node: ResolvedNode, working_dir: Path, uv: str | None) -> Path:
        """Return the interpreter of the node's environment, created if missing."""
        # Before the lock, which needs a folder that can be written.
        python = environment_python(working_dir, node.id)
        if python is not None:
            return python
        lock = environment_lock(working_dir, node.id)
        lock.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(self._step, node, "waiting for another build of this folder")
        async with file_lock(lock, waiting):
            python = environment_python(working_dir, node.id)
            return python or await self._create_environment(node, working_dir, uv)

    async def _create_environment(
        self, node: ResolvedNode, working_dir: Path, uv: str | None
    ) -> Path:
        self._step(node, "python -m venv" if uv is None else "uv venv")
        directory = environment_dir(working_dir, node.id)
        unfinished = unfinished_mark(working_dir, node.id)
        unfinished.touch()
        await anyio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
        words = create_command(working_dir, node.id, uv)
        env = self._environ(offline=self.options.offline)
        result = await self._run(node, words, working_dir, env)
        if result.ok:
            unfinished.unlink()
        python = environment_python(working_dir, node.id)
        if python is None:
            raise StepFailed(
                f"cannot create the Python environment {directory} ({result})", result.tail
            )
        return python

    async def _run_line(
        self,
        node: ResolvedNode,
        line: plan.BuildLine,
        directory: Path,
        uv: str | None,
        python: Path | None,
    ) -> None:
        env = self._node_environ(node, python, offline=self.options.offline)
        self._step(node, line.text)
        if uv is not None:
            target = None if python else sys.executable
            words = plan.rewrite_for_uv(line.words, uv=uv, python=target)
        elif python is not None and line.words[0] in plan.PIP:
            if find_spec("pip") is None:
                raise StepFailed(_no_pip(line))
            words = own_environment.pip_command(line.words, python)
        else:
            words = self._without_uv(node, line, env)
        where = f"build line {line.text!r} in {directory}"
        try:
            result = await self._run(node, words, directory, env)
        except FileNotFoundError as error:
            if error.filename == directory:
                raise StepFailed(f"{where}: the working directory does not exist") from None
            raise StepFailed(f"{where}: {_not_found(words[0], directory)}") from None
        except OSError as error:
            raise StepFailed(f"{where}: {words[0]}: {error.strerror}") from error
        if not result.ok:
            hint = plan.shell_hint(line)
            raise StepFailed(
                f"{where}: {result}" + (f" ({hint})" if hint else ""), result.tail[-SHOWN_TAIL:]
            )

    def _without_uv(
        self, node: ResolvedNode, line: plan.BuildLine, env: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return the command of a line; `uv pip` if dora runs in an environment without pip."""
        if line.words[0] not in plan.PIP or find_spec("pip") is not None:
            return plan.rewrite_pip(line.words, python=sys.executable)
        found = find_uv(env)
        if found is None:
            raise StepFailed(_no_pip(line))
        self._output(node, f"{sys.executable} has no pip: running `uv pip` instead")
        return plan.rewrite_for_uv(line.words, uv=found, python=sys.executable)

    async def _run(
        self, node: ResolvedNode, words: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> CommandResult:
        on_line, on_command = partial(self._output, node), self.on_command
        return await run_command(words, cwd=cwd, env=env, on_line=on_line, on_command=on_command)

    def _node_environ(
        self, node: ResolvedNode, python: Path | None, *, offline: bool
    ) -> dict[str, str]:
        """Return the environment variables of a node's build lines. Raises StepFailed."""
        merged = merge_environment(self._environ(offline=offline), {}, {}, node.env)
        if merged.problems:
            raise StepFailed("; ".join(merged.problems))
        env = merged.variables
        if python is not None:
            return activated(env, python)
        path = env.get("PATH", os.defpath)
        own = str(Path(sys.executable).parent)
        env["PATH"] = f"{own}:{path}" if path else own
        return env

    def _environ(self, *, offline: bool) -> dict[str, str]:
        env = {name: text for name, text in self.environ.items() if not is_reserved(name)}
        return env | {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"} if offline else env

    def _step(self, node: ResolvedNode, text: str) -> None:
        self.on_event(NodeBuildEvent(node=node.id, what="step", text=text))

    def _skip(self, node: ResolvedNode, text: str) -> None:
        self.on_event(NodeBuildEvent(node=node.id, what="skipped", text=text))

    def _output(self, node: ResolvedNode, line: str) -> None:
        self.on_event(NodeBuildEvent(node=node.id, what="output", text=line))


def _no_pip(line: plan.BuildLine) -> str:
    return (
        f"build line {line.text!r}: {sys.executable} has no pip, and `uv` is not on PATH"
        " either; install one of them"
    )


def _not_found(program: str, directory: Path) -> str:
    """Return why a program could not be found."""
    if "/" not in program:
        return f"the program {program!r} is not on PATH"
    if (directory / program).exists():
        return f"the interpreter in the first line of {program} does not exist"
    return f"{program} does not exist"
