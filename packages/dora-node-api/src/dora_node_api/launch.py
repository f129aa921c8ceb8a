"""`dora.run` and `dora.build`: commands of the command line for Python programs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dora_node_api.errors import DoraNodeError


class CommandFailed(DoraNodeError, RuntimeError):
    """A command failed and printed its error. `code`: its exit code."""

    def __init__(self, words: Sequence[str], code: int) -> None:
        super().__init__(f"`dora {' '.join(words)}` failed with exit code {code}")
        self.code = code


def run(dataflow_path: str | Path, uv: bool | None = None, stop_after: float | None = None) -> None:
    """Run a dataflow on this machine until it ends, as `dora run` does.

    `stop_after`: seconds until it is stopped. Raises RuntimeError if it fails.
    """
    words = ["run", os.fspath(dataflow_path)]
    if uv:
        words.append("--uv")
    if stop_after is not None:
        words += ["--stop-after", f"{stop_after:g}s"]
    _call(words)


def build(
    dataflow_path: str | Path,
    uv: bool | None = None,
    coordinator_addr: str | None = None,
    coordinator_port: int | None = None,
    force_local: bool = False,
) -> None:
    """Run a dataflow's build commands, as `dora build` does. Raises RuntimeError if one fails."""
    words = ["build", os.fspath(dataflow_path)]
    if uv:
        words.append("--uv")
    if coordinator_addr is not None:
        words += ["--coordinator-addr", coordinator_addr]
    if coordinator_port is not None:
        words += ["--coordinator-port", str(coordinator_port)]
    if force_local:
        words.append("--local")
    _call(words)


def _call(words: list[str]) -> None:
    if importlib.util.find_spec("dora_config") is None:
        raise CommandLineMissing()
    code = subprocess.call([sys.executable, "-m", "dora_config.launcher", *words])
    if code:
        raise CommandFailed(words, code)


class CommandLineMissing(DoraNodeError, RuntimeError):
    """The command line (package dora-cli) is not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"the command line is not installed for {sys.executable}; install it, in a checkout of"
            " dora for Python: pip install packages/*"
        )
