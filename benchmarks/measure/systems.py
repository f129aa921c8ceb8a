"""The compared systems: ours as installed here, dora-rs in its own environment."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

REQUIREMENTS = ("dora-rs==1.1.0", "dora-rs-cli==1.1.0")
# In bytes: dora-rs ignores values with a unit.
TUNED = {"DORA_NODE_SHM_POOL_SIZE": str(256 << 20)}
OWN_VARIABLES = ("DORA_", "BENCH_", "PYTHONPATH", "VIRTUAL_ENV", "ZENOH_")


@dataclass(frozen=True)
class System:
    """One way to run a dataflow: the folder of its programs and the environment of its nodes."""

    name: str
    programs: Path
    node_env: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [str(self.programs / "dora"), "run"]

    def environment(self) -> dict[str, str]:
        """Return this process's environment with only this system's programs."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)}
        clean["PATH"] = f"{self.programs}{os.pathsep}{clean.get('PATH', '')}"
        clean["VIRTUAL_ENV"] = str(self.programs.parent)
        return clean


def ours() -> System:
    """Return the system of the interpreter that runs this."""
    return System("ours", Path(sys.executable).parent)


def dora_rs(folder: Path) -> tuple[System, System]:
    """Return dora-rs with its defaults and with a large pool; install it if needed."""
    programs = folder / "bin"
    if not (programs / "dora").exists():
        print(f"installing {' and '.join(REQUIREMENTS)} in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
    return System("dora-rs", programs), System("tuned", programs, TUNED)
