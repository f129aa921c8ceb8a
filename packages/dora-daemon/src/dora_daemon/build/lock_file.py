"""`<stem>.dora-lock.yaml`: the commit of every git source, for builds that must not change.

The shape is the peer's (`git_sources: {node: {repo, commit_hash}}`), so its files are accepted;
`reference` is ours: a changed branch or tag in the dataflow file is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dora_config import ResolvedDataflow
from dora_config.dataflow.resolved import GitSource
from dora_config.yaml.reader import read_document
from dora_config.yaml.writer import dump_yaml
from dora_daemon.build.errors import LockFileError
from dora_daemon.build.git_sources import reference

VERSION = 2


@dataclass(frozen=True, slots=True)
class LockedSource:
    """What one node's git source was when the lock file was written."""

    repo: str
    commit: str
    reference: str | None = None


def lock_file_path(dataflow: Path) -> Path:
    """The default place: beside the dataflow file."""
    return dataflow.with_name(f"{dataflow.stem}.dora-lock.yaml")


def read_lock_file(path: Path) -> dict[str, LockedSource]:
    """Locked sources by node id; raises LockFileError."""
    try:
        document = read_document(path.read_text(), str(path))
    except FileNotFoundError:
        raise LockFileError(
            path, "there is no lock file; write it with `dora build --write-lockfile`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LockFileError(path, f"cannot be read: {error}") from error
    for problem in document.problems:
        raise LockFileError(path, f"line {problem.line}: {problem.message}")
    sources = document.data.get("git_sources") if isinstance(document.data, dict) else None
    if not isinstance(sources, dict):
        raise LockFileError(path, "is not a lock file: it has no mapping `git_sources`")
    return {str(node): _locked_source(path, str(node), entry) for node, entry in sources.items()}


def _locked_source(path: Path, node: str, entry: object) -> LockedSource:
    if isinstance(entry, dict):
        repo, commit = entry.get("repo"), entry.get("commit_hash")
        wanted = entry.get("reference")
        if (
            isinstance(repo, str)
            and isinstance(commit, str)
            and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit)
        ):
            return LockedSource(repo, commit, wanted if isinstance(wanted, str) else None)
    raise LockFileError(path, f'git_sources of node "{node}": expected `repo` and `commit_hash`')


def write_lock_file(path: Path, sources: Mapping[str, LockedSource]) -> None:
    """Replace the lock file as a whole; raises LockFileError."""
    entries = {
        node: {"repo": one.repo, "reference": one.reference, "commit_hash": one.commit}
        for node, one in sources.items()
    }
    text = dump_yaml({"version": VERSION, "git_sources": entries})
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise LockFileError(path, f"cannot be written: {error.strerror}") from error


def lock_source(source: GitSource, commit: str) -> LockedSource:
    """What the lock file says of a source that is at `commit`."""
    return LockedSource(source.url, commit, reference(source))


def check_lock(
    path: Path, locked: Mapping[str, LockedSource], dataflow: ResolvedDataflow
) -> dict[str, str]:
    """Commit by node id, for every node with a git source; LockFileError when the lock is stale."""
    commits: dict[str, str] = {}
    wrong: list[str] = []
    for node in dataflow.nodes:
        if node.git is None:
            continue
        entry = locked.get(node.id)
        wanted = reference(node.git)
        if entry is None:
            wrong.append(f'node "{node.id}" has a git source but is not in the lock file')
        elif entry.repo != node.git.url:
            wrong.append(f'node "{node.id}" is locked to {entry.repo}, but uses {node.git.url}')
        elif entry.reference not in (None, wanted):
            wrong.append(f'node "{node.id}" is locked to {entry.reference}, but uses {wanted}')
        else:
            commits[node.id] = entry.commit
    if wrong:
        wrong.append("write it anew with `dora build --write-lockfile`")
        raise LockFileError(path, "; ".join(wrong))
    return commits
