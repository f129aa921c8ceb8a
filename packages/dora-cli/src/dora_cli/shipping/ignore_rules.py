"""Which files of a folder stay at home: patterns of `.doraignore` after the defaults.

The syntax is that of `.gitignore`, at every level: later lines overrule earlier ones, a file in a
subfolder overrules those above it, and ``!pattern`` sends what a default leaves out.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final

from pathspec import GitIgnoreSpec

from dora_config.errors import DoraError

IGNORE_FILE: Final = ".doraignore"
DEFAULTS: Final = (
    *(".git", ".hg/", ".svn/", ".jj/"),
    *(".venv/", "node_modules/", "__pycache__/", "*.py[co]", "*.egg-info/", ".eggs/"),
    *(".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/", ".ipynb_checkpoints/"),
    *(".tox/", ".nox/", ".cache/", ".ccache/", ".direnv/", ".idea/", ".vscode/"),
    *(".#*", "*.swp", "*.swo", "*~", r"\#*\#", ".DS_Store", ".nfs*"),
    *(".dora/", ".dora-session.yaml", "*.dora-session.yaml", IGNORE_FILE),
    *("/out/", "/git/", "/_work/"),
)
"""Version control, environments, caches, files of editors, and what dora makes."""


class InvalidIgnoreFile(DoraError):
    """A `.doraignore` cannot be used; ``str()`` names it and says why."""


class IgnoreRules:
    """The patterns that apply below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._defaults = GitIgnoreSpec.from_lines(DEFAULTS)
        self._read: dict[PurePosixPath, GitIgnoreSpec | None] = {}
        self._included: set[PurePosixPath] = set()

    def include(self, folder: PurePosixPath) -> None:
        """Send a folder that the node names, whatever the patterns above it say of it."""
        if self.by_default(folder, is_folder=True) or self.by_user(folder, is_folder=True):
            self._included.add(folder)

    def by_default(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Whether a default leaves out ``path`` and no `.doraignore` decides otherwise."""
        chosen = self._chosen(path, is_folder=is_folder)
        return chosen is None and self._is_default(path, is_folder=is_folder)

    def by_user(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Whether a `.doraignore` leaves out ``path``."""
        return self._chosen(path, is_folder=is_folder) is True

    def _is_default(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        top = self._top(path)
        if path != top and self._defaults.match_file(_shown(path, top, is_folder=is_folder)):
            return True
        return is_folder and (self._root / path / "pyvenv.cfg").is_file()

    def _chosen(self, path: PurePosixPath, *, is_folder: bool) -> bool | None:
        """The verdict of the innermost `.doraignore` that has a pattern for ``path``."""
        top = self._top(path)
        for folder in path.parents:
            spec = self._spec(folder)
            if spec is not None:
                verdict = spec.check_file(_shown(path, folder, is_folder=is_folder)).include
                if verdict is not None:
                    return verdict
            if folder == top:
                break
        return None

    def _top(self, path: PurePosixPath) -> PurePosixPath:
        """The folder whose patterns are the outermost that count for ``path``."""
        named = (folder for folder in path.parents if folder in self._included)
        return next(named, PurePosixPath())

    def _spec(self, folder: PurePosixPath) -> GitIgnoreSpec | None:
        if folder not in self._read:
            self._read[folder] = _read(self._root / folder / IGNORE_FILE)
        return self._read[folder]


def _shown(path: PurePosixPath, folder: PurePosixPath, *, is_folder: bool) -> str:
    """``path`` as patterns of ``folder`` see it."""
    return f"{path.relative_to(folder)}{'/' if is_folder else ''}"


def _read(path: Path) -> GitIgnoreSpec | None:
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidIgnoreFile(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error) as error:
            raise InvalidIgnoreFile(
                f"{path}:{number}: invalid pattern {line!r}; the syntax is that of .gitignore"
            ) from error
    return GitIgnoreSpec.from_lines(lines)
