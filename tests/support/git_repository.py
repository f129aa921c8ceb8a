"""A local git repository with the commits of a test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, check=True, capture_output=True, text=True, env=os.environ
    )
    return done.stdout.strip()


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch", "main")

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def commit(self, text: str) -> str:
        """Commit a file ``node.py`` with this text; return the commit id."""
        (self.folder / "node.py").write_text(text)
        git(self.folder, "add", ".")
        git(self.folder, "commit", "--quiet", "-m", text.splitlines()[0])
        return git(self.folder, "rev-parse", "HEAD")
