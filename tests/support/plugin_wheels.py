"""Wheels of plug-ins for tests: only their metadata, and a module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dora_config import plugins


class PluginWheels:
    """Installs wheels in a folder that is on ``sys.path`` during the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        wheel: str,
        additions: Mapping[str, Mapping[str, str]],
        *,
        interface: str | None = plugins.INTERFACE,
        version: str = "0.3",
        **modules: str,
    ) -> None:
        """Write the metadata of a wheel, entry points by group and name, and its modules."""
        stem = wheel.replace("-", "_")
        info = self.folder / f"{stem}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: {version}")
        stated = {} if interface is None else {plugins.INTERFACE_GROUP: {interface: stem}}
        lines = [
            line
            for group, names in {**stated, **additions}.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for name, text in modules.items():
            (self.folder / f"{name}.py").write_text(text)
        plugins.installed.cache_clear()

    def completions(self, line: str) -> list[str]:
        """Return what bash offers for the last word of a line."""
        program = "from dora_config.launcher import main; raise SystemExit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={
                "PYTHONPATH": str(self.folder),
                "_DORA_COMPLETE": "complete_bash",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(line.split()) - 1),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return sorted(done.stdout.split())


def plugin_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    """Yield an installer of plug-ins; the body of a fixture."""
    folder = tmp_path / "plug-ins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    plugins.installed.cache_clear()
    yield PluginWheels(folder)
    plugins.installed.cache_clear()
