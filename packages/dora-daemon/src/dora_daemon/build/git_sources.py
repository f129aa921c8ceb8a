"""Git sources: `<base>/git/<host>/<repository path>/<commit>`, one clone per commit.

The commit of a branch is looked up at every build, that of a tag or revision until it is cloned;
the newest clone is used if the repository cannot be reached. A clone has a temporary name until it
is complete. A lock per repository excludes other builds, so that the incomplete clones of killed
builds can be removed.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dora_config.dataflow.resolved import GitSource
from dora_daemon.build.command import CommandResult, OnCommand, OnLine, run_command
from dora_daemon.build.errors import StepFailed
from dora_daemon.build.file_lock import file_lock
from dora_daemon.build.pip_lines import network_failure
from dora_daemon.out_dir import GIT_DIR, folder

UNFINISHED = ".cloning-"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]+):(?!//)(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A clone at one commit."""

    directory: Path
    commit: str
    cloned: bool
    """It was cloned now; otherwise it existed before."""


def repository_dir(base: Path, url: str) -> Path:
    """Return the folder of the clones of `url`. Raises StepFailed for an invalid URL."""
    if match := _SCP_LIKE.fullmatch(url):
        host, path = match["host"], match["path"]
    else:
        parts = urlsplit(url)
        host, path = parts.hostname or "localhost", unquote(parts.path)
    names = [name for name in path.removesuffix("/").removesuffix(".git").split("/") if name]
    if not names or any(name in (".", "..") for name in names) or url.startswith("-"):
        raise StepFailed(f"git source {url!r} is not the URL of a repository")
    return folder(base, GIT_DIR).joinpath(host, *names)


def reference(source: GitSource) -> str:
    """Return the reference of a source as shown to users: `branch "main"`."""
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
            "GIT_TERMINAL_PROMPT": "0",  # nor does ssh prompt, because commands have no terminal
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
        """Return the clone of a source (at the commit `locked` if given), created if missing.

        `on_clone` is called with the commit before a clone begins. Raises StepFailed.
        """
        if shutil.which("git", path=self._env.get("PATH")) is None:
            raise StepFailed("a git source needs the program git, which is not on PATH")
        repository = repository_dir(self._base, source.url)
        repository.mkdir(parents=True, exist_ok=True)
        async with file_lock(repository / ".lock"):
            for incomplete in repository.glob(f"{UNFINISHED}*"):
                shutil.rmtree(incomplete, ignore_errors=True)
            commit = locked or await self._commit_of(source, repository, on_line)
            directory = repository / commit
            if directory.is_dir():
                return Checkout(directory, commit, cloned=False)
            if self._offline:
                raise StepFailed(
                    f"{source.url} is not cloned at commit {commit}; build once without --offline"
                )
            if on_clone is not None:
                on_clone(commit)
            return await self._clone(source, repository, commit, on_line)

    async def _commit_of(self, source: GitSource, repository: Path, on_line: OnLine | None) -> str:
        """Return the commit to which a source refers now."""
        if source.rev is not None and _COMMIT.fullmatch(source.rev.lower()):
            return source.rev.lower()
        if self._offline or source.tag is not None or source.rev is not None:
            known = await self._known_commit(source, repository)
            if known is not None:
                return known
        if self._offline:
            raise StepFailed(
                f"{reference(source)} of {source.url} was never cloned;"
                " build once without --offline"
            )
        if source.rev is not None:
            return source.rev.lower()
        result = await self._list_remote(source)
        if result.ok:
            return _listed_commit(source, result.tail)
        cause = network_failure(result.tail)
        reason = f"cannot reach the git repository {source.url} ({cause or result})"
        known = await self._known_commit(source, repository)
        if on_line is not None and (known is not None or cause is None):
            for line in (f"{reason}; using its newest clone",) if known else result.tail:
                on_line(line)
        if known is None:
            raise StepFailed(reason)
        return known

    async def _known_commit(self, source: GitSource, repository: Path) -> str | None:
        """Return the commit of the newest clone that has this reference, if any."""
        if source.branch is not None:
            name = f"refs/remotes/origin/{source.branch}"
        elif source.tag is not None:
            name = f"refs/tags/{source.tag}"
        else:
            name = source.rev or "refs/remotes/origin/HEAD"
        for clone in _clones(repository):
            arguments = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            result = await self._git(*arguments, cwd=clone)
            if result.ok and result.tail[-1:] == (clone.name,):
                return clone.name
        return None

    async def _list_remote(self, source: GitSource) -> CommandResult:
        patterns = _patterns(source)
        return await self._git("ls-remote", "--", source.url, *patterns, cwd=self._base)

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
            if not directory.is_dir():  # a short revision may be a commit that exists
                unfinished.rename(directory)
            return Checkout(directory, head, cloned=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    async def _must(
        self, source: GitSource, *arguments: str, cwd: Path, on_line: OnLine | None
    ) -> None:
        result = await self._git(*arguments, cwd=cwd, on_line=on_line)
        if not result.ok:
            if cause := network_failure(result.tail):
                raise StepFailed(f"cannot reach the git repository {source.url} ({cause})")
            raise StepFailed(
                f"cannot check out {reference(source)} of {source.url}: "
                f"git {next(a for a in arguments if a[0] != '-' and '=' not in a)}, {result}"
            )

    async def _git(
        self, *arguments: str, cwd: Path, on_line: OnLine | None = None
    ) -> CommandResult:
        words = ("git", *arguments)
        env, on_command = self._env, self._on_command
        return await run_command(words, cwd=cwd, env=env, on_line=on_line, on_command=on_command)


def _patterns(source: GitSource) -> tuple[str, ...]:
    """Return the references that `git ls-remote` lists for a source."""
    if source.branch is not None:
        return (f"refs/heads/{source.branch}",)
    if source.tag is not None:
        return (f"refs/tags/{source.tag}", f"refs/tags/{source.tag}^{{}}")
    return ("HEAD",)


def _listed_commit(source: GitSource, lines: Sequence[str]) -> str:
    """Return the commit in the output of `git ls-remote`."""
    rows = [line.split("\t") for line in lines if "\t" in line]
    found = {name: commit for commit, name in rows if _COMMIT.fullmatch(commit)}
    for pattern in reversed(_patterns(source)):  # the commit of an annotated tag is tag^{}
        if pattern in found:
            return found[pattern]
    raise StepFailed(f"{source.url} has no {reference(source)}")


def _clones(repository: Path) -> list[Path]:
    """Return the clones of a repository, newest first."""
    clones = [path for path in repository.iterdir() if _COMMIT.fullmatch(path.name)]
    return sorted(clones, key=lambda path: path.stat().st_mtime, reverse=True)
