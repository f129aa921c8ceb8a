"""`<stem>.dora-lock.yaml`: the commit of every git source, for reproducible builds.

The format is that of dora-rs (`git_sources: {node: {repo, commit_hash}}`); its files are accepted.
`reference` is an addition, by which a changed branch or tag in the dataflow file is detected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from dora_config.atomic_write import write_file
from dora_config.dataflow.resolved import GitSource, ResolvedDataflow
from dora_config.protocol.envelope import Message
from dora_config.yaml.reader import read_document
from dora_config.yaml.writer import dump_yaml
from dora_daemon.build.errors import LockFileError
from dora_daemon.build.git_sources import reference

VERSION = 2
"""Version of the format of dora-rs."""
_COMMIT = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})")


class LockedSource(Message):
    """Git source of one node when the lock file was written."""

    repo: str
    reference: str | None = None
    commit_hash: str = Field(pattern=f"^{_COMMIT.pattern}$")


def lock_file_path(dataflow: Path) -> Path:
    """Return the default path: beside the dataflow file."""
    return dataflow.with_name(f"{dataflow.stem}.dora-lock.yaml")


def read_lock_file(path: Path) -> dict[str, LockedSource]:
    """Return locked sources by node id. Raises LockFileError."""
    try:
        document = read_document(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise LockFileError(
            path, "the lock file does not exist; write it with `dora build --write-lockfile`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LockFileError(path, f"cannot be read: {error}") from error
    for problem in document.problems:
        raise LockFileError(path, f"line {problem.line}: {problem.message}")
    content = document.data if isinstance(document.data, dict) else {}
    sources, version = content.get("git_sources"), content.get("version", VERSION)
    if version != VERSION:
        text = f"has version {version!r}, expected {VERSION}; write it with this version of dora:"
        raise LockFileError(path, f"{text} `dora build --write-lockfile`")
    if not isinstance(sources, dict):
        raise LockFileError(path, "is not a lock file: it has no mapping `git_sources`")
    found = {}
    for node, entry in sources.items():
        try:
            found[str(node)] = LockedSource.model_validate(entry)
        except ValidationError as error:
            text = f'git_sources of node "{node}": {_problem(entry)}'
            raise LockFileError(path, text) from error
    return found


def _problem(entry: object) -> str:
    """Return why an entry is not a locked source."""
    if isinstance(entry, dict) and {"repo", "commit_hash"} <= entry.keys():
        commit = entry["commit_hash"]
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            return f"commit_hash {commit!r} is not 40 or 64 hexadecimal digits"
    return "expected the texts `repo` and `commit_hash`"


def write_lock_file(path: Path, sources: Mapping[str, LockedSource]) -> None:
    """Replace the lock file atomically. Raises LockFileError."""
    entries = {node: source.model_dump() for node, source in sources.items()}
    try:
        write_file(path, dump_yaml({"version": VERSION, "git_sources": entries}))
    except OSError as error:
        raise LockFileError(path, f"cannot be written: {error.strerror}") from error


def lock_source(source: GitSource, commit: str) -> LockedSource:
    """Return the entry of a source that is at `commit`."""
    return LockedSource(repo=source.url, reference=reference(source), commit_hash=commit)


def check_lock(
    path: Path, locked: Mapping[str, LockedSource], dataflow: ResolvedDataflow
) -> dict[str, str]:
    """Return the commit of each node with a git source. Raises LockFileError for a stale lock."""
    commits: dict[str, str] = {}
    wrong: list[str] = []
    for node in dataflow.nodes:
        if node.git is None:
            continue
        entry = locked.get(node.id)
        expected = reference(node.git)
        if entry is None:
            wrong.append(f'node "{node.id}" has a git source but is not in the lock file')
        elif entry.repo != node.git.url:
            wrong.append(f'node "{node.id}" is locked to {entry.repo}, but uses {node.git.url}')
        elif entry.reference not in (None, expected):
            wrong.append(f'node "{node.id}" is locked to {entry.reference}, but uses {expected}')
        else:
            commits[node.id] = entry.commit_hash
    if wrong:
        wrong.append("update it with `dora build --write-lockfile`")
        raise LockFileError(path, "; ".join(wrong))
    return commits
