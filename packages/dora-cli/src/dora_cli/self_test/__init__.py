"""`dora self test`: whether this installation runs a dataflow, in a folder of its own.

Two nodes over shared memory, with everything that a run takes: runner, interpreter, pyarrow, the
transport. The modules that only a daemon or a coordinator needs are imported, no more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from dora_config.errors import DoraError

TIMEOUT: Final = 60.0
EXPECTED: Final = "self-test: 100 messages arrived"
_FILES: Final = ("dataflow.yml", "sender.py", "receiver.py")
_MODULES: Final = ("dora_coordinator.command", "dora_daemon.command", "dora_daemon.runner", "zenoh")


class SelfTestFailed(DoraError):
    """This installation does not work; ``str()`` says what was seen."""


def run() -> None:
    """Raises SelfTestFailed."""
    for name in _MODULES:
        try:
            import_module(name)
        except Exception as error:
            raise SelfTestFailed(f"{name} cannot be imported: {error!r}") from error
    # a short path: sockets lie below it
    with tempfile.TemporaryDirectory(prefix="dt", dir="/tmp") as folder:
        for name in _FILES:
            with as_file(files(__name__) / name) as source:
                (Path(folder) / name).write_bytes(source.read_bytes())
        _run_dataflow(Path(folder))


def _run_dataflow(folder: Path) -> None:
    """Nothing of the user's settings counts, and nothing is left in the user's home."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DORA_")}
    environ |= {"HOME": str(folder), "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    environ.pop("RUNTIME_DIRECTORY", None)
    isolation = "-I" if sys.flags.isolated else "-P"
    try:
        done = subprocess.run(
            [sys.executable, isolation, "-m", "dora_config.launcher", "run", "dataflow.yml"],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        printed = expired.stdout or b""  # bytes in spite of text=True
        raise SelfTestFailed(
            f"a dataflow of two nodes did not end within {TIMEOUT:g} s; it printed:\n"
            + _indented(printed.decode(errors="replace"))
        ) from None
    if done.returncode != 0 or EXPECTED not in done.stdout:
        raise SelfTestFailed(
            f"a dataflow of two nodes ended with code {done.returncode}; it printed:\n"
            + _indented(done.stdout)
        )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-15:])
