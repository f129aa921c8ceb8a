"""Determines from build lines which files a build could read.

Lines of pip and `uv pip` read the files and folders that they name, included requirement files, and
local paths that a project names. Any other command may read everything in the working directory. A
build runs each time if its sources can change without a trace on this machine (a branch, a URL,
`-U`), or if its target can (`--target`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from dora_daemon.build.plan import NAMES_TARGET, PIP, BuildLine
from dora_daemon.build.snapshot import git_files

_PYTHON = ("python", "python3")
_FETCHES = re.compile(
    r"(?<![\w.-])(git|hg|svn|curl|wget|rsync|scp|ssh|apt|apt-get|dnf|docker|podman|conda|uv)"
    r"(?![\w.-])"
)
_UPGRADES = ("-U", "--upgrade", "--force-reinstall", "--pre", "--user", "--root", "--refresh")
_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--trusted-host")
_COMMIT = re.compile(r"@[0-9a-f]{40}(?![0-9a-f])")
_QUOTED = re.compile(r"""["']([^"'\n]+)["']""")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
_MAX_REQUIREMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Files and folders that a build could read."""

    roots: tuple[Path, ...]
    names: frozenset[str] = frozenset()
    """Distributions that the lines and requirement files name, normalized."""
    installs_only: bool = True
    """Whether every line only installs Python packages."""


def inputs_of(lines: Sequence[BuildLine], directory: Path) -> BuildInputs | None:
    """Return what the lines of one node could read; None if they must run each time."""
    found = _Collector(directory)
    for line in lines:
        words = install_words(line.words)
        if words is not None:
            found.add_words(words)
        else:
            found.add_command(line)
    if found.changes_unseen:
        return None
    return BuildInputs(tuple(sorted(found.roots)), frozenset(found.names), found.installs_only)


def install_words(words: Sequence[str]) -> Sequence[str] | None:
    """Return the arguments of `pip install`, however pip is called; None for other commands."""
    if words[0] in PIP:
        rest = words[1:]
    elif words[0] in _PYTHON and words[1:3] == ("-m", "pip"):
        rest = words[3:]
    elif words[:2] == ("uv", "pip"):
        rest = words[2:]
    else:
        return None
    return rest[1:] if rest[:1] == ("install",) else None


def normalized(name: str) -> str:
    """Return the normalized name of a distribution, for comparison."""
    return re.sub(r"[-_.]+", "-", name).lower()


class _Collector:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.roots: set[Path] = set()
        self.names: set[str] = set()
        self.installs_only = True
        self.changes_unseen = False

    def add_command(self, line: BuildLine) -> None:
        self.installs_only = False
        self.changes_unseen |= _FETCHES.search(line.text) is not None
        self.roots.add(self._directory)
        self.roots.update(git_files(self._directory))
        for word in line.words:
            for path in self._paths(word, self._directory):
                self._add_path(path)

    def add_words(self, words: Iterable[str], base: Path | None = None) -> None:
        """Add the words of an install line, or of a line of a requirement file in `base`."""
        previous = ""
        for word in words:
            indexed = previous in _INDEX_OPTIONS or word.partition("=")[0] in _INDEX_OPTIONS
            previous, option = word, word.partition("=")[0]
            self.changes_unseen |= option in (*_UPGRADES, *NAMES_TARGET)
            if re.fullmatch(r"-[a-zA-Z]*U[a-zA-Z]*", word):
                self.changes_unseen = True
            if "://" in word and not (indexed or "file://" in word or _COMMIT.search(word)):
                self.changes_unseen = True
            for path in self._paths(word, base or self._directory):
                self._add_path(path)
            name = _NAME.match(word)
            if name is not None and "/" not in word:
                self.names.add(normalized(name[0].rstrip(".-_")))

    def _paths(self, word: str, base: Path) -> list[Path]:
        """Return existing paths in a word: whole, after `=` or an option, without extras."""
        texts = {word, word.partition("=")[2], word.partition("[")[0]}
        texts |= {word[2:]} if re.match(r"-[a-zA-Z][^-]", word) else set()
        if "file://" in word:
            texts.add(unquote(word.partition("file://")[2]))
        return [base / text for text in texts if text and _exists(base / text)]

    def _add_path(self, path: Path) -> None:
        path = path.resolve()
        if path in self.roots:
            return
        self.roots.add(path)
        if path.is_dir():
            self._add_project(path)
        elif path.suffix in (".txt", ".in"):
            for text in _text(path).splitlines():
                words = text.partition(" #")[0].split()
                if words and not words[0].startswith("#"):
                    self.add_words(words, path.parent)

    def _add_project(self, folder: Path) -> None:
        for name in _PROJECT_FILES:
            text = _text(folder / name)
            if re.search(r"scm|vcs|git|versioneer", text):
                self.roots.update(git_files(folder))
            for quoted in _QUOTED.findall(text):
                self.changes_unseen |= "git+" in quoted and not _COMMIT.search(quoted)
                if "/" in quoted:
                    for path in self._paths(quoted, folder):
                        self._add_path(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_REQUIREMENTS:
            return ""
        return path.read_text(errors="replace")
    except OSError:
        return ""
