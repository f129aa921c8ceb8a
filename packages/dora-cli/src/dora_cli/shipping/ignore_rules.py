"""Rules for files that are not sent: defaults and patterns of `.doraignore`.

The syntax is that of `.gitignore`: later lines override earlier ones, a file in a subfolder
overrides those above it, and ``!pattern`` includes files that a default excludes.
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
"""Version control, environments, caches, editor files, files of dora."""


class InvalidIgnoreFile(DoraError):
    """A `.doraignore` file is malformed or unreadable."""


class IgnoreRules:
    """Rules for the files below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._defaults = GitIgnoreSpec.from_lines(DEFAULTS)
        self._read: dict[PurePosixPath, GitIgnoreSpec | None] = {}
        self._included: set[PurePosixPath] = set()

    def include(self, folder: PurePosixPath) -> None:
        """Include a folder that the node names; patterns above it no longer apply."""
        if self.by_default(folder, is_folder=True) or self.by_user(folder, is_folder=True):
            self._included.add(folder)

    def by_default(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Return whether a default excludes ``path`` and no `.doraignore` overrides it."""
        chosen = self._chosen(path, is_folder=is_folder)
        return chosen is None and self._is_default(path, is_folder=is_folder)

    def by_user(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Return whether a `.doraignore` excludes ``path``."""
        return self._chosen(path, is_folder=is_folder) is True

    def _is_default(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        top = self._top(path)
        if path != top and self._defaults.match_file(_shown(path, top, is_folder=is_folder)):
            return True
        return is_folder and (self._root / path / "pyvenv.cfg").is_file()

    def _chosen(self, path: PurePosixPath, *, is_folder: bool) -> bool | None:
        """Return the decision of the innermost `.doraignore` that matches ``path``."""
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
        """Return the outermost folder whose patterns apply to ``path``."""
        named = (folder for folder in path.parents if folder in self._included)
        return next(named, PurePosixPath())

    def _spec(self, folder: PurePosixPath) -> GitIgnoreSpec | None:
        if folder not in self._read:
            self._read[folder] = _read(self._root / folder / IGNORE_FILE)
        return self._read[folder]


def _shown(path: PurePosixPath, folder: PurePosixPath, *, is_folder: bool) -> str:
    """Return ``path`` relative to ``folder``, as patterns match it."""
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
