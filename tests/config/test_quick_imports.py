"""Modules that our processes do not import, or import at their first use."""

from __future__ import annotations

import subprocess
import sys

import pytest


def output(program: str) -> str:
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("command", ["dora_coordinator.command", "dora_daemon.command"])
def test_servers_import_no_modules_that_they_do_not_use(command: str) -> None:
    unused = ("click", "yaml", "zipfile", "html.entities", "multiprocessing")
    program = f"import sys, {command}; print([n for n in {unused} if n in sys.modules])"
    assert output(program) == "[]"


def test_a_delayed_module_is_imported_when_it_is_used() -> None:
    program = (
        "import dora_config.quick_imports, sys\n"
        "import importlib.metadata, html, inspect\n"
        "inspect.getmodule(inspect.currentframe())\n"  # reads `__file__` of all modules
        "print('zipfile' in sys.modules, 'html.entities' in sys.modules)\n"
        "from importlib.metadata import version\n"
        "print(importlib.metadata.version('pydantic') == version('pydantic'), html.escape('<'))\n"
        "print('zipfile' in sys.modules, 'html.entities' in sys.modules)\n"
    )
    assert output(program).splitlines() == ["False False", "True &lt;", "True True"]
