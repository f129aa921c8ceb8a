"""The platform of this machine: what decides which wheels run here."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any


def platform_facts() -> dict[str, Any]:
    """Return the facts that ``dora_cli.bundle.platform`` reads."""
    libc, version = _libc()
    return {
        "system": platform.system(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": libc,
        "libc_version": version,
        "python": list(sys.version_info[:3]),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def _libc() -> tuple[str, str]:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        text = ""
    if text.startswith("glibc "):
        return "glibc", text.split()[1]
    for loader in sorted(Path("/lib").glob("ld-musl-*.so.1")):
        printed = subprocess.run([loader], capture_output=True, text=True, check=False).stderr
        for line in printed.splitlines():
            if line.startswith("Version "):
                return "musl", line.split()[1]
    return platform.libc_ver()


def own_python() -> Path:
    """Return the interpreter itself, not the link of a virtual environment to it."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)
