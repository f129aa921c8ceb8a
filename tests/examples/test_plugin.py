"""The plug-in in `examples/plugin`: built, installed beside dora, and used."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from examples.conftest import EXAMPLES, CopyExample
from support.sources import PACKAGES

PLUGIN = EXAMPLES / "plugin"


def _run(*words: object, folder: Path) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an environment without dora."""
    environment = tmp_path / "environment"
    uv = Path(sys.executable).with_name("uv")
    _run(uv, "venv", "--python", sys.executable, environment, folder=tmp_path)
    return environment / "bin" / "python"


def test_the_plugin_in_its_own_environment(copy_example: CopyExample, python: Path) -> None:
    folder = copy_example("plugin").parent
    uv = Path(sys.executable).with_name("uv")
    wheels = [f"{EXAMPLES.parent}/packages/{name}" for name in PACKAGES if name != "dora-ros2"]
    _run(uv, "pip", "install", "--python", python, *wheels, folder, "pytest", folder=folder)
    _run(python, "-m", "pytest", folder=folder)
    dora = python.with_name("dora")
    assert "\nPlug-ins:\n  hello  Greet someone.\n" in _run(dora, "--help", folder=folder)
    assert "dora-hello 0.1.0" in _run(dora, "doctor", folder=folder)
    _run(uv, "pip", "uninstall", "--python", python, "dora-hello", folder=folder)
    assert "hello" not in _run(dora, "--help", folder=folder)


@pytest.mark.parametrize("name", ["command", "node", "csv_export", "arguments"])
def test_the_page_has_the_files(name: str) -> None:
    page = (EXAMPLES.parent / "docs/howto/plugins.md").read_text()
    assert (PLUGIN / f"src/dora_hello/{name}.py").read_text() in page


def test_what_the_page_calls_stable_exists() -> None:
    page = (EXAMPLES.parent / "docs/howto/plugins.md").read_text()
    rows = page.partition("## What plug-ins may use")[2].partition("\n## ")[0].splitlines()
    named = {
        f"{module}.{name}"
        for row in rows
        for module, names in re.findall(r"^\| `(dora[\w.]+)`: ([^|]*)", row)
        for name in re.findall(r"`(\w+)`", names)
    }
    named |= set(re.findall(r"`(dora\w+\.[\w.]+)`", "\n".join(rows)))
    assert len(named) > 9
    assert [name for name in sorted(named) if not _exists(name)] == []


def _exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ModuleNotFoundError:
        return hasattr(import_module(module), attribute)
    return True
