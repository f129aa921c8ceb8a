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
"""Prefix of the names of incomplete clones."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCP_LIKE = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]+):(?!//)(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A clone at one commit."""

    directory: Path
    commit: str
    cloned: bool
    """Whether the clone is new."""


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


@dataclass(slots=True)
class GitCheckout:
    """Clones one source into its folder under a base directory."""

    source: GitSource
    base: Path
    environ: Mapping[str, str]
    offline: bool = False
    on_line: OnLine = lambda line: None
    on_clone: Callable[[str], None] = lambda commit: None
    """Called with the commit before a clone begins."""
    on_command: OnCommand | None = None

    async def run(self, locked: str | None = None) -> Checkout:
        """Return the clone (at the commit `locked` if given), created if missing.

        Raises StepFailed.
        """
        url = self.source.url
        if shutil.which("git", path=self.environ.get("PATH")) is None:
            raise StepFailed("a git source needs the program git, which is not on PATH")
        repository = repository_dir(self.base, url)
        repository.mkdir(parents=True, exist_ok=True)
        async with file_lock(repository / ".lock"):
            for incomplete in repository.glob(f"{UNFINISHED}*"):
                shutil.rmtree(incomplete, ignore_errors=True)
            commit = locked or await self._commit(repository)
            directory = repository / commit
            if directory.is_dir():
                return Checkout(directory, commit, cloned=False)
            if self.offline:
                raise StepFailed(
                    f"{url} is not cloned at commit {commit}; build once without --offline"
                )
            self.on_clone(commit)
            return await self._clone(repository, commit)

    async def _commit(self, repository: Path) -> str:
        """Return the commit to which the source refers now."""
        source = self.source
        if source.rev is not None and _COMMIT.fullmatch(source.rev.lower()):
            return source.rev.lower()
        if self.offline or source.tag is not None or source.rev is not None:
            known = await self._known_commit(repository)
            if known is not None:
                return known
        if self.offline:
            raise StepFailed(
                f"{reference(source)} of {source.url} was never cloned;"
                " build once without --offline"
            )
        if source.rev is not None:
            return source.rev.lower()
        result = await self._git("ls-remote", "--", source.url, *_patterns(source), cwd=self.base)
        if result.ok:
            return _listed_commit(source, result.tail)
        cause = network_failure(result.tail)
        reason = f"cannot reach the git repository {source.url} ({cause or result})"
        known = await self._known_commit(repository)
        if known is not None or cause is None:
            for line in (f"{reason}; using its newest clone",) if known else result.tail:
                self.on_line(line)
        if known is None:
            raise StepFailed(reason)
        return known

    async def _known_commit(self, repository: Path) -> str | None:
        """Return the commit of the newest clone that has the reference, if any."""
        source = self.source
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

    async def _clone(self, repository: Path, commit: str) -> Checkout:
        clone = repository / f"{UNFINISHED}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            arguments = ("clone", "--no-checkout", "--", self.source.url, str(clone))
            await self._must(*arguments, cwd=repository)
            wanted = commit if _COMMIT.fullmatch(commit) else f"{commit}^{{commit}}"
            quiet = ("-c", "advice.detachedHead=false")
            await self._must(*quiet, "checkout", "--detach", wanted, cwd=clone)
            if (clone / ".gitmodules").is_file():
                await self._must("submodule", "update", "--init", "--recursive", cwd=clone)
            head = (await self._git("rev-parse", "HEAD", cwd=clone)).tail[-1]
            directory = repository / head
            if not directory.is_dir():  # a short revision may be a commit that is cloned already
                clone.rename(directory)
            return Checkout(directory, head, cloned=True)
        finally:
            shutil.rmtree(clone, ignore_errors=True)

    async def _must(self, *arguments: str, cwd: Path) -> None:
        """Run git and show its output. Raises StepFailed."""
        result = await self._git(*arguments, cwd=cwd, on_line=self.on_line)
        if not result.ok:
            url = self.source.url
            if cause := network_failure(result.tail):
                raise StepFailed(f"cannot reach the git repository {url} ({cause})")
            raise StepFailed(
                f"cannot check out {reference(self.source)} of {url}: "
                f"git {next(a for a in arguments if a[0] != '-' and '=' not in a)}, {result}"
            )

    async def _git(
        self, *arguments: str, cwd: Path, on_line: OnLine | None = None
    ) -> CommandResult:
        hidden = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
        env = {name: text for name, text in self.environ.items() if name not in hidden}
        # no prompts of git; ssh cannot prompt, because commands have no terminal
        env |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        words = ("git", *arguments)
        return await run_command(
            words, cwd=cwd, env=env, on_line=on_line, on_command=self.on_command
        )


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
