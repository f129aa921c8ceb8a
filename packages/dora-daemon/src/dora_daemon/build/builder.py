"""Prepares the nodes of a dataflow on this machine: clones, environments, build lines.

A failure only stops the preparation of its node; all failures are reported at the end. With uv each
Python node with build lines has an environment and nodes are built concurrently. Without uv build
lines install into the interpreter that runs dora, where concurrent `pip install` would conflict, so
by default nodes are built one after another. Nodes whose code was sent to this machine always have
environments of their own.

Lines run at each build, because their tools skip what is done; equal lines of several nodes run
once.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio

from dora_config.dataflow.resolved import GitSource, NodeLocation, ResolvedDataflow, ResolvedNode
from dora_config.dataflow.variables import is_private
from dora_config.errors import os_error_text
from dora_config.installation import install_command
from dora_config.protocol.builds import BuiltNode, FailedNode, NodeBuildEvent
from dora_daemon import out_dir
from dora_daemon.build import own_environment, pip_lines, plan
from dora_daemon.build.arrow_versions import CURE, find_conflict
from dora_daemon.build.command import CommandResult, OnCommand, run_command
from dora_daemon.build.errors import BuildError, StepFailed
from dora_daemon.build.file_lock import file_lock
from dora_daemon.build.git_sources import GitSources, reference
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
OnBuildEvent = Callable[[NodeBuildEvent], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of a build; `jobs` None: concurrent with uv, otherwise one node after another."""

    uv: bool = False
    offline: bool = False
    jobs: int | None = None
    commits: Mapping[str, str] | None = None
    """Commits of a lock file by node id; git sources must use them if it is given."""
    apply_deploy: bool = False
    """Use `deploy.working_dir`, which `dora run` ignores."""
    build_keys: Mapping[str, str] = field(default_factory=dict)
    """Key of the build by node id, for nodes whose code was sent to this machine."""

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
    builder = _Builder(base_dir, options, dict(environ), on_event, on_command)
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
    if failures:
        raise BuildError(failures)
    return tuple(one for one in ordered if isinstance(one, BuiltNode))


@dataclass(slots=True)
class _Run:
    """One run of a build line, for every node that has the same line."""

    node: str
    ended: anyio.Event = field(default_factory=anyio.Event)
    succeeded: bool = False


@dataclass(slots=True)
class _Builder:
    base_dir: Path
    options: BuildOptions
    environ: dict[str, str]
    on_event: OnBuildEvent
    on_command: OnCommand | None
    runs: dict[tuple[object, ...], _Run] = field(default_factory=dict)
    """Runs by what makes lines equal."""
    no_network: str | None = None
    """Why a line of pip did not reach the network."""

    async def prepare(self, node: ResolvedNode) -> BuiltNode | FailedNode:
        """Prepare one node; a failure is returned, so that other nodes are still prepared."""
        begun = time.monotonic()
        if node.needs_build:
            self.on_event(NodeBuildEvent(node=node.id, what="started"))
        try:
            built = await self._prepare(node)
        except StepFailed as error:
            return self._failed(node, str(error))
        except OSError as error:
            return self._failed(node, os_error_text(error))
        if node.needs_build:
            seconds = time.monotonic() - begun
            self.on_event(NodeBuildEvent(node=node.id, what="built", seconds=seconds))
        return built

    def _failed(self, node: ResolvedNode, text: str) -> FailedNode:
        self.on_event(NodeBuildEvent(node=node.id, what="failed", text=text))
        return FailedNode(node=node.id, message=text)

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
                raise StepFailed(
                    f"--uv needs the program uv, which is not on PATH: {install_command('uv')}"
                )
            if uv is not None and plan.wants_environment(node):
                python = await self._environment(node, directory, uv)
            await self._run_lines(node, lines, directory, python)
        place = NodeLocation(working_dir=str(directory), python=str(python) if python else None)
        return BuiltNode(node=node.id, place=place, commit=commit)

    async def _run_lines(
        self,
        node: ResolvedNode,
        lines: tuple[plan.BuildLine, ...],
        directory: Path,
        python: Path | None,
    ) -> None:
        """Run the lines, except those that ran for another node with the same result."""
        if not lines:
            return
        env = self._node_environ(node, python)
        seen: Counter[plan.BuildLine] = Counter()
        for line in lines:
            # A line that a node repeats on purpose runs again.
            seen[line] += 1
            key = (line.words, seen[line], directory, python, tuple(sorted(env.items())))
            run = self.runs.get(key)
            if run is None:
                run = self.runs[key] = _Run(node.id)
                try:
                    await self._run_line(node, line, directory, python, env)
                    run.succeeded = True
                finally:
                    run.ended.set()
                continue
            await run.ended.wait()
            if not run.succeeded:
                raise StepFailed(f'build line {line.text!r} failed for node "{run.node}"')
            self._skip(node, f'{line.text}: done for node "{run.node}"')
        await self._fit_arrow(node, directory, python, env)

    async def _fit_arrow(
        self, node: ResolvedNode, directory: Path, python: Path | None, env: Mapping[str, str]
    ) -> None:
        """Install a pyarrow that works with NumPy 1 if a build line has installed that."""
        sites = pip_lines.site_directories(python)
        if node.id in self.options.build_keys:  # has the packages of dora, too
            sites = [*sites, *pip_lines.site_directories(None)]
        conflict = await anyio.to_thread.run_sync(find_conflict, sites)
        if conflict is None:
            return
        self._step(node, f"pip install '{CURE}': {conflict}")
        result = await self._run_pip(node, ("install", CURE), directory, python, env)
        if not result.ok:
            raise StepFailed(f"{conflict}, and pip cannot install {CURE}: {result}")

    async def _prepare_own(
        self, node: ResolvedNode, directory: Path, lines: tuple[plan.BuildLine, ...]
    ) -> Path | None:
        """Build a node whose code was sent here, once per requirements; return its interpreter."""
        key = self.options.build_keys[node.id]
        if own_environment.is_built(directory, node.id, key):
            self._skip(node, "built already with the same requirements")
        else:
            await anyio.to_thread.run_sync(own_environment.begin, directory, node.id)
            python = None
            if plan.wants_environment(node):
                python = await self._environment(node, directory, find_uv(self.environ))
            await self._run_lines(node, lines, directory, python)
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
        result = await self._run(node, words, working_dir, self._environ())
        if result.ok:
            unfinished.unlink()
        python = environment_python(working_dir, node.id)
        if python is None:
            raise StepFailed(f"cannot create the Python environment {directory} ({result})")
        return python

    async def _run_line(
        self,
        node: ResolvedNode,
        line: plan.BuildLine,
        directory: Path,
        python: Path | None,
        env: Mapping[str, str],
    ) -> None:
        self._step(node, line.text)
        where = f"build line {line.text!r} in {directory}"
        arguments = pip_lines.pip_arguments(line.words)
        try:
            if arguments is None:
                result = await self._run(node, line.words, directory, env)
            else:
                result = await self._run_pip(node, arguments, directory, python, env)
        except FileNotFoundError as error:
            if error.filename == directory:
                raise StepFailed(f"{where}: the working directory does not exist") from None
            raise StepFailed(f"{where}: {_not_found(line.words[0], directory)}") from None
        except OSError as error:
            raise StepFailed(f"{where}: {line.words[0]}: {error.strerror}") from error
        if result.ok:
            return
        cause = pip_lines.network_failure(result.tail)
        if cause is not None:
            raise StepFailed(f"{where}: no network ({cause})")
        hint = plan.shell_hint(line) or out_dir.left_over(directory, result.tail)
        raise StepFailed(f"{where}: {result}" + (f" ({hint})" if hint else ""))

    async def _run_pip(
        self,
        node: ResolvedNode,
        arguments: tuple[str, ...],
        directory: Path,
        python: Path | None,
        env: Mapping[str, str],
    ) -> CommandResult:
        """Run a command of pip with uv, or with pip where uv is missing or refuses it."""
        uv = find_uv(env)
        if uv is not None and pip_lines.uses_uv(arguments, python):
            result = await self._run_uv(node, uv, arguments, directory, python, env)
            if result is not None:
                return result
        if find_spec("pip") is None:
            raise StepFailed(f"{sys.executable} has no pip, and uv is not installed: install one")
        return await self._run(node, pip_lines.pip_command(arguments, python), directory, env)

    async def _run_uv(
        self,
        node: ResolvedNode,
        uv: str,
        arguments: tuple[str, ...],
        directory: Path,
        python: Path | None,
        env: Mapping[str, str],
    ) -> CommandResult | None:
        """Run `uv pip`, without a network if there is none; None: pip may know the option.

        An error is only shown if nothing else is tried.
        """
        error: list[str] = []

        def show(line: str) -> None:
            if error or pip_lines.begins_error(line):
                error.append(line)
            else:
                self._output(node, line)

        env = {**pip_lines.uv_settings(env), **env}
        kept, projects = await anyio.to_thread.run_sync(
            pip_lines.split_projects, arguments, directory, python
        )
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            if projects:
                file.write("".join(f"{project}\n" for project in projects))
                file.flush()
                kept += ["--requirement", file.name]
            words = pip_lines.uv_command(uv, kept, python)
            for offline in (False, True) if self.no_network is None else (True, False):
                error.clear()
                variables = {**env, "UV_OFFLINE": "1"} if offline else env
                result = await run_command(
                    words, cwd=directory, env=variables, on_line=show, on_command=self.on_command
                )
                if not offline:
                    self.no_network = None if result.ok else pip_lines.network_failure(error)
                if result.ok or not (
                    pip_lines.lacks_download(error) if offline else self.no_network
                ):
                    break
            else:
                return CommandResult(result.exit_code, (self.no_network or "",))
        if not result.ok and pip_lines.is_unknown_to_uv(error) and find_spec("pip") is not None:
            return None
        for line in error:
            self._output(node, line)
        return result

    async def _run(
        self, node: ResolvedNode, words: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> CommandResult:
        on_line, on_command = partial(self._output, node), self.on_command
        return await run_command(words, cwd=cwd, env=env, on_line=on_line, on_command=on_command)

    def _node_environ(self, node: ResolvedNode, python: Path | None) -> dict[str, str]:
        """Return the environment variables of a node's build lines. Raises StepFailed."""
        merged = merge_environment(self._environ(), {}, {}, node.env)
        if merged.problems:
            raise StepFailed("; ".join(merged.problems))
        env = merged.variables
        if python is not None:
            return activated(env, python)
        path = env.get("PATH", os.defpath)
        own = str(Path(sys.executable).parent)
        env["PATH"] = f"{own}:{path}" if path else own
        return env

    def _environ(self) -> dict[str, str]:
        env = {name: text for name, text in self.environ.items() if not is_private(name)}
        return env | {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"} if self.options.offline else env

    def _step(self, node: ResolvedNode, text: str) -> None:
        self.on_event(NodeBuildEvent(node=node.id, what="step", text=text))

    def _skip(self, node: ResolvedNode, text: str) -> None:
        self.on_event(NodeBuildEvent(node=node.id, what="skipped", text=text))

    def _output(self, node: ResolvedNode, line: str) -> None:
        self.on_event(NodeBuildEvent(node=node.id, what="output", text=line))


def _not_found(program: str, directory: Path) -> str:
    """Return why a program could not be found."""
    if "/" not in program:
        return f"the program {program!r} is not on PATH"
    if (directory / program).exists():
        return f"the interpreter in the first line of {program} does not exist"
    return f"{program} does not exist"
