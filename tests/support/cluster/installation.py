"""Installations of dora from real wheels of any version, and a machine to install it on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.sources import PACKAGES, ROOT

from dora_cluster.connection import FinishedCommand, Listeners, MachineConnection

CURRENT = "0.1.0"
"""The version in the sources."""

_BUILDER = """\
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""
Edits = Mapping[str, Callable[[str], str]]
"""Path below ``packages/`` to a function that changes the file's text."""


@dataclass(frozen=True)
class Installation:
    """A virtual environment with all wheels; dependencies come from that of the tests."""

    folder: Path
    """The folder of ``install``."""
    version: str

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def dora(self) -> Path:
        return self.python.with_name("dora")

    @property
    def site(self) -> Path:
        (found,) = self.folder.glob("venv/lib/python*/site-packages")
        return found

    def run(self, *words: str | Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run its ``dora`` with any exit code."""
        return subprocess.run(
            [self.dora, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def install(folder: Path, version: str = CURRENT, edits: Edits | None = None) -> Installation:
    """Build wheels of ``version`` from the sources, changed by ``edits``, and install them."""
    sources = folder / "sources"
    for name in PACKAGES:
        copied = sources / name
        ignored = shutil.ignore_patterns("__pycache__", "dist", "*.egg-info")
        shutil.copytree(ROOT / "packages" / name, copied, ignore=ignored)
        for path in (copied / "pyproject.toml", *copied.glob("src/*/_version.py")):
            path.write_text(path.read_text().replace(CURRENT, version))
    for name, edit in (edits or {}).items():
        path = sources / name
        changed = edit(path.read_text())
        assert changed != path.read_text(), f"the edit of {name} changes nothing"
        path.write_text(changed)
    wheels = _build([sources / name for name in PACKAGES], folder / "wheels")
    home = folder / "venv"
    _run("uv", "venv", "--quiet", "--python", sys.executable, str(home))
    _run("uv", "pip", "install", "--quiet", "--no-deps", "--python", str(home / "bin" / "python"),
         *map(str, wheels))  # fmt: skip
    made = Installation(folder, version)
    (made.site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def _build(folders: Sequence[Path], target: Path) -> list[Path]:
    """Build all wheels in one environment: ``uv build`` creates one for each wheel."""
    python = target.with_name("builder") / "bin" / "python"
    _run("uv", "venv", "--quiet", "--python", sys.executable, str(python.parents[1]))
    _run("uv", "pip", "install", "--quiet", "--python", str(python), "hatchling>=1.24")
    _run(str(python), "-c", _BUILDER, str(target), *map(str, folders))
    return sorted(target.glob("*.whl"))


def _run(*words: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    program = str(uv) if words[0] == "uv" and uv.exists() else words[0]
    done = subprocess.run(
        [program, *words[1:]], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"


class LocalMachine(MachineConnection):
    """This machine behind the interface of a connection; its home is a folder.

    ``path``: its PATH, by default with the interpreter of the tests.
    """

    is_root = True

    def __init__(self, home: Path, *, path: str | None = None) -> None:
        super().__init__("robot (local)")
        self.home = home
        self.sent: list[int] = []
        """Bytes of each transfer."""
        self.cut_after: int | None = None
        """Break the next transfer after so many bytes."""
        self._path = path or f"{Path(sys.executable).parent}:/usr/bin:/bin"

    def close(self) -> None:
        return

    def _execute(
        self, argv: Sequence[str], pieces: Iterator[bytes], timeout: float, listeners: Listeners
    ) -> FinishedCommand:
        kept = {name: text for name, text in os.environ.items() if name.startswith("DORA_TESTS_")}
        done = subprocess.run(
            list(argv),
            input=b"".join(pieces),
            capture_output=True,
            timeout=timeout,
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": self._path, "LANG": "C.UTF-8", **kept},
            check=False,
        )
        return FinishedCommand(done.returncode, done.stdout.decode(), done.stderr.decode())

    def send(
        self,
        source: Path,
        target: str,
        *,
        offset: int = 0,
        sudo: bool = False,
        progress: Callable[[int], None] | None = None,
        timeout: float = 3600.0,
    ) -> None:
        content = source.read_bytes()[offset:]
        assert Path(target).stat().st_size == offset
        cut, self.cut_after = self.cut_after, None
        with Path(target).open("ab") as file:
            file.write(content[:cut])
        self.sent.append(len(content[:cut]))
        if cut is not None:
            raise ConnectionError("the connection was cut")
