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
from dora_config.protocol.builds import BuildStage, BuiltNode, FailedNode, NodeBuildEvent
from dora_daemon import out_dir
from dora_daemon.build import own_environment, pip_lines, plan
from dora_daemon.build.arrow_versions import CURE, find_conflict
from dora_daemon.build.command import CommandResult, OnCommand, OnLine, run_command
from dora_daemon.build.errors import BuildError, StepFailed
from dora_daemon.build.file_lock import file_lock
from dora_daemon.build.git_sources import GitCheckout, reference
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
"""Nodes that are built at once."""
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
    build = _Build(base_dir, options, dict(environ), on_event, on_command)
    limiter = anyio.CapacityLimiter(options.parallel())
    outcomes: dict[str, BuiltNode | FailedNode] = {}

    async def prepare_one(node: ResolvedNode) -> None:
        async with limiter:
            outcomes[node.id] = await _NodeBuild(build, node).prepare()

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
class _Build:
    """State that the nodes of one build share."""

    base_dir: Path
    options: BuildOptions
    environ: dict[str, str]
    on_event: OnBuildEvent
    on_command: OnCommand | None
    runs: dict[tuple[object, ...], _Run] = field(default_factory=dict)
    """Runs by all that two equal lines have in common."""
    no_network: str | None = None
    """Why a line of pip did not reach the network."""


class _NodeBuild:
    """Preparation of one node."""

    def __init__(self, build: _Build, node: ResolvedNode) -> None:
        self._build = build
        self._options = build.options
        self._node = node
        self._directory = build.base_dir
        self._python: Path | None = None
        """Interpreter of the node's environment."""

    async def prepare(self) -> BuiltNode | FailedNode:
        """Return the node, or its failure, so that other nodes are still prepared."""
        begun = time.monotonic()
        if self._node.needs_build:
            self._report("started")
        try:
            built = await self._prepare()
        except (StepFailed, OSError) as error:
            text = str(error) if isinstance(error, StepFailed) else os_error_text(error)
            self._report("failed", text)
            return FailedNode(node=self._node.id, message=text)
        if self._node.needs_build:
            self._report("built", seconds=time.monotonic() - begun)
        return built

    async def _prepare(self) -> BuiltNode:
        node, options = self._node, self._options
        lines = plan.build_lines(node)
        if options.apply_deploy and node.deploy.working_dir:
            self._directory = self._directory / node.deploy.working_dir
            self._directory.mkdir(parents=True, exist_ok=True)
        commit = None if node.git is None else await self._clone(node.git)
        if node.id in options.build_keys:
            await self._prepare_own(lines)
        else:
            uv = find_uv(self._build.environ) if options.uv else None
            if options.uv and uv is None and lines:
                raise StepFailed(
                    f"--uv needs the program uv, which is not on PATH: {install_command('uv')}"
                )
            if uv is not None and plan.wants_environment(node):
                self._python = await self._environment(uv)
            await self._run_lines(lines)
        python = None if self._python is None else str(self._python)
        place = NodeLocation(working_dir=str(self._directory), python=python)
        return BuiltNode(node=node.id, place=place, commit=commit)

    async def _run_lines(self, lines: tuple[plan.BuildLine, ...]) -> None:
        """Run the lines, except those that ran for another node with the same result."""
        if not lines:
            return
        env = self._node_environ()
        seen: Counter[plan.BuildLine] = Counter()
        for line in lines:
            # A line that a node repeats on purpose runs again.
            seen[line] += 1
            where = (self._directory, self._python, tuple(sorted(env.items())))
            key = (line.words, seen[line], *where)
            run = self._build.runs.get(key)
            if run is None:
                run = self._build.runs[key] = _Run(self._node.id)
                try:
                    await self._run_line(line, env)
                    run.succeeded = True
                finally:
                    run.ended.set()
                continue
            await run.ended.wait()
            if not run.succeeded:
                raise StepFailed(f'build line {line.text!r} failed for node "{run.node}"')
            self._report("skipped", f'{line.text}: done for node "{run.node}"')
        await self._fit_arrow(env)

    async def _fit_arrow(self, env: Mapping[str, str]) -> None:
        """Install a pyarrow that works with NumPy 1 if a build line has installed that."""
        sites = pip_lines.site_directories(self._python)
        if self._node.id in self._options.build_keys:  # shares the packages of dora
            sites = [*sites, *pip_lines.site_directories(None)]
        conflict = await anyio.to_thread.run_sync(find_conflict, sites)
        if conflict is None:
            return
        self._report("step", f"pip install '{CURE}': {conflict}")
        result = await self._run_pip(("install", CURE), env)
        if not result.ok:
            raise StepFailed(f"{conflict}, and pip cannot install {CURE}: {result}")

    async def _prepare_own(self, lines: tuple[plan.BuildLine, ...]) -> None:
        """Build a node whose code was sent here, unless its requirements are the same as before."""
        node, directory = self._node.id, self._directory
        key = self._options.build_keys[node]
        if own_environment.is_built(directory, node, key):
            self._report("skipped", "built already with the same requirements")
        else:
            await anyio.to_thread.run_sync(own_environment.begin, directory, node)
            if plan.wants_environment(self._node):
                self._python = await self._environment(find_uv(self._build.environ))
            await self._run_lines(lines)
            own_environment.mark_built(directory, node, key)
        own_environment.share_packages(directory, node)
        self._python = environment_python(directory, node)

    async def _clone(self, git: GitSource) -> str:
        """Use the clone of a git source; return its commit."""
        build, options = self._build, self._options
        locked = None
        if options.commits is not None:
            locked = options.commits.get(self._node.id)
            if locked is None:
                raise StepFailed("its git source is not in the lock file")
        checkout = await GitCheckout(
            git,
            build.base_dir,
            build.environ,
            offline=options.offline,
            on_line=partial(self._report, "output"),
            on_clone=lambda commit: self._report("step", f"git clone {git.url} at {commit[:12]}"),
            on_command=build.on_command,
        ).run(locked)
        if not checkout.cloned:
            found = f"{reference(git)} of {git.url} is cloned at {checkout.commit[:12]}"
            self._report("skipped", found)
        self._directory = checkout.directory
        return checkout.commit

    async def _environment(self, uv: str | None) -> Path:
        """Return the interpreter of the node's environment, created if missing."""
        # Look before locking, which needs a writable folder.
        python = environment_python(self._directory, self._node.id)
        if python is not None:
            return python
        lock = environment_lock(self._directory, self._node.id)
        lock.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(self._report, "step", "waiting for another build of this folder")
        async with file_lock(lock, waiting):
            python = environment_python(self._directory, self._node.id)
            return python or await self._create_environment(uv)

    async def _create_environment(self, uv: str | None) -> Path:
        node, working_dir = self._node.id, self._directory
        self._report("step", "python -m venv" if uv is None else "uv venv")
        directory = environment_dir(working_dir, node)
        unfinished = unfinished_mark(working_dir, node)
        unfinished.touch()
        await anyio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
        result = await self._run(create_command(working_dir, node, uv), self._environ())
        if result.ok:
            unfinished.unlink()
        python = environment_python(working_dir, node)
        if python is None:
            raise StepFailed(f"cannot create the Python environment {directory} ({result})")
        return python

    async def _run_line(self, line: plan.BuildLine, env: Mapping[str, str]) -> None:
        directory = self._directory
        self._report("step", line.text)
        where = f"build line {line.text!r} in {directory}"
        arguments = pip_lines.pip_arguments(line.words)
        try:
            if arguments is None:
                result = await self._run(line.words, env)
            else:
                result = await self._run_pip(arguments, env)
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

    async def _run_pip(self, arguments: tuple[str, ...], env: Mapping[str, str]) -> CommandResult:
        """Run a command of pip with uv, or with pip where uv is missing or refuses it."""
        uv = find_uv(env)
        if uv is not None and pip_lines.uses_uv(arguments, self._python):
            result = await self._run_uv(uv, arguments, env)
            if result is not None:
                return result
        if find_spec("pip") is None:
            raise StepFailed(f"{sys.executable} has no pip, and uv is not installed: install one")
        return await self._run(pip_lines.pip_command(arguments, self._python), env)

    async def _run_uv(
        self, uv: str, arguments: tuple[str, ...], env: Mapping[str, str]
    ) -> CommandResult | None:
        """Run `uv pip`; repeat it offline if the network fails.

        None: uv refused an option that pip may support. An error is only shown if it is final.
        """
        build = self._build
        error: list[str] = []

        def show(line: str) -> None:
            if error or pip_lines.begins_error(line):
                error.append(line)
            else:
                self._report("output", line)

        env = {**pip_lines.uv_settings(env), **env}
        kept, projects = await anyio.to_thread.run_sync(
            pip_lines.split_projects, arguments, self._directory, self._python
        )
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            if projects:
                file.write("".join(f"{project}\n" for project in projects))
                file.flush()
                kept += ["--requirement", file.name]
            words = pip_lines.uv_command(uv, kept, self._python)
            for offline in (False, True) if build.no_network is None else (True, False):
                error.clear()
                result = await self._run(
                    words, {**env, "UV_OFFLINE": "1"} if offline else env, show
                )
                if not offline:
                    build.no_network = None if result.ok else pip_lines.network_failure(error)
                if result.ok or not (
                    pip_lines.lacks_download(error) if offline else build.no_network
                ):
                    break
            else:
                return CommandResult(result.exit_code, (build.no_network or "",))
        if not result.ok and pip_lines.is_unknown_to_uv(error) and find_spec("pip") is not None:
            return None
        for line in error:
            self._report("output", line)
        return result

    async def _run(
        self, words: Sequence[str], env: Mapping[str, str], on_line: OnLine | None = None
    ) -> CommandResult:
        return await run_command(
            words,
            cwd=self._directory,
            env=env,
            on_line=on_line or partial(self._report, "output"),
            on_command=self._build.on_command,
        )

    def _node_environ(self) -> dict[str, str]:
        """Return the environment variables of the build lines. Raises StepFailed."""
        merged = merge_environment(self._environ(), {}, {}, self._node.env)
        if merged.problems:
            raise StepFailed("; ".join(merged.problems))
        env = merged.variables
        if self._python is not None:
            return activated(env, self._python)
        path = env.get("PATH", os.defpath)
        own = str(Path(sys.executable).parent)
        env["PATH"] = f"{own}:{path}" if path else own
        return env

    def _environ(self) -> dict[str, str]:
        env = {name: text for name, text in self._build.environ.items() if not is_private(name)}
        return env | {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"} if self._options.offline else env

    def _report(self, what: BuildStage, text: str = "", seconds: float = 0.0) -> None:
        event = NodeBuildEvent(node=self._node.id, what=what, text=text, seconds=seconds)
        self._build.on_event(event)


def _not_found(program: str, directory: Path) -> str:
    """Return why a program could not be found."""
    if "/" not in program:
        return f"the program {program!r} is not on PATH"
    if (directory / program).exists():
        return f"the interpreter in the first line of {program} does not exist"
    return f"{program} does not exist"
