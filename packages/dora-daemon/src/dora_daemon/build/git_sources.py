"""Git sources: `<base>/git/<host>/<repository path>/<commit>`, one clone a commit.

A branch is asked for its newest commit at every build; a tag or a revision is not once it is
cloned. A clone is made under a temporary name and renamed when it is whole, so whatever stands
under a commit's name is whole. A lock keeps two builds from cloning the same repository at once,
and lets the next one remove what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio

from dora_config.dataflow.resolved import GitSource
from dora_daemon.build.command import OnCommand, OnLine, Outcome, run_command
from dora_daemon.build.errors import StepFailed

UNFINISHED = ".cloning-"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]+):(?!//)(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A clone at one commit."""

    directory: Path
    commit: str
    cloned: bool
    """Whether it was made now; otherwise it was there."""


def repository_dir(base: Path, url: str) -> Path:
    """Where the clones of `url` lie: one folder a commit. StepFailed for a URL that names none."""
    if match := _SCP_LIKE.fullmatch(url):
        host, path = match["host"], match["path"]
    else:
        parts = urlsplit(url)
        host, path = parts.hostname or "localhost", unquote(parts.path)
    names = [name for name in path.removesuffix("/").removesuffix(".git").split("/") if name]
    if not names or any(name in (".", "..") for name in names) or url.startswith("-"):
        raise StepFailed(f"git source {url!r} is not the URL of a repository")
    return base.joinpath("git", host, *names)


def reference(source: GitSource) -> str:
    """The wanted reference in words: `branch "main"`."""
    if source.branch is not None:
        return f'branch "{source.branch}"'
    if source.tag is not None:
        return f'tag "{source.tag}"'
    if source.rev is not None:
        return f'revision "{source.rev}"'
    return "the default branch"


class GitSources:
    """Clones under one base directory."""

    def __init__(
        self,
        base: Path,
        *,
        environ: Mapping[str, str],
        offline: bool = False,
        on_command: OnCommand | None = None,
    ) -> None:
        self._base = base
        self._offline = offline
        self._on_command = on_command
        self._env = {
            **environ,
            "GIT_TERMINAL_PROMPT": "0",  # ssh cannot ask either: commands have no terminal
            "LC_ALL": "C",
        }
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            self._env.pop(name, None)

    async def checkout(
        self,
        source: GitSource,
        *,
        locked: str | None = None,
        on_line: OnLine | None = None,
        on_clone: Callable[[str], None] | None = None,
    ) -> Checkout:
        """The clone that `source` asks for (at the commit `locked` when given), made if missing.

        `on_clone` is told the commit before a clone begins. Raises StepFailed.
        """
        if shutil.which("git", path=self._env.get("PATH")) is None:
            raise StepFailed("a git source needs the program git, which is not on PATH")
        repository = repository_dir(self._base, source.url)
        repository.mkdir(parents=True, exist_ok=True)
        async with _only_build_here(repository):
            commit = locked or await self._commit_of(source, repository)
            directory = repository / commit
            if directory.is_dir():
                return Checkout(directory, commit, cloned=False)
            if self._offline:
                raise StepFailed(
                    f"{source.url} is not cloned at commit {commit}, and --offline forbids to "
                    "fetch it"
                )
            if on_clone is not None:
                on_clone(commit)
            return await self._clone(source, repository, commit, on_line)

    async def _commit_of(self, source: GitSource, repository: Path) -> str:
        """The commit a source means now."""
        if source.rev is not None and _COMMIT.fullmatch(source.rev.lower()):
            return source.rev.lower()
        if self._offline or source.tag is not None or source.rev is not None:
            known = await self._known_commit(source, repository)
            if known is not None:
                return known
        if self._offline:
            raise StepFailed(
                f"{reference(source)} of {source.url} was never cloned, and --offline forbids to "
                "ask for it"
            )
        if source.rev is not None:
            return source.rev.lower()
        return await self._ask_remote(source)

    async def _known_commit(self, source: GitSource, repository: Path) -> str | None:
        """The commit of an earlier clone that was made for this reference, newest first."""
        names = {
            "branch": f"refs/remotes/origin/{source.branch}",
            "tag": f"refs/tags/{source.tag}",
            "rev": source.rev or "",
            "head": "refs/remotes/origin/HEAD",
        }
        kind = next((k for k in ("branch", "tag", "rev") if getattr(source, k) is not None), "head")
        for clone in _clones(repository):
            outcome = await self._git(
                "rev-parse", "--verify", "--quiet", f"{names[kind]}^{{commit}}", cwd=clone
            )
            if outcome.ok and outcome.tail[-1:] == (clone.name,):
                return clone.name
        return None

    async def _ask_remote(self, source: GitSource) -> str:
        if source.branch is not None:
            patterns = [f"refs/heads/{source.branch}"]
        elif source.tag is not None:
            patterns = [f"refs/tags/{source.tag}", f"refs/tags/{source.tag}^{{}}"]
        else:
            patterns = ["HEAD"]
        outcome = await self._git("ls-remote", "--", source.url, *patterns, cwd=self._base)
        if not outcome.ok:
            raise StepFailed(
                f"cannot reach the git repository {source.url} ({outcome})", outcome.tail
            )
        rows = [line.split("\t") for line in outcome.tail if "\t" in line]
        found = {name: commit for commit, name in rows if _COMMIT.fullmatch(commit)}
        for pattern in reversed(patterns):  # an annotated tag's commit stands under tag^{}
            if pattern in found:
                return found[pattern]
        raise StepFailed(f"{source.url} has no {reference(source)}")

    async def _clone(
        self, source: GitSource, repository: Path, commit: str, on_line: OnLine | None
    ) -> Checkout:
        unfinished = repository / f"{UNFINISHED}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            arguments = ("clone", "--no-checkout", "--", source.url, str(unfinished))
            await self._must(source, *arguments, cwd=repository, on_line=on_line)
            wanted = commit if _COMMIT.fullmatch(commit) else f"{commit}^{{commit}}"
            quiet = ("-c", "advice.detachedHead=false")
            await self._must(
                source, *quiet, "checkout", "--detach", wanted, cwd=unfinished, on_line=on_line
            )
            if (unfinished / ".gitmodules").is_file():
                await self._must(
                    source, "submodule", "update", "--init", "--recursive",
                    cwd=unfinished, on_line=on_line,
                )  # fmt: skip
            head = (await self._git("rev-parse", "HEAD", cwd=unfinished)).tail[-1]
            directory = repository / head
            if not directory.is_dir():  # a short revision may name a commit that is there
                unfinished.rename(directory)
            return Checkout(directory, head, cloned=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    async def _must(
        self, source: GitSource, *arguments: str, cwd: Path, on_line: OnLine | None
    ) -> None:
        outcome = await self._git(*arguments, cwd=cwd, on_line=on_line)
        if not outcome.ok:
            raise StepFailed(
                f"cannot check out {reference(source)} of {source.url}: "
                f"git {next(a for a in arguments if a[0] != '-' and '=' not in a)}, {outcome}",
                outcome.tail,
            )

    async def _git(self, *arguments: str, cwd: Path, on_line: OnLine | None = None) -> Outcome:
        return await run_command(
            ("git", *arguments),
            cwd=cwd,
            env=self._env,
            on_line=on_line,
            on_command=self._on_command,
        )


@asynccontextmanager
async def _only_build_here(repository: Path) -> AsyncIterator[None]:
    """Hold the repository's lock; what a killed build left behind is removed first."""
    descriptor = os.open(repository / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(descriptor):  # noqa: ASYNC110 - the other build is another process
            await anyio.sleep(0.1)
        _remove_unfinished(repository)
        yield
    finally:
        os.close(descriptor)


def _clones(repository: Path) -> list[Path]:
    """The clones of a repository, newest first."""
    clones = [path for path in repository.iterdir() if _COMMIT.fullmatch(path.name)]
    return sorted(clones, key=lambda path: path.stat().st_mtime, reverse=True)


def _remove_unfinished(repository: Path) -> None:
    for left in repository.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
